//! The contract: what a model takes, gives and carries, and the rules that hold it together.

use crate::shape::{axis_index, describe, resolve, step_shape, with_time, Axis, Sizes};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// A tensor of the model: name, dtype, and shape with named axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name: of an input or output the one in the graph, of a state what the user calls it.
    pub name: String,
    /// The dtype of its entries.
    pub dtype: DType,
    /// As in the contract: `[batch, time, 257]`.
    pub shape: Vec<Axis>,
    /// Of an output: how many steps late it comes.
    pub delay: i64,
}

/// What the caller gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Name, dtype and shape.
    pub spec: Spec,
    /// What stands in for the input if it is left out.
    pub default: Option<Constant>,
    /// Whether it counts the valid steps of each row.
    pub is_length: bool,
    /// The least and the largest value it was made for; other integers are refused.
    pub range: Option<[f64; 2]>,
}

/// What is carried from one step to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Name, dtype and shape.
    pub spec: Spec,
    /// The graph input that takes its value.
    pub input: String,
    /// The graph output that gives its next value.
    pub output: String,
    /// What it starts as.
    pub initial: Constant,
    /// Whether 1 in it says that the sequence is over.
    pub is_end: bool,
}

/// A number, or nested lists of numbers that broadcast to a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Vec<f64>,
}

/// What the ids of a model over symbols mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// The input that takes ids.
    pub input: String,
    /// The output that gives one score per symbol.
    pub output: String,
    /// Id i means the i-th.
    pub symbols: Vec<char>,
}

/// The whole contract; see docs/contract.md.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// Identity of the model, `sha256:...`.
    pub id: String,
    /// For people.
    pub name: String,
    /// What the caller gives.
    pub inputs: Vec<Input>,
    /// What the caller gets.
    pub outputs: Vec<Spec>,
    /// What is carried from one step to the next.
    pub states: Vec<State>,
    /// Rate of the steps, where they have one.
    pub steps_per_second: Option<f64>,
    /// The reason why the model takes only whole sequences, if it does.
    pub whole_only: Option<String>,
    /// What the ids of a model over symbols mean.
    pub vocabulary: Option<Vocabulary>,
    /// What the author handed on, as it is.
    pub user: Map<String, Value>,
}

impl Spec {
    /// The shape of one step in numbers, each name replaced by its size.
    pub fn step_shape(&self, size: impl Fn(&str) -> usize) -> Vec<usize> {
        let number = |axis: &Axis| axis.factor() * axis.name().map_or(1, &size);
        step_shape(&self.shape).iter().map(number).collect()
    }

    /// The shape of a chunk of a model with time in numbers, each other name replaced by its size.
    pub fn chunk_shape(&self, steps: usize, size: impl Fn(&str) -> usize) -> Vec<usize> {
        let of = |name| if name == "time" { steps } else { size(name) };
        self.shape.iter().map(|axis| axis.factor() * axis.name().map_or(1, of)).collect()
    }
}

impl Input {
    /// Whether a caller has to give it.
    pub fn is_required(&self) -> bool {
        self.default.is_none() && !self.is_length
    }

    /// The range that integers are held to: that of floats says only what to test with.
    pub(crate) fn bounds(&self) -> Option<[f64; 2]> {
        self.range.filter(|_| !self.spec.dtype.is_float())
    }

    /// Check that a range is one of numbers of the dtype, and that the default fits the shape and lies in it.
    fn check_values(&self, takes_symbols: bool) -> Result<()> {
        let Self { spec, default, is_length, range } = self;
        if let Some([least, largest]) = range {
            let others =
                [("truth values", spec.dtype == DType::Bool), ("lengths", *is_length), ("symbols", takes_symbols)];
            if let Some((what, _)) = others.iter().find(|(_, is_taken)| *is_taken) {
                return Err(invalid(format!("a range of '{}', which takes {what}", spec.name)));
            }
            if !(is_bound(spec.dtype, *least) && is_bound(spec.dtype, *largest) && least <= largest) {
                let dtype = spec.dtype.name();
                let found = format!("a range of '{}' that is not the least and the largest of {dtype}", spec.name);
                return Err(invalid(found));
            }
        }
        let Some(default) = default else { return Ok(()) };
        let is_in = |number: &f64| {
            let whole = number.round_ties_even();
            self.bounds().is_none_or(|[least, largest]| (least..=largest).contains(&whole))
        };
        fits(default, spec).and(if default.numbers.iter().all(is_in) { Ok(()) } else { Err(misfit(spec)) })
    }
}

