//! What a caller hands in, held against the contract before the engine sees it: engines read out of bounds,
//! or abort the process, on values that do not fit.

use crate::contract::{Contract, Input, Spec};
use crate::shape::{axis_index, describe, filled, fit, join, resolve, Axis, Sizes};
use crate::tensor::{DType, Tensor, View};
use crate::{Error, Result};
use half::f16;

/// Inputs by name, as callers give them.
pub(crate) type Given<'a> = [(&'a str, View<'a>)];

pub(crate) fn find<'a>(given: &Given<'a>, name: &str) -> Option<View<'a>> {
    given.iter().find(|(key, _)| *key == name).map(|(_, view)| *view)
}

/// The sizes a stream is opened with, batch included.
pub(crate) fn open_sizes(contract: &Contract, batch: usize, dims: &Sizes) -> Result<Sizes> {
    let free = contract.free_dimensions();
    for (name, &size) in dims {
        if !free.contains(&name.as_str()) {
            return Err(unknown("unknown-dimension", "dimension", name, &free));
        }
        if size == 0 {
            return Err(Error::new("wrong-dimension", format!("{name} as a number of 1 or more"), "0", "change it"));
        }
    }
    if batch == 0 {
        return Err(Error::new("empty-batch", "batch as a number of 1 or more", "0", "change it"));
    }
    if batch != 1 && !contract.has_batch() {
        return Err(Error::new(
            "no-batch",
            "batch 1, since the model has no batch axis",
            batch.to_string(),
            "open one stream per sequence, or export with a batch axis",
        ));
    }
    for spec in contract.states.iter().map(|state| &state.spec) {
        for name in spec.shape.iter().filter_map(Axis::name).filter(|name| !["batch", "time"].contains(name)) {
            if !dims.contains_key(name) {
                let bound = if dims.is_empty() { "nothing".into() } else { join(dims.keys()) };
                return Err(Error::new(
                    "missing-dimension",
                    format!("the size of '{name}', which state '{}' has", spec.name),
                    format!("dims with {bound}"),
                    "bind it when opening the stream",
                ));
            }
        }
    }
    let mut sizes = dims.clone();
    sizes.insert("batch".into(), batch);
    contract.states.iter().try_for_each(|state| check_bytes(&state.spec, &sizes))?;
    Ok(sizes)
}

/// Refuse a state of more bytes than an address can count.
fn check_bytes(spec: &Spec, sizes: &Sizes) -> Result<()> {
    let mut bytes = Some(spec.dtype.size());
    for axis in &spec.shape {
        let size = axis.name().and_then(|name| sizes.get(name)).copied().unwrap_or(1);
        bytes = bytes.and_then(|bytes| bytes.checked_mul(axis.factor())?.checked_mul(size));
    }
    if bytes.is_some_and(|bytes| bytes <= isize::MAX as usize / 2) {
        return Ok(());
    }
    let found = format!("state '{}' as {}{}", spec.name, spec.dtype.name(), filled(&spec.shape, sizes));
    Err(Error::new("out-of-memory", "sizes whose states fit into memory", found, "open the stream with smaller ones"))
}

/// Return the size of every dimension, once names, dtypes and shapes fit. A chunk if `whole`, else one step.
pub(crate) fn match_inputs(contract: &Contract, given: &Given, sizes: &Sizes, whole: bool) -> Result<Sizes> {
    check_names(contract, given)?;
    let mut sizes = sizes.clone();
    if !whole {
        sizes.insert("time".into(), 1);
    }
    for input in &contract.inputs {
        let Some(view) = find(given, &input.spec.name) else { continue };
        if view.dtype != input.spec.dtype {
            return Err(wrong_dtype(&input.spec, &view));
        }
        let shape = contract.caller_shape(&input.spec, input.is_length, whole);
        let fitted = fit(&shape, view.shape, &sizes).filter(|_| view.count() > 0);
        sizes = fitted.ok_or_else(|| misfit(&input.spec, &shape, &view, &sizes, whole))?;
        check_count(&input.spec, &shape, &view, &sizes)?;
    }
    for name in ["time"].into_iter().chain(contract.free_dimensions()) {
        if !sizes.contains_key(name) {
            let fix = match name {
                "time" => "give one of the optional inputs",
                _ => "bind it when opening the stream",
            };
            let expected = format!("an input that tells the size of '{name}'");
            return Err(Error::new("missing-dimension", expected, "none given that has such an axis", fix));
        }
    }
    Ok(sizes)
}

