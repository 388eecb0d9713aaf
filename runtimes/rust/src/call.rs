//! One shape of call, prepared: the engine's buffers seen in the shapes the caller uses.

use crate::checks::{find, Check, Given};
use crate::contract::Contract;
use crate::engine::{Bound, Sides};
use crate::session::Inner;
use crate::shape::{axis_index, resolve, Axis, Sizes, Slices};
use crate::tensor::{DType, Tensor, View};
use crate::Result;

/// A step, or a chunk of one length, with everything allocated that it needs.
pub(crate) struct Call {
    pub(crate) sizes: Sizes,
    inputs: Vec<Port>,
    /// The shapes of outputs that were known before the call.
    shapes: Vec<Option<Vec<usize>>>,
    is_chunk: bool,
    pub(crate) bound: Bound,
}

/// An input as the caller sees it.
struct Port {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    default: Option<Tensor>,
    check: Check,
}

impl Call {
    pub(crate) fn new(
        engine: &ort::session::Session,
        contract: &Contract,
        sides: &mut Sides,
        sizes: &Sizes,
        whole: bool,
    ) -> Result<Self> {
        let inputs = contract.inputs.iter().map(|input| {
            let shape = resolve(&contract.caller_shape(&input.spec, input.is_length, whole), sizes);
            let shape = shape.expect("matching found every size of inputs");
            let dtype = input.spec.dtype;
            let filled = input.default.as_ref().map(|default| default.fill(dtype, &shape));
            let default = if input.is_length {
                Some(Tensor::new(shape.clone(), &vec![sizes["time"] as i64; shape.iter().product()]))
            } else {
                filled
            };
            let check = Check::new(contract, input, sizes["time"]);
            Port { name: input.spec.name.clone(), dtype, shape, default, check }
        });
        let shapes = contract.outputs.iter().map(|spec| resolve(&contract.caller_shape(spec, false, whole), sizes));
        let bound = Bound::new(engine, contract, sides, sizes)?;
        Ok(Self { sizes: sizes.clone(), inputs: inputs.collect(), shapes: shapes.collect(), is_chunk: whole, bound })
    }

    /// Compute from the states of `side` into those of the other.
    pub(crate) fn run(&mut self, inner: &Inner, side: usize) -> Result<()> {
        self.bound.run(&inner.engine, inner.provider, &inner.contract, side)?;
        for (spec, loose) in inner.contract.outputs.iter().zip(&mut self.bound.loose) {
            let Some(tensor) = loose.take_if(|_| !self.is_chunk) else { continue };
            let sizes = tensor.shape().iter().zip(&spec.shape);
            let kept: Vec<usize> =
                sizes.filter(|(_, axis)| **axis != Axis::Named("time".into())).map(|(size, _)| *size).collect();
            *loose = Some(tensor.reshaped(kept));
        }
        Ok(())
    }

    /// An output of the latest run, in the shape the caller sees.
    pub(crate) fn output(&self, index: usize, dtype: DType) -> View<'_> {
        match (&self.shapes[index], &self.bound.outputs[index], &self.bound.loose[index]) {
            (Some(shape), Some(buffer), _) => View { dtype, shape, bytes: buffer.bytes() },
            (_, _, Some(tensor)) => tensor.view(),
            _ => unreachable!("a run gives every output"),
        }
    }

    /// Write all inputs to the engine's buffers. False if anything about them is not as it should be.
    pub(crate) fn fill(&mut self, given: &Given) -> bool {
        if !given.iter().all(|(name, _)| self.inputs.iter().any(|port| port.name == *name)) {
            return false;
        }
        for (port, buffer) in self.inputs.iter().zip(&mut self.bound.inputs) {
            let target = buffer.bytes_mut();
            match (find(given, &port.name), &port.default) {
                (Some(view), _) => {
                    let fits = view.dtype == port.dtype && view.shape == port.shape && view.bytes.len() == target.len();
                    if !fits || !port.check.holds(&view) {
                        return false;
                    }
                    target.copy_from_slice(view.bytes);
                }
                (None, Some(default)) => target.copy_from_slice(default.bytes()),
                (None, None) => return false,
            }
        }
        true
    }

    /// Write the inputs of step `step` of a chunk of a step model; a length becomes 0 or 1.
    pub(crate) fn fill_step(&mut self, contract: &Contract, given: &Given, step: usize, time: usize) {
        for ((input, port), buffer) in contract.inputs.iter().zip(&self.inputs).zip(&mut self.bound.inputs) {
            let view = find(given, &port.name);
            let target = buffer.bytes_mut();
            match (view, &port.default) {
                (view, _) if input.is_length => {
                    for (index, entry) in target.chunks_exact_mut(8).enumerate() {
                        let valid = view.map_or(time as f64, |view| view.number(index));
                        entry.copy_from_slice(&i64::from(step < valid as usize).to_ne_bytes());
                    }
                }
                (Some(view), _) => {
                    let axes = contract.caller_shape(&input.spec, false, true);
                    let axis = axis_index(&axes, "time").expect("chunks of step models have time");
                    Slices::new(view.shape, axis, 1, port.dtype.size()).take(view.bytes, step, target);
                }
                (None, Some(default)) => target.copy_from_slice(default.bytes()),
                (None, None) => unreachable!("matching found every input that is needed"),
            }
        }
    }
}