/// Whether a number can bound values of a dtype: finite, and of integers whole and below 2^53, where it is exact.
fn is_bound(dtype: DType, number: f64) -> bool {
    match dtype.is_float() {
        true => number.is_finite(),
        false => number.abs() < 2f64.powi(53) && number.fract() == 0.0 && dtype.holds(number),
    }
}

impl Constant {
    /// Whether it broadcasts to the shape, varies along no named axis, and fits the dtype.
    fn fits(&self, spec: &Spec) -> bool {
        let shape = &spec.shape;
        let wanted = shape.iter().rev().map(|axis| if axis.name().is_some() { 1 } else { axis.factor() });
        self.numbers.iter().all(|&number| spec.dtype.holds(number))
            && self.shape.len() <= shape.len()
            && self.shape.iter().rev().zip(wanted).all(|(&size, wanted)| size == 1 || size == wanted)
    }

    /// The numbers broadcast to `shape`, as numpy does: aligned at the last axis.
    pub(crate) fn fill(&self, dtype: DType, shape: &[usize]) -> Tensor {
        let numbers = (0..shape.iter().product()).map(|flat| {
            let (mut rest, mut index, mut stride) = (flat, 0, 1);
            for (axis, &size) in shape.iter().enumerate().rev() {
                let own = (axis + self.shape.len()).checked_sub(shape.len()).map_or(1, |own| self.shape[own]);
                index += if own == 1 { 0 } else { rest % size * stride };
                (rest, stride) = (rest / size, stride * own);
            }
            self.numbers[index]
        });
        Tensor::from_numbers(dtype, shape.to_vec(), numbers)
    }
}

impl Contract {
    /// How many steps late the outputs come, and which state says that a sequence is over; None if they do not.
    pub(crate) fn end(&self) -> Result<Option<(usize, usize)>> {
        let late = self.outputs.iter().map(|spec| spec.delay).max().unwrap_or(0).max(0) as usize;
        if late == 0 {
            return Ok(None);
        }
        let state = self.states.iter().position(|state| state.is_end);
        state.map(|state| Some((late, state))).ok_or_else(|| {
            Error::new(
                "no-end",
                format!("a model that can give the last {late} steps, which its outputs are late by"),
                "one whose network ends a sequence otherwise than with zeros",
                "do without them, or give the whole sequence to a model that was exported without delay",
            )
        })
    }

    /// Whether the graph itself has a time axis. Without one it is a step model.
    pub fn has_time(&self) -> bool {
        self.inputs.iter().any(|input| axis_index(&input.spec.shape, "time").is_some())
    }

    /// Whether several sequences can run side by side.
    pub fn has_batch(&self) -> bool {
        self.shapes().any(|shape| axis_index(shape, "batch").is_some())
    }

    /// Names, other than batch and time, that inputs and states have, in order.
    pub fn free_dimensions(&self) -> Vec<&str> {
        let mut seen = HashSet::from(["batch", "time"]);
        self.shapes().flatten().filter_map(Axis::name).filter(|name| seen.insert(name)).collect()
    }

    fn shapes(&self) -> impl Iterator<Item = &Vec<Axis>> {
        let inputs = self.inputs.iter().map(|input| &input.spec.shape);
        inputs.chain(self.states.iter().map(|state| &state.spec.shape))
    }