pub(crate) fn check_names(contract: &Contract, given: &Given) -> Result<()> {
    let known: Vec<_> = contract.inputs.iter().map(|input| input.spec.name.as_str()).collect();
    if let Some((name, _)) = given.iter().find(|(name, _)| !known.contains(name)) {
        return Err(unknown("unknown-input", "input", name, &known));
    }
    let needed: Vec<_> =
        contract.inputs.iter().filter(|input| input.is_required()).map(|input| &input.spec.name).collect();
    match needed.iter().find(|name| find(given, name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            "missing-input",
            format!("a value for each of the inputs {}", join(&needed)),
            format!("none for '{name}'"),
            format!("add '{name}'"),
        )),
    }
}

/// Check the values of inputs whose shapes fit.
pub(crate) fn check_values(contract: &Contract, given: &Given, time: usize) -> Result<()> {
    for input in &contract.inputs {
        let Some(view) = find(given, &input.spec.name) else { continue };
        let check = Check::new(contract, input, time);
        if let Some(flat) = check.first_wrong(&view) {
            return Err(check.error(&input.spec, &view, flat));
        }
    }
    Ok(())
}

/// What is checked about the values of one input.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Check {
    Nothing,
    Finite,
    /// Integers from the first bound to the second.
    Within(Kind, f64, f64),
}

/// What integers are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Symbols,
    Lengths,
    Values,
}

impl Check {
    /// Of `input` in a call of `time` steps.
    pub(crate) fn new(contract: &Contract, input: &Input, time: usize) -> Self {
        match (&contract.vocabulary, input.bounds()) {
            (Some(vocabulary), _) if vocabulary.input == input.spec.name => {
                Self::Within(Kind::Symbols, 0.0, vocabulary.symbols.len() as f64 - 1.0)
            }
            _ if input.is_length => Self::Within(Kind::Lengths, 0.0, time as f64),
            (_, Some([least, largest])) => Self::Within(Kind::Values, least, largest),
            _ if input.spec.dtype.is_float() => Self::Finite,
            _ => Self::Nothing,
        }
    }

    /// Whether all values may reach the engine.
    pub(crate) fn holds(&self, view: &View) -> bool {
        match (self, view.dtype) {
            (Self::Nothing, _) => true,
            // Without an early exit these are vector loops.
            (Self::Finite, DType::Float32) => {
                entries::<f32>(view).iter().fold(true, |all, value| all & value.is_finite())
            }
            (Self::Finite, DType::Float64) => {
                entries::<f64>(view).iter().fold(true, |all, value| all & value.is_finite())
            }
            _ => self.first_wrong(view).is_none(),
        }
    }

    fn first_wrong(&self, view: &View) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::Finite if view.dtype == DType::Float16 => {
                entries::<f16>(view).iter().position(|value| !value.is_finite())
            }
            Self::Finite => (0..view.count()).find(|&index| !view.number(index).is_finite()),
            Self::Within(_, least, largest) => {
                (0..view.count()).find(|&index| !(least..=largest).contains(&&view.number(index)))
            }
        }
    }

    fn error(&self, spec: &Spec, view: &View, flat: usize) -> Error {
        let (code, allowed, fix) = match self {
            Self::Within(kind, least, largest) => {
                let (code, name, fix) = match kind {
                    Kind::Symbols => ("symbol-range", "ids", "encode the text with the model's own vocabulary"),
                    Kind::Lengths => {
                        ("length-range", "lengths", "give the number of valid steps of each row in this call")
                    }
                    Kind::Values => {
                        ("value-range", "values", "give values in the range that the model was exported for")
                    }
                };
                (code, format!("{name} in {least}..{largest}"), fix)
            }
            Self::Finite | Self::Nothing => (
                "non-finite",
                "finite values".into(),
                "mend the source of the NaN or infinity; one of them would spoil every later step",
            ),
        };
        let index = index_of(view.shape, flat);
        let place = if index.is_empty() { "as its value".into() } else { format!("at index {index:?}") };
        let found = format!("{} {place}", shown(view.number(flat)));
        Error::new(code, format!("{allowed} in '{}'", spec.name), found, fix)
    }
}

