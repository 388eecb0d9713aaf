//! ONNX Runtime behind a session: the shared library, the providers, and buffers bound once.

use crate::contract::{Contract, Input, Spec};
use crate::session::Options;
use crate::shape::{resolve, Sizes};
use crate::tensor::{DType, Tensor, View};
use crate::{Error, Result};
use ort::ep::ExecutionProvider;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, TensorElementType};
use ort::AsPointer;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What computes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// There on every machine, and the fastest for single steps of small networks.
    #[default]
    Cpu,
    /// A CUDA GPU; an error where it does not work, never another provider.
    Cuda,
}

impl std::str::FromStr for Provider {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(Error::new(
                "provider-unknown",
                "a provider out of cpu, cuda",
                format!("'{name}'"),
                "choose one of these",
            )),
        }
    }
}

/// The one environment of a process; ONNX Runtime stays loaded until the process ends.
static ENVIRONMENT: Mutex<Option<ort::environment::Environment>> = Mutex::new(None);

/// Load the shared library once: from `library`, the variables, or where the system finds it.
fn environment(library: Option<&Path>) -> Result<ort::environment::Environment> {
    let mut held = ENVIRONMENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(environment) = held.as_ref() {
        return Ok(environment.clone());
    }
    // Official builds report their use over the network unless this says otherwise before they are loaded.
    if std::env::var_os("ORT_DISABLE_TELEMETRY").is_none() {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
    }
    let variable = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let named =
        library.map(Path::to_owned).or_else(|| variable("RNNX_ONNXRUNTIME")).or_else(|| variable("ORT_DYLIB_PATH"));
    let candidates = match named {
        Some(path) => vec![path],
        None if cfg!(windows) => vec!["onnxruntime.dll".into()],
        None if cfg!(target_os = "macos") => vec!["libonnxruntime.dylib".into()],
        None => vec!["libonnxruntime.so.1".into(), "libonnxruntime.so".into()],
    };
    let mut reason = String::new();
    for path in candidates {
        match ort::init_from(&path).map_err(|error| error.to_string()).and_then(|builder| {
            builder.with_name("rnnx").with_telemetry(false).build().map_err(|error| error.to_string())
        }) {
            Ok(environment) => {
                environment.set_log_level(ort::logging::LogLevel::Fatal); // what goes wrong is returned
                return Ok(held.insert(environment).clone());
            }
            Err(error) => reason = first_line(&error),
        }
    }
    Err(Error::new(
        "onnxruntime-missing",
        "the shared library of ONNX Runtime",
        format!("none that can be loaded ({reason})"),
        "set RNNX_ONNXRUNTIME to the path of libonnxruntime",
    ))
}

/// Where the model's bytes are: weights beside a file are found by the file's place.
pub(crate) enum Source<'a> {
    Path(&'a Path),
    Bytes(&'a [u8]),
}

/// Load a model on `provider` and nowhere else.
pub(crate) fn load(source: &Source<'_>, options: &Options, label: &str) -> Result<Session> {
    let provider = options.provider;
    let environment = match &options.environment {
        Some(environment) => environment.clone(),
        None => environment(options.library.as_deref())?,
    };
    let failed = |message: &str| {
        if provider == Provider::Cuda && message.to_lowercase().contains("cuda") {
            return no_cuda(message);
        }
        Error::new(
            "engine-refused",
            format!("{label} to load in ONNX Runtime"),
            first_line(message),
            "export it again, or install a newer ONNX Runtime",
        )
    };
    let build = || -> std::result::Result<Session, (bool, String)> {
        let text = |error: &dyn std::fmt::Display| (false, error.to_string());
        let mut builder = Session::builder(&environment).map_err(|error| text(&error))?;
        builder = builder.with_intra_threads(options.threads.max(1)).map_err(|error| text(&error))?;
        builder = builder.with_inter_threads(1).map_err(|error| text(&error))?;
        builder = builder.with_intra_op_spinning(false).map_err(|error| text(&error))?;
        if provider == Provider::Cuda {
            if !ort::ep::CUDA::is_available().unwrap_or(false) {
                return Err((true, "an ONNX Runtime built without CUDA".into()));
            }
            let cuda = ort::ep::CUDA::default().with_tf32(false).build().error_on_failure();
            builder = builder.with_execution_providers([cuda]).map_err(|error| (true, error.to_string()))?;
        }
        match source {
            Source::Path(path) => builder.commit_from_file(path),
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
        }
        .map_err(|error| text(&error))
    };
    build().map_err(|(is_cuda, message)| if is_cuda { no_cuda(&message) } else { failed(&message) })
}

fn no_cuda(reason: &str) -> Error {
    Error::new(
        "provider-unavailable",
        "CUDA to work on this machine",
        first_line(reason),
        "install ONNX Runtime with CUDA (in Python: rnnx[cuda], without onnxruntime), or use provider cpu",
    )
}

pub(crate) fn failed(error: &ort::Error) -> Error {
    Error::new(
        "engine-failed",
        "ONNX Runtime to compute the step",
        first_line(error.message()),
        "the states are unchanged; check that the contract fits the graph, or export the model again",
    )
}

fn first_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or("no reason given").to_owned()
}

fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::Float16 => TensorElementType::Float16,
        DType::Float32 => TensorElementType::Float32,
        DType::Float64 => TensorElementType::Float64,
        DType::Int8 => TensorElementType::Int8,
        DType::Int16 => TensorElementType::Int16,
        DType::Int32 => TensorElementType::Int32,
        DType::Int64 => TensorElementType::Int64,
        DType::Uint8 => TensorElementType::Uint8,
        DType::Uint16 => TensorElementType::Uint16,
        DType::Uint32 => TensorElementType::Uint32,
        DType::Uint64 => TensorElementType::Uint64,
        DType::Bool => TensorElementType::Bool,
    }
}

/// Memory of ONNX Runtime that stays bound: on the host, or for states where the provider computes.
pub(crate) struct Buffer {
    value: DynTensor,
    dtype: DType,
    shape: Vec<usize>,
    /// Null where the memory is not the host's.
    data: *mut u8,
    size: usize,
}

// SAFETY: `data` points into `value`, which may move between threads; access needs `&` or `&mut` as usual.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(allocator: &Allocator, dtype: DType, shape: Vec<usize>, on_host: bool) -> ort::Result<Self> {
        let mut value = DynTensor::new(allocator, element_type(dtype), shape.as_slice())?;
        let data = if on_host { value.data_ptr_mut().cast() } else { std::ptr::null_mut() };
        let size = shape.iter().product::<usize>() * dtype.size();
        Ok(Self { value, dtype, shape, data, size })
    }

    /// The bytes of a buffer on the host.
    pub(crate) fn bytes(&self) -> &[u8] {
        debug_assert!(!self.data.is_null());
        // SAFETY: `data` is the start of `size` bytes, zeroed when made; the engine writes only in `Call::run`.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }

    /// The bytes of a buffer on the host.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        debug_assert!(!self.data.is_null());
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.size) }
    }

    /// A copy of the values, from wherever they are.
    pub(crate) fn read(&self) -> Result<Tensor> {
        if !self.data.is_null() {
            return Ok(View { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }.to_tensor());
        }
        let host = self.value.to(AllocationDevice::CPU, 0).map_err(|error| failed(&error))?;
        // SAFETY: the copy has the dtype and shape of this buffer, on the host, and lives until it is copied.
        let bytes = unsafe { std::slice::from_raw_parts(host.data_ptr().cast(), self.size) };
        Ok(View { dtype: self.dtype, shape: &self.shape, bytes }.to_tensor())
    }

    /// Overwrite the values with bytes of the exact size.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.data.is_null() {
            self.bytes_mut().copy_from_slice(bytes);
            return Ok(());
        }
        let host = Self::new(&Allocator::default(), self.dtype, self.shape.clone(), true);
        host.and_then(|mut host| {
            host.bytes_mut().copy_from_slice(bytes);
            host.value.copy_into(&mut self.value)
        })
        .map_err(|error| failed(&error))
    }
}

/// The states of a stream, twice: a step reads one side and writes the other.
pub(crate) type Sides = [Vec<Buffer>; 2];

pub(crate) fn sides(session: &Session, provider: Provider, contract: &Contract, sizes: &Sizes) -> Result<Sides> {
    let allocator = match provider {
        Provider::Cpu => Allocator::default(),
        Provider::Cuda => {
            let place = MemoryInfo::new(AllocationDevice::CUDA, 0, AllocatorType::Device, MemoryType::Default);
            place.and_then(|place| Allocator::new(session, place)).map_err(|error| failed(&error))?
        }
    };
    let side = || {
        let states = contract.states.iter();
        let buffer = |spec: &Spec| {
            let shape = resolve(&spec.shape, sizes).expect("opening checked that states have sizes");
            Buffer::new(&allocator, spec.dtype, shape, provider == Provider::Cpu).map_err(|error| failed(&error))
        };
        states.map(|state| buffer(&state.spec)).collect::<Result<Vec<_>>>()
    };
    Ok([side()?, side()?])
}

/// Inputs, outputs and states bound for calls of one size: a step binds nothing anew.
pub(crate) struct Bound {
    pub(crate) inputs: Vec<Buffer>,
    /// None for an output whose size is known only after a run, since no input and no state has its dimension.
    pub(crate) outputs: Vec<Option<Buffer>>,
    /// Such outputs of the latest run, in the shape of the graph.
    pub(crate) loose: Vec<Option<Tensor>>,
    /// One for each side that is read.
    bindings: Vec<IoBinding>,
}

