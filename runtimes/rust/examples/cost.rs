//! What a step costs over the binding called by hand: `cargo run --release --example cost MODEL [STEPS]`.
//!
//! For a model with one float32 input. Blocks of steps take turns, and the best block of each counts. Prints
//! microseconds a step as JSON.

use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::value::Tensor;
use rnnx::{Axis, Contract, View};
use std::time::Instant;

const BLOCK: usize = 1000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("usage: cost MODEL [STEPS]")?;
    let steps: usize = std::env::args().nth(2).map_or(Ok(20_000), |text| text.parse())?;
    let environment = ort::init_from(std::env::var("RNNX_ONNXRUNTIME")?)?.build()?;
    let session = rnnx::Options::new().environment(&environment).open(&path)?;
    let contract = session.contract();
    let mut stream = session.stream()?;
    let spec = &contract.inputs[0].spec;
    let shape = spec.step_shape(|_| 1);
    let mut frame = vec![0.25f32; shape.iter().product()];
    let mut by_hand = ByHand::open(&environment, &path, contract)?;
    let (mut ours_us, mut by_hand_us) = (f64::INFINITY, f64::INFINITY);
    for block in 0..(steps / BLOCK).max(2) {
        frame[0] = block as f32 / 100.0;
        let start = Instant::now();
        for _ in 0..BLOCK {
            stream.step(&[(&spec.name, View::new(&shape, &frame))])?;
        }
        ours_us = ours_us.min(start.elapsed().as_secs_f64() * 1e6 / BLOCK as f64);
        let start = Instant::now();
        for _ in 0..BLOCK {
            by_hand.step(&frame)?;
        }
        by_hand_us = by_hand_us.min(start.elapsed().as_secs_f64() * 1e6 / BLOCK as f64);
    }
    println!("{{\"step_us\": {ours_us:.3}, \"by_hand_us\": {by_hand_us:.3}}}");
    Ok(())
}

/// Batch 1, one step.
fn sizes(shape: &[Axis]) -> Vec<usize> {
    shape.iter().map(Axis::factor).collect()
}

/// The binding as one would write it: everything bound once, two bindings that take turns.
struct ByHand {
    session: Session,
    input: *mut f32,
    bindings: [IoBinding; 2],
    side: usize,
    _buffers: Vec<Tensor<f32>>,
}

impl ByHand {
    fn open(environment: &Environment, path: &str, contract: &Contract) -> Result<Self, Failure> {
        let builder = Session::builder(environment)?.with_intra_threads(1)?.with_inter_threads(1)?;
        let session = builder.with_intra_op_spinning(false)?.commit_from_file(path)?;
        let make = |shape: &[Axis]| Tensor::<f32>::new(&Allocator::default(), sizes(shape));
        let mut input = make(&contract.inputs[0].spec.shape)?;
        let mut outputs = contract.outputs.iter().map(|spec| make(&spec.shape)).collect::<Result<Vec<_>, _>>()?;
        let mut sides = Vec::new();
        for _ in 0..2 {
            sides.push(contract.states.iter().map(|state| make(&state.spec.shape)).collect::<Result<Vec<_>, _>>()?);
        }
        let mut bindings = Vec::new();
        for side in 0..2 {
            let mut binding = session.create_binding()?;
            binding.bind_input(contract.inputs[0].spec.name.as_str(), &input)?;
            for (spec, output) in contract.outputs.iter().zip(&mut outputs) {
                binding.bind_output(spec.name.as_str(), output)?;
            }
            for (index, state) in contract.states.iter().enumerate() {
                binding.bind_input(state.input.as_str(), &sides[side][index])?;
                binding.bind_output(state.output.as_str(), &mut sides[1 - side][index])?;
            }
            bindings.push(binding);
        }
        let pointer = input.data_ptr_mut().cast();
        let buffers = std::iter::once(input).chain(outputs).chain(sides.into_iter().flatten()).collect();
        let bindings = bindings.try_into().map_err(|_| "two bindings")?;
        Ok(Self { session, input: pointer, bindings, side: 0, _buffers: buffers })
    }

    fn step(&mut self, frame: &[f32]) -> Result<(), Failure> {
        // SAFETY: the input buffer has as many entries as a step takes, and is kept in `_buffers`.
        unsafe { std::ptr::copy_nonoverlapping(frame.as_ptr(), self.input, frame.len()) };
        self.session.run_binding(&self.bindings[self.side])?;
        self.side = 1 - self.side;
        Ok(())
    }
}