fn entries<'a, T: crate::Element>(view: &View<'a>) -> &'a [T] {
    view.as_slice().expect("the dtype was matched")
}

/// The index of entry `flat` in a tensor of `shape`.
pub(crate) fn index_of(shape: &[usize], mut flat: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, size) in index.iter_mut().zip(shape).rev() {
        (*place, flat) = (flat % size, flat / size);
    }
    index
}

/// A number as all languages write it in messages.
pub(crate) fn shown(number: f64) -> String {
    match number {
        number if number.is_nan() => "nan".into(),
        number => number.to_string(),
    }
}

/// Return `value` as a state: of the right name, dtype and shape, without NaN.
pub(crate) fn check_state(contract: &Contract, name: &str, value: &View, sizes: &Sizes) -> Result<usize> {
    let position = state_index(contract, name)?;
    let spec = &contract.states[position].spec;
    if value.dtype != spec.dtype {
        return Err(wrong_dtype(spec, value));
    }
    if resolve(&spec.shape, sizes).as_deref() != Some(value.shape) {
        return Err(wrong_shape(spec, &spec.shape, sizes, describe(value.dtype.name(), value.shape)));
    }
    check_count(spec, &spec.shape, value, sizes)?;
    match nan_in(value) {
        None => Ok(position),
        Some(place) => Err(Error::new(
            "non-finite",
            format!("state '{name}' without NaN (infinities are allowed)"),
            place,
            "mend where it comes from; a NaN stays in a state for ever",
        )),
    }
}

/// Where the first NaN of a tensor stands, in words.
pub(crate) fn nan_in(value: &View) -> Option<String> {
    let is_nan = |index: &usize| value.dtype.is_float() && value.number(*index).is_nan();
    (0..value.count()).find(is_nan).map(|flat| format!("nan at index {:?}", index_of(value.shape, flat)))
}

pub(crate) fn state_index(contract: &Contract, name: &str) -> Result<usize> {
    let names = || contract.states.iter().map(|state| state.spec.name.as_str());
    let position = names().position(|known| known == name);
    position.ok_or_else(|| unknown("unknown-state", "state", name, &names().collect::<Vec<_>>()))
}

