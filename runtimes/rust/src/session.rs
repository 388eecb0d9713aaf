//! A session: a loaded model, immutable, shared between threads.

use crate::contract::Contract;
use crate::engine::{self, Provider, Source};
use crate::pool::Pool;
use crate::stream::{Stream, StreamBuilder};
use crate::{model_file, Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A loaded model. Cloning it is cheap, and threads may share it.
#[derive(Clone)]
pub struct Session {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) contract: Contract,
    pub(crate) provider: Provider,
    pub(crate) engine: ort::session::Session,
}

/// How a model is loaded: `Options::new().provider(Provider::Cuda).open("poet.onnx")`.
#[derive(Clone, Default)]
pub struct Options {
    pub(crate) provider: Provider,
    pub(crate) library: Option<PathBuf>,
    pub(crate) environment: Option<ort::environment::Environment>,
    pub(crate) threads: usize,
}

impl Options {
    /// The provider `cpu`, one thread, and the shared library that `RNNX_ONNXRUNTIME`, `ORT_DYLIB_PATH` or the
    /// system names.
    pub fn new() -> Self {
        Self::default()
    }

    /// What computes a step.
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Path of ONNX Runtime's shared library. The first session of a process decides for all.
    pub fn library(mut self, path: impl Into<PathBuf>) -> Self {
        self.library = Some(path.into());
        self
    }

    /// The environment of a program that uses `ort` itself: there can be only one in a process.
    pub fn environment(mut self, environment: &ort::environment::Environment) -> Self {
        self.environment = Some(environment.clone());
        self
    }

    /// Threads inside one operator; one is the fastest for a step of a small network.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Load the model at `path`; see [`Session::open`].
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Session> {
        let path = path.as_ref();
        let data = read_file(path, "an ONNX model")?;
        self.load(&data, Some(path), &path.display().to_string())
    }

    /// Load a model from its bytes; one with weights in another file needs [`Options::open`].
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bytes(&self, data: &[u8]) -> Result<Session> {
        self.load(data, None, "the model")
    }

    fn load(&self, data: &[u8], path: Option<&Path>, label: &str) -> Result<Session> {
        let (contract, is_external) = model_file::read_model(data, path, label)?;
        // With weights beside the file, ONNX Runtime has to find them by the file's place.
        let source = path.filter(|_| is_external).map_or(Source::Bytes(data), Source::Path);
        let engine = engine::load(&source, self, label)?;
        Ok(Session { inner: Arc::new(Inner { contract, provider: self.provider, engine }) })
    }
}

impl Session {
    /// Load the model at `path` on the CPU; weights in other files are read from its folder alone.
    ///
    /// # Errors
    /// `file-missing`, `cannot-read`, `not-onnx`, `external-data-missing`, `external-data-refused`, `no-contract`,
    /// `contract-invalid`, `contract-newer`, `contract-requires`, `contract-graph`, `onnxruntime-missing`,
    /// `provider-unavailable` or `engine-refused`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Load a model from its bytes, on the CPU.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bytes(data: &[u8]) -> Result<Self> {
        Options::new().from_bytes(data)
    }

    /// What the model takes, gives and carries.
    pub fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    /// Identity of the model; snapshots and traces are tied to it.
    pub fn id(&self) -> &str {
        &self.inner.contract.id
    }

    /// What computes a step.
    pub fn provider(&self) -> Provider {
        self.inner.provider
    }

    /// Open a stream of one sequence with states at their start.
    ///
    /// # Errors
    /// As [`StreamBuilder::open`].
    pub fn stream(&self) -> Result<Stream> {
        self.stream_with().open()
    }

    /// Open a stream with a batch, free dimensions or other starts.
    pub fn stream_with(&self) -> StreamBuilder<'_> {
        StreamBuilder::new(self)
    }

    /// Open a pool, which steps many streams as one batch.
    ///
    /// # Errors
    /// `whole-only`, `no-batch`, `shared-state` or `shared-output`.
    pub fn pool(&self) -> Result<Pool> {
        Pool::new(self)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("name", &self.contract().name).field("provider", &self.provider()).finish()
    }
}

/// The bytes of the file at `path`; `what` it should be stands in the message ("a trace").
///
/// # Errors
/// `file-missing` or `cannot-read`.
pub fn read_file(path: impl AsRef<Path>, what: &str) -> Result<Vec<u8>> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|error| {
        let expected = format!("{what} at {}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::new("file-missing", expected, "no such file", "check the path"),
            std::io::ErrorKind::IsADirectory => Error::new("cannot-read", expected, "a folder", "name a readable file"),
            _ => Error::new("cannot-read", expected, error.to_string(), "name a readable file"),
        }
    })
}
