//! Traces: recorded inputs, outputs and states, the test vectors that all languages share.

use crate::contract::{Contract, Spec};
use crate::shape::{axis_index, describe, fit, join, step_shape, Axis, Sizes, Slices};
use crate::tensor::{Tensor, View};
use crate::tensor_file::{Kind, TensorFile};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

const KIND: Kind =
    Kind { what: "a trace", name: "trace", codes: ["not-a-trace", "trace-newer", "trace-of-another-model"] };

/// How far a value may be off: `|got - expected| <= absolute + relative * |expected|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// `atol`
    pub absolute: f64,
    /// `rtol`
    pub relative: f64,
}

/// A recording, checked against the contract; tensors in the order of the contract.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Number of steps recorded.
    pub steps: usize,
    /// Sizes of batch and free dimensions.
    pub sizes: Vec<(String, usize)>,
    /// `[step, ...]`, or once for inputs without time; None where the default was taken.
    pub inputs: Vec<Option<Tensor>>,
    /// `[step, ...]`
    pub outputs: Vec<(Tensor, Bound)>,
    /// `[step+1, ...]`, row 0 the start.
    pub states: Vec<(Tensor, Bound)>,
}

impl Trace {
    /// Read a trace and check it against the model it is for.
    ///
    /// # Errors
    /// `not-safetensors`, `not-a-trace`, `trace-newer`, `trace-of-another-model` or `trace-invalid`.
    pub fn decode(data: &[u8], contract: &Contract) -> Result<Self> {
        let file = TensorFile::decode(data, KIND.what)?;
        file.check(&KIND, &contract.id)?;
        let bounds = bounds(file.metadata.get("tolerances").map_or("", String::as_str))?;
        let mut reader = Reader { file: &file, sizes: Sizes::new() };
        let mut inputs = Vec::new();
        for input in &contract.inputs {
            let is_there = file.get(&format!("input.{}", input.spec.name)).is_some();
            let rows = if contract.is_stepped(&input.spec, input.is_length) { Rows::Steps } else { Rows::Once };
            let shape = step_shape(&input.spec.shape);
            let wanted = is_there || input.is_required();
            inputs.push(wanted.then(|| reader.take("input", &input.spec, &shape, rows)).transpose()?);
        }
        let mut outputs = Vec::new();
        for spec in &contract.outputs {
            outputs.push(reader.take("output", spec, &step_shape(&spec.shape), Rows::Steps)?);
        }
        let mut states = Vec::new();
        for state in &contract.states {
            states.push(reader.take("state", &state.spec, &state.spec.shape, Rows::StepsAndStart)?);
        }
        let bound = |kind: &str, name: &str| {
            let name = format!("{kind}.{name}");
            let found = bounds.iter().find(|(known, _)| *known == name).map(|(_, bound)| *bound);
            let listed = if bounds.is_empty() { "none".into() } else { join(bounds.iter().map(|(name, _)| name)) };
            found.ok_or_else(|| invalid(format!("a tolerance for '{name}'"), listed))
        };
        let with_bound = |(tensor, (kind, name)): (Tensor, (&str, &String))| Ok((tensor, bound(kind, name)?));
        let names = contract.outputs.iter().map(|spec| ("output", &spec.name));
        let outputs = outputs.into_iter().zip(names).map(with_bound).collect::<Result<Vec<_>>>()?;
        let names = contract.states.iter().map(|state| ("state", &state.spec.name));
        let states = states.into_iter().zip(names).map(with_bound).collect::<Result<Vec<_>>>()?;
        let mut sizes = reader.sizes;
        let steps = sizes.remove("step").ok_or_else(|| invalid("at least one output".into(), "none".into()))?;
        Ok(Self { steps, sizes: sizes.into_iter().collect(), inputs, outputs, states })
    }
}

impl Contract {
    /// Whether each step of a chunk has its own value of `spec`; else one value holds for the whole chunk.
    pub fn is_stepped(&self, spec: &Spec, is_length: bool) -> bool {
        axis_index(&self.caller_shape(spec, is_length, true), "time").is_some()
    }
}

/// `rows`, `[step, ...]`, of steps begin..end as a contiguous chunk of `spec`.
pub fn to_chunk(contract: &Contract, spec: &Spec, rows: &Tensor, begin: usize, end: usize) -> Tensor {
    let (shape, slices) = chunk_of(contract, spec, &rows.shape()[1..], end - begin);
    let mut chunk = Tensor::zeros(rows.dtype(), shape);
    for step in begin..end {
        slices.put(chunk.bytes_mut(), step - begin, row(rows.view(), step).bytes);
    }
    chunk
}

