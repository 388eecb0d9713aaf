//! Reading an ONNX file as far as a contract goes: metadata, and the signature of its graph.
//!
//! Field numbers are those of onnx.proto; the encoding is protobuf's.

use crate::contract::{Contract, Spec};
use crate::external::{check_external, external_tensors};
use crate::shape::{describe, join, Axis};
use crate::tensor::DType;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A graph input or output as the file declares it; a dimension of "" is left open.
struct GraphValue {
    dtype: &'static str,
    shape: Vec<String>,
}

type Signature = BTreeMap<String, GraphValue>;

/// Return the contract inside the model `data`, checked against its graph, and whether values of tensors lie in other
/// files, which are as they should be. `path` is None for a model that is bytes alone.
///
/// # Errors
/// `not-onnx`, `external-data-missing`, `external-data-refused`, `no-contract`, `contract-invalid`, `contract-newer`,
/// `contract-requires` or `contract-graph`.
pub(crate) fn read_model(data: &[u8], path: Option<&Path>, label: &str) -> Result<(Contract, bool)> {
    let not_onnx = || {
        Error::new(
            "not-onnx",
            format!("an ONNX model in {label}"),
            format!("{} bytes that are none, or are cut short", data.len()),
            "name a file that 'rnnx export' wrote, or export it again",
        )
    };
    let (inputs, outputs, text) = parse(data).ok_or_else(not_onnx)?;
    let tensors = external_tensors(data).ok_or_else(not_onnx)??;
    check_external(&tensors, path)?;
    let text = text.ok_or_else(|| {
        let expected = format!("an rnnx contract in {label}");
        Error::new("no-contract", expected, "an ONNX model without one", "export it with 'rnnx export'")
    })?;
    let contract = Contract::from_json(&text)?;
    let states = || contract.states.iter();
    let given = contract.inputs.iter().map(|input| (&input.spec.name, &input.spec));
    agree(label, "input", given.chain(states().map(|state| (&state.input, &state.spec))).collect(), &inputs)?;
    let taken = contract.outputs.iter().map(|spec| (&spec.name, spec));
    agree(label, "output", taken.chain(states().map(|state| (&state.output, &state.spec))).collect(), &outputs)?;
    Ok((contract, !tensors.is_empty()))
}

fn agree(label: &str, kind: &str, named: BTreeMap<&String, &Spec>, graph: &Signature) -> Result<()> {
    let fail = |expected: String, found: String| {
        let expected = format!("contract and graph of {label} to agree on {expected}");
        Err(Error::new("contract-graph", expected, found, "export the model again with 'rnnx export'"))
    };
    let or_none = |names: String| if names.is_empty() { "none".into() } else { names };
    if !named.keys().copied().eq(graph.keys()) {
        let (ours, theirs) = (or_none(join(named.keys())), or_none(join(graph.keys())));
        return fail(format!("the {kind}s"), format!("{ours} in the contract, {theirs} in the graph"));
    }
    for (name, spec) in named {
        let value = &graph[name];
        let fits = |(ours, theirs): (&Axis, &String)| theirs.is_empty() || ours.to_string() == *theirs;
        let same_rank = spec.shape.len() == value.shape.len();
        if spec.dtype.name() != value.dtype || !same_rank || !spec.shape.iter().zip(&value.shape).all(fits) {
            let (ours, theirs) = (describe(spec.dtype.name(), &spec.shape), describe(value.dtype, &value.shape));
            return fail(format!("{kind} '{name}'"), format!("{ours} in the contract, {theirs} in the graph"));
        }
    }
    Ok(())
}

/// Inputs and outputs of the graph by name, and the text of the contract. None if this is no ONNX model.
fn parse(data: &[u8]) -> Option<(Signature, Signature, Option<String>)> {
    let (mut graph, mut contract, mut has_version, mut has_operators) = (None, None, false, false);
    for field in fields(data) {
        match field? {
            (1, Wire::Number(version)) => has_version = version != 0,
            (7, Wire::Bytes(message)) => graph = Some(message),
            (8, Wire::Bytes(_)) => has_operators = true,
            (14, Wire::Bytes(entry)) => {
                if let ("rnnx.contract", value) = text_entry(entry)? {
                    contract = Some(value.to_owned());
                }
            }
            _ => {}
        }
    }
    let graph = graph.filter(|_| has_version && has_operators)?;
    let (mut inputs, mut outputs, mut initializers) = (Signature::new(), Signature::new(), HashSet::new());
    for field in fields(graph) {
        match field? {
            (5, Wire::Bytes(tensor)) => {
                for field in fields(tensor) {
                    if let (8, Wire::Bytes(name)) = field? {
                        initializers.insert(utf8(name)?.to_owned());
                    }
                }
            }
            (11, Wire::Bytes(message)) => inputs.extend([value_info(message)?]),
            (12, Wire::Bytes(message)) => outputs.extend([value_info(message)?]),
            _ => {}
        }
    }
    inputs.retain(|name, _| !initializers.contains(name));
    Some((inputs, outputs, contract))
}

fn value_info(message: &[u8]) -> Option<(String, GraphValue)> {
    let (mut name, mut value) = (String::new(), GraphValue { dtype: "", shape: Vec::new() });
    for field in fields(message) {
        match field? {
            (1, Wire::Bytes(text)) => name = utf8(text)?.into(),
            (2, Wire::Bytes(kind)) => {
                for field in fields(kind) {
                    if let (1, Wire::Bytes(tensor)) = field? {
                        tensor_type(tensor, &mut value)?;
                    }
                }
            }
            _ => {}
        }
    }
    Some((name, value))
}

fn tensor_type(message: &[u8], value: &mut GraphValue) -> Option<()> {
    for field in fields(message) {
        match field? {
            (1, Wire::Number(number)) => value.dtype = DType::from_onnx(number).map_or("another type", DType::name),
            (2, Wire::Bytes(shape)) => {
                for field in fields(shape) {
                    if let (1, Wire::Bytes(dimension)) = field? {
                        let first = fields(dimension).next();
                        let text = match first.unwrap_or(Some((0, Wire::Number(0))))? {
                            (1, Wire::Number(size)) => size.to_string(),
                            (2, Wire::Bytes(name)) => utf8(name)?.into(),
                            _ => String::new(),
                        };
                        value.shape.push(text);
                    }
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// Key and value of a message of two texts.
pub(crate) fn text_entry(message: &[u8]) -> Option<(&str, &str)> {
    let (mut key, mut value) = ("", "");
    for field in fields(message) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, Wire::Bytes(text)) => value = utf8(text)?,
            _ => {}
        }
    }
    Some((key, value))
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What a field holds.
pub(crate) enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, in order; None, and then nothing, where one is malformed.
pub(crate) fn fields(mut rest: &[u8]) -> impl Iterator<Item = Option<(u64, Wire<'_>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = take_field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(rest)?;
    let size = match tag & 7 {
        0 => return Some((tag >> 3, Wire::Number(varint(rest)?))).filter(|_| tag >> 3 > 0),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (bytes, after) = rest.split_at_checked(size)?;
    *rest = after;
    Some((tag >> 3, Wire::Bytes(bytes))).filter(|_| tag >> 3 > 0)
}

pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut result = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        result |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(result);
        }
    }
    None
}