    /// The shape of an input or output as a caller sees it: of a chunk if `whole`, else of one step.
    pub(crate) fn caller_shape(&self, spec: &Spec, is_length: bool, whole: bool) -> Vec<Axis> {
        match (whole, self.has_time() || is_length) {
            (false, _) => step_shape(&spec.shape),
            (true, true) => spec.shape.clone(),
            (true, false) => with_time(&spec.shape),
        }
    }

    /// The start of every state.
    pub(crate) fn initial(&self, sizes: &Sizes) -> Option<Vec<Tensor>> {
        let start = |state: &State| Some(state.initial.fill(state.spec.dtype, &resolve(&state.spec.shape, sizes)?));
        self.states.iter().map(start).collect()
    }

    /// Check what the types cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        let (inputs, outputs, states) = (&self.inputs, &self.outputs, &self.states);
        let given = inputs.iter().map(|input| &input.spec.name);
        unique("input", given.chain(states.iter().map(|state| &state.input)))?;
        unique("output", outputs.iter().map(|spec| &spec.name).chain(states.iter().map(|state| &state.output)))?;
        unique("state", states.iter().map(|state| &state.spec.name))?;
        for spec in inputs.iter().map(|input| &input.spec).chain(outputs).chain(states.iter().map(|state| &state.spec))
        {
            for reserved in ["batch", "time"] {
                if spec.shape.iter().filter(|axis| axis.name() == Some(reserved)).count() > 1 {
                    return Err(invalid(format!("'{}' has two {reserved} axes", spec.name)));
                }
            }
        }
        for State { spec, initial, .. } in states {
            if axis_index(&spec.shape, "time").is_some() {
                return Err(invalid(format!("state '{}' has a time axis", spec.name)));
            }
            fits(initial, spec)?;
        }
        for input in inputs {
            let Input { spec, is_length, .. } = input;
            input.check_values(self.vocabulary.as_ref().is_some_and(|found| found.input == spec.name))?;
            let alone = spec.shape.is_empty() || spec.shape == [Axis::Named("batch".into())];
            if *is_length && (spec.dtype != DType::Int64 || !alone) {
                let found = describe(spec.dtype.name(), &spec.shape);
                return Err(invalid(format!("length input '{}' is {found}, not int64[batch]", spec.name)));
            }
        }
        if let Some(vocabulary) = &self.vocabulary {
            let Some(taken) = inputs.iter().find(|input| input.spec.name == vocabulary.input) else {
                return Err(invalid(format!("vocabulary input '{}' is no input", vocabulary.input)));
            };
            let Some(given) = outputs.iter().find(|spec| spec.name == vocabulary.output) else {
                return Err(invalid(format!("vocabulary output '{}' is no output", vocabulary.output)));
            };
            if taken.spec.dtype != DType::Int64 {
                return Err(invalid(format!("vocabulary input '{}' is not int64", vocabulary.input)));
            }
            let count = vocabulary.symbols.len();
            if given.shape.last() != Some(&Axis::Fixed(count)) {
                return Err(invalid(format!("{count} symbols, and not as many scores in '{}'", vocabulary.output)));
            }
            unique("symbol", vocabulary.symbols.iter().map(char::to_string))?;
        }
        Ok(())
    }
}

fn fits(value: &Constant, spec: &Spec) -> Result<()> {
    if value.fits(spec) {
        return Ok(());
    }
    Err(misfit(spec))
}

pub(crate) fn misfit(spec: &Spec) -> Error {
    let wanted = describe(spec.dtype.name(), &spec.shape);
    invalid(format!("initial or default of '{}' does not fit {wanted}", spec.name))
}

fn unique(kind: &str, names: impl Iterator<Item = impl AsRef<str>>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if name.as_ref().is_empty() {
            return Err(invalid(format!("an {kind} without a name")));
        }
        if !seen.insert(name.as_ref().to_owned()) {
            return Err(invalid(format!("two entries for {kind} '{}'", name.as_ref())));
        }
    }
    Ok(())
}

pub(crate) fn invalid(found: impl Into<String>) -> Error {
    let expected = "a contract as docs/contract.md describes";
    Error::new("contract-invalid", expected, found, "export the model again with 'rnnx export'")
}