impl Bound {
    pub(crate) fn new(session: &Session, contract: &Contract, sides: &mut Sides, sizes: &Sizes) -> Result<Self> {
        Self::bind(session, contract, sides, sizes).map_err(|error| failed(&error))
    }

    fn bind(session: &Session, contract: &Contract, sides: &mut Sides, sizes: &Sizes) -> ort::Result<Self> {
        let buffer = |spec: &Spec| {
            let shape = resolve(&spec.shape, sizes);
            shape.map(|shape| Buffer::new(&Allocator::default(), spec.dtype, shape, true)).transpose()
        };
        let input = |input: &Input| Ok(buffer(&input.spec)?.expect("matching found every size of inputs"));
        let inputs = contract.inputs.iter().map(input).collect::<ort::Result<Vec<_>>>()?;
        let mut outputs = contract.outputs.iter().map(buffer).collect::<ort::Result<Vec<_>>>()?;
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
        let mut bindings = Vec::new();
        for side in 0..2 {
            let mut binding = session.create_binding()?;
            for (input, buffer) in contract.inputs.iter().zip(&inputs) {
                binding.bind_input(input.spec.name.as_str(), &buffer.value)?;
            }
            for (spec, buffer) in contract.outputs.iter().zip(&mut outputs) {
                match buffer {
                    Some(buffer) => binding.bind_output(spec.name.as_str(), &mut buffer.value)?,
                    None => binding.bind_output_to_device(spec.name.as_str(), &host)?,
                }
            }
            for (index, state) in contract.states.iter().enumerate() {
                binding.bind_input(state.input.as_str(), &sides[side][index].value)?;
                binding.bind_output(state.output.as_str(), &mut sides[1 - side][index].value)?;
            }
            bindings.push(binding);
        }
        let loose = vec![None; outputs.len()];
        Ok(Self { inputs, outputs, loose, bindings })
    }

    /// Compute from the states of `side` into those of the other.
    pub(crate) fn run(
        &mut self,
        session: &Session,
        provider: Provider,
        contract: &Contract,
        side: usize,
    ) -> Result<()> {
        let binding = &mut self.bindings[side];
        if provider == Provider::Cuda {
            // Binding is what copies an input to the GPU; outputs come back by themselves.
            for (input, buffer) in contract.inputs.iter().zip(&self.inputs) {
                binding.bind_input(input.spec.name.as_str(), &buffer.value).map_err(|error| failed(&error))?;
            }
        }
        // `Session::run_binding` wants the session for itself and allocates; the C function behind it needs
        // neither, and ONNX Runtime allows it from several threads at once on bindings of their own.
        // SAFETY: session and binding are alive, the binding is borrowed mutably, and no options are given.
        let status = unsafe { (ort::api().RunWithBinding)(session.ptr().cast_mut(), std::ptr::null(), binding.ptr()) };
        // SAFETY: the status was just returned, and is released once.
        unsafe { ort::Error::result_from_status(status) }.map_err(|error| failed(&error))?;
        if self.outputs.iter().any(Option::is_none) {
            self.fetch(session, contract, side).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Copy the outputs that no buffer was bound for.
    fn fetch(&mut self, session: &Session, contract: &Contract, side: usize) -> ort::Result<()> {
        let allocator = session.allocator();
        let (mut values, mut count) = (std::ptr::null_mut(), 0);
        let binding = self.bindings[side].ptr();
        // SAFETY: the binding ran, and the allocator lives as long as the session.
        let status =
            unsafe { (ort::api().GetBoundOutputValues)(binding, allocator.ptr().cast_mut(), &mut values, &mut count) };
        // SAFETY: the status was just returned, and is released once.
        unsafe { ort::Error::result_from_status(status) }?;
        // SAFETY: an array of `count` values, in the order in which outputs were bound: those of the contract
        // come first. Each is ours to release, which `DynTensor` does.
        let taken: Vec<DynTensor> = unsafe { std::slice::from_raw_parts(values, count) }
            .iter()
            .filter_map(|value| std::ptr::NonNull::new(*value))
            .map(|value| unsafe { DynTensor::from_ptr(value, Some(allocator)) })
            .collect();
        // SAFETY: the array was made with this allocator.
        unsafe { allocator.free(values) };
        for (index, (spec, value)) in contract.outputs.iter().zip(&taken).enumerate() {
            if self.outputs[index].is_none() {
                let shape: Vec<usize> = value.shape().iter().map(|size| *size as usize).collect();
                let size = shape.iter().product::<usize>() * spec.dtype.size();
                // SAFETY: the value has this dtype, as the contract and the graph agree, and lies on the host.
                let bytes = unsafe { std::slice::from_raw_parts(value.data_ptr().cast(), size) };
                self.loose[index] = Some(View { dtype: spec.dtype, shape: &shape, bytes }.to_tensor());
            }
        }
        Ok(())
    }
}