/// A chunk of `spec` as `[step, ...]`: the inverse of [`to_chunk`].
pub fn to_rows(contract: &Contract, spec: &Spec, chunk: View<'_>, row_shape: &[usize], steps: usize) -> Tensor {
    let (_, slices) = chunk_of(contract, spec, row_shape, steps);
    let mut rows = Tensor::zeros(chunk.dtype(), [&[steps], row_shape].concat());
    let size = rows.bytes().len() / steps;
    for (step, target) in rows.bytes_mut().chunks_exact_mut(size).enumerate() {
        slices.take(chunk.bytes, step, target);
    }
    rows
}

/// Row `index` of `[step, ...]`.
pub fn row(rows: View<'_>, index: usize) -> View<'_> {
    let size = rows.bytes.len() / rows.shape[0];
    View { dtype: rows.dtype, shape: &rows.shape[1..], bytes: &rows.bytes[index * size..][..size] }
}

fn chunk_of(contract: &Contract, spec: &Spec, row_shape: &[usize], steps: usize) -> (Vec<usize>, Slices) {
    let axes = contract.caller_shape(spec, false, true);
    let axis = axis_index(&axes, "time").expect("a tensor with steps");
    let mut shape = row_shape.to_vec();
    let factor = match axes[axis] {
        Axis::Multiple(factor) => {
            shape[axis] *= steps;
            factor
        }
        _ => {
            shape.insert(axis, steps);
            1
        }
    };
    let slices = Slices::new(&shape, axis, factor, spec.dtype.size());
    (shape, slices)
}

#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Once,
    Steps,
    StepsAndStart,
}

/// Takes tensors out of a trace, checking that all agree on steps, batch and free dimensions.
struct Reader<'a> {
    file: &'a TensorFile,
    sizes: Sizes,
}

impl Reader<'_> {
    fn take(&mut self, kind: &str, spec: &Spec, shape: &[Axis], rows: Rows) -> Result<Tensor> {
        let name = format!("{kind}.{}", spec.name);
        let tensor = self.file.get(&name);
        let tensor = tensor.ok_or_else(|| invalid(format!("a tensor '{name}'"), self.file.names()))?;
        let fitted = self.fit(tensor, shape, rows).filter(|_| tensor.dtype() == spec.dtype);
        self.sizes = fitted.ok_or_else(|| {
            let first = match rows {
                Rows::Once => None,
                Rows::Steps => Some("step".to_owned()),
                Rows::StepsAndStart => Some("step+1".to_owned()),
            };
            let wanted = describe(spec.dtype.name(), first.into_iter().chain(shape.iter().map(Axis::to_string)));
            let known = join(self.sizes.iter().map(|(key, size)| format!("{key} {size}")));
            let known = if known.is_empty() { known } else { format!(" where {known}") };
            invalid(format!("'{name}' as {wanted}{known}"), describe(tensor.dtype().name(), tensor.shape()))
        })?;
        Ok(tensor.clone())
    }

    fn fit(&self, tensor: &Tensor, shape: &[Axis], rows: Rows) -> Option<Sizes> {
        if rows == Rows::Once {
            return fit(shape, tensor.shape(), &self.sizes);
        }
        let (&first, rest) = tensor.shape().split_first()?;
        let steps = first.checked_sub(usize::from(rows == Rows::StepsAndStart)).filter(|steps| *steps > 0)?;
        let mut sizes = fit(shape, rest, &self.sizes)?;
        (*sizes.entry("step".into()).or_insert(steps) == steps).then_some(sizes)
    }
}

fn bounds(text: &str) -> Result<Vec<(String, Bound)>> {
    let start: String = text.chars().take(60).collect();
    let error = || invalid("tolerances as JSON".into(), format!("'{start}'"));
    let parsed: HashMap<String, Value> = serde_json::from_str(text).map_err(|_| error())?;
    let bound = |(name, entry): (String, Value)| {
        let number = |key: &str| entry[key].as_f64().ok_or_else(error);
        let bound = Bound { absolute: number("atol")?, relative: number("rtol")? };
        Ok((name, bound))
    };
    let mut bounds = parsed.into_iter().map(bound).collect::<Result<Vec<_>>>()?;
    bounds.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(bounds)
}

fn invalid(expected: String, found: String) -> Error {
    let fix = "record it again with 'rnnx export', or use the trace that belongs to this model";
    Error::new("trace-invalid", format!("a trace with {expected}"), found, fix)
}