/// The rows of a batch that were named, in order, each once.
pub(crate) fn check_rows(rows: &[usize], batch: usize) -> Result<Vec<usize>> {
    if let Some(row) = rows.iter().find(|row| **row >= batch) {
        let expected = format!("rows in 0..{}", batch - 1);
        return Err(Error::new("row-range", expected, row.to_string(), "name rows of this stream's batch"));
    }
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

/// The starts named by a caller in the place of the contract's.
pub(crate) fn starts(contract: &Contract, sizes: &Sizes, initial: &[(String, Tensor)]) -> Result<Vec<Tensor>> {
    let mut starts = contract.initial(sizes).expect("opening checked that states have sizes");
    for (name, value) in initial {
        starts[check_state(contract, name, &value.view(), sizes)?] = value.clone();
    }
    Ok(starts)
}

fn unknown(code: &'static str, kind: &str, name: &str, known: &[&str]) -> Error {
    let listed = if known.is_empty() { "(none)".into() } else { join(known) };
    let fix = match kind {
        "input" => "correct or remove it; 'rnnx inspect' lists the inputs".into(),
        kind => format!("use one of the names that 'rnnx inspect' lists as {kind}s"),
    };
    let listed = if kind == "input" { join(known) } else { listed };
    Error::new(code, format!("{kind}s {listed}"), format!("'{name}'"), fix)
}

pub(crate) fn wrong_dtype(spec: &Spec, view: &View) -> Error {
    let dtype = spec.dtype.name();
    let found = describe(view.dtype.name(), view.shape);
    Error::new("wrong-dtype", format!("'{}' as {dtype}", spec.name), found, format!("convert it to {dtype}"))
}

fn wrong_shape(spec: &Spec, shape: &[Axis], sizes: &Sizes, found: String) -> Error {
    Error::new(
        "wrong-shape",
        format!("'{}' as {}{}", spec.name, spec.dtype.name(), filled(shape, sizes)),
        found,
        "reshape it, or open the stream with the batch and dims that you mean",
    )
}

/// Check that there are as many entries as the shape says.
fn check_count(spec: &Spec, shape: &[Axis], view: &View, sizes: &Sizes) -> Result<()> {
    let entries = view.bytes.len() / view.dtype.size();
    if entries == view.count() {
        return Ok(());
    }
    Err(wrong_shape(spec, shape, sizes, format!("{:?} with {entries} entries", view.shape)))
}

/// The error for an input whose sizes do not fit `shape`, `sizes` or each other.
pub(crate) fn misfit(spec: &Spec, shape: &[Axis], view: &View, sizes: &Sizes, whole: bool) -> Error {
    let actual = view.shape;
    for (name, code) in [("batch", "empty-batch"), ("time", "empty-time")] {
        let index = axis_index(shape, name).filter(|_| actual.len() == shape.len());
        if index.is_some_and(|index| actual[index] == 0) {
            let wanted = format!("'{}' as {}{}", spec.name, spec.dtype.name(), filled(shape, sizes));
            return Error::new(
                code,
                format!("{wanted} with at least one entry"),
                format!("{actual:?}: a {name} of 0"),
                "leave the call out when there is nothing to run",
            );
        }
    }
    if actual.len() == shape.len() + 1 && !whole {
        let found = format!("{actual:?}, which has one axis more than a step");
        return wrong_shape(spec, shape, sizes, found).with_fix("use run for chunks");
    }
    let time = axis_index(shape, "time").filter(|_| whole && actual.len() == shape.len());
    if let Some(time) = time {
        let factor = shape[time].factor();
        let mut full = actual.to_vec();
        full[time] = actual[time].div_ceil(factor) * factor;
        if full[time] != actual[time] && fit(shape, &full, sizes).is_some() {
            let found = format!("{actual:?}, where {} is no multiple of {factor}", actual[time]);
            let fix = format!("fill it up to {}, or give it to feed, which keeps what is over", full[time]);
            return wrong_shape(spec, shape, sizes, found).with_fix(&fix);
        }
    }
    if whole && with_axis("time", shape, actual, sizes).is_some() {
        let found = format!("{actual:?}, which has one axis less than a chunk");
        return wrong_shape(spec, shape, sizes, found).with_fix("use step for one step");
    }
    if let Some(batched) = with_axis("batch", shape, actual, sizes) {
        let found = format!("{actual:?}, which has no batch axis");
        let fix = format!("reshape it to {batched:?}, a batch of one row");
        return wrong_shape(spec, shape, sizes, found).with_fix(&fix);
    }
    wrong_shape(spec, shape, sizes, format!("{actual:?}"))
}

/// Sizes with a 1 for the axis called `name`; None where they do not fit `shape` and `sizes` so.
fn with_axis(name: &str, shape: &[Axis], actual: &[usize], sizes: &Sizes) -> Option<Vec<usize>> {
    let axis = axis_index(shape, name).filter(|_| actual.len() + 1 == shape.len())?;
    let mut more = actual.to_vec();
    more.insert(axis, 1);
    fit(shape, &more, sizes).map(|_| more)
}
