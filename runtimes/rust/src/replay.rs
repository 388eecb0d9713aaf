//! A trace replayed through a stream: whether a model gives what was recorded.

use crate::contract::{Contract, Spec};
use crate::shape::axis_index;
use crate::trace::{row, to_chunk, to_rows, Bound, Trace};
use crate::waiting::{cut, views};
use crate::{read_file, DType, Result, Session, Stream, Tensor, View};
use std::path::Path;

/// How a replay went.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Steps that were replayed.
    pub steps: usize,
    /// Calls that took.
    pub calls: usize,
    /// The largest `|got - expected| / (1 + |expected|)`.
    pub max_error: f64,
    /// The first value that does not agree; None if all do.
    pub failure: Option<Failure>,
}

/// The first value that does not agree.
#[derive(Debug, Clone)]
pub struct Failure {
    /// `output.NAME` or `state.NAME`.
    pub tensor: String,
    /// -1 for the start of a state.
    pub step: i64,
    /// In the shape of one step.
    pub index: Vec<usize>,
    /// The number that was recorded; as text, so that integers of 64 bits are whole.
    pub expected: String,
    /// The number that came.
    pub got: String,
}

impl Verdict {
    /// Whether everything agrees.
    pub fn agrees(&self) -> bool {
        self.failure.is_none()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = format!("{} steps in {} calls, largest error {:.1e}", self.steps, self.calls, self.max_error);
        match &self.failure {
            None => write!(f, "agrees: {told}"),
            Some(Failure { tensor, step, index, expected, got }) => {
                write!(f, "disagrees: {tensor} at step {step}, index {index:?}: expected {expected}, got {got}; {told}")
            }
        }
    }
}

impl Session {
    /// Replay the trace that was exported beside a model, step by step.
    ///
    /// # Errors
    /// As [`read_file`], [`Trace::decode`] and [`Stream::step`].
    pub fn replay(&self, path: impl AsRef<Path>) -> Result<Verdict> {
        let trace = Trace::decode(&read_file(path, "a trace")?, self.contract())?;
        Replay::new(self, &trace)?.run(&[1])
    }
}

/// A trace being replayed through a stream.
pub struct Replay<'a> {
    contract: &'a Contract,
    trace: &'a Trace,
    stream: Stream,
    verdict: Verdict,
}

/// Where a row that is compared stands, and which of its entries count.
struct Place<'a> {
    tensor: String,
    step: i64,
    bound: Bound,
    is_kept: &'a dyn Fn(usize) -> bool,
}

impl<'a> Replay<'a> {
    /// Open a stream for a trace.
    ///
    /// # Errors
    /// As [`crate::StreamBuilder::open`].
    pub fn new(session: &'a Session, trace: &'a Trace) -> Result<Self> {
        let contract = session.contract();
        let free = contract.free_dimensions();
        let mut builder = session.stream_with();
        for (name, size) in &trace.sizes {
            builder = match name.as_str() {
                "batch" => builder.batch(*size),
                name if free.contains(&name) => builder.dim(name, *size),
                _ => builder,
            };
        }
        Ok(Self { contract, trace, stream: builder.open()?, verdict: Verdict::default() })
    }

    /// Replay all of it in chunks of these lengths, in turn, 0 for all that is left; stop where something disagrees.
    /// A model of whole sequences takes all of it at once.
    ///
    /// # Errors
    /// As [`Stream::run`].
    pub fn run(mut self, chunks: &[usize]) -> Result<Verdict> {
        self.compare_states(-1, 0)?;
        self.begin()?;
        let whole = [0];
        let chunks = if self.contract.whole_only.is_some() { &whole } else { chunks };
        let mut lengths = chunks.iter().cycle();
        while self.verdict.steps < self.trace.steps && self.verdict.agrees() {
            let begin = self.verdict.steps;
            let length = lengths.next().copied().unwrap_or(0);
            let end = if length == 0 { self.trace.steps } else { self.trace.steps.min(begin + length) };
            let outputs = self.call(begin, end)?;
            self.compare(&outputs, end)?;
        }
        Ok(self.verdict)
    }

    /// Replay all of it through `feed`, in blocks of so many entries, in turn, and then `flush`, which has to fill
    /// up the last entries of each input that are left out.
    ///
    /// # Errors
    /// As [`Stream::feed`].
    pub fn run_blocks(mut self, blocks: &[usize], omitted: usize) -> Result<Verdict> {
        self.compare_states(-1, 0)?;
        self.begin()?;
        let contract = self.contract;
        let axis_of = |name: &str| {
            let input = contract.inputs.iter().find(|input| input.spec.name == name)?;
            axis_index(&contract.caller_shape(&input.spec, input.is_length, true), "time")
        };
        let mut left = self.inputs(0, self.trace.steps, false)?;
        for (name, value) in &mut left {
            if let Some(axis) = axis_of(name) {
                *value = cut(axis, value.view(), 0, value.shape()[axis] - omitted, 0.0);
            }
        }
        for length in blocks.iter().cycle() {
            let (mut block, mut taken) = (Vec::new(), 0);
            for (name, value) in &mut left {
                let Some(axis) = axis_of(name) else {
                    block.push((*name, value.clone()));
                    continue;
                };
                let all = value.shape()[axis];
                let count = if *length == 0 { all } else { all.min(*length) };
                block.push((*name, cut(axis, value.view(), 0, count, 0.0)));
                *value = cut(axis, value.view(), count, all, 0.0);
                taken += count;
            }
            let before = self.stream.position();
            let outputs = if taken > 0 { self.stream.feed(&views(&block))? } else { self.stream.flush()? };
            let got: Vec<_> = outputs.iter().map(|(_, view)| view.to_tensor()).collect();
            self.verdict.calls += 1;
            let end = self.stream.position();
            if end > before {
                let rows = self.rows(&got, (end - before) as usize, false);
                self.compare(&rows, end as usize)?;
            }
            if taken == 0 || !self.verdict.agrees() {
                break;
            }
        }
        Ok(self.verdict)
    }

    /// Replay the first steps, one at a time, and return the stream.
    ///
    /// # Errors
    /// As [`Stream::step`].
    pub fn to_step(mut self, steps: usize) -> Result<Stream> {
        self.begin()?;
        for step in 0..steps {
            self.call(step, step + 1)?;
        }
        Ok(self.stream)
    }

    /// Compare the outputs of steps that end before `end`, and the states behind them.
    fn compare(&mut self, outputs: &[Tensor], end: usize) -> Result<()> {
        self.verdict.steps = end;
        self.compare_outputs(outputs, end);
        self.compare_states(end as i64 - 1, end)
    }

    /// Set all states to row 0.
    fn begin(&mut self) -> Result<()> {
        for (state, (rows, _)) in self.contract.states.iter().zip(&self.trace.states) {
            self.stream.set_state(&state.spec.name, row(rows.view(), 0))?;
        }
        Ok(())
    }

    /// Run steps begin..end; return each output as [step, ...], one row for those without time.
    fn call(&mut self, begin: usize, end: usize) -> Result<Vec<Tensor>> {
        let is_step = end - begin == 1 && self.contract.whole_only.is_none();
        let inputs = self.inputs(begin, end, is_step)?;
        self.verdict.calls += 1;
        let given = views(&inputs);
        let outputs = if is_step { self.stream.step(&given)? } else { self.stream.run(&given)? };
        let got: Vec<_> = outputs.iter().map(|(_, view)| view.to_tensor()).collect();
        Ok(self.rows(&got, end - begin, is_step))
    }

    /// The recorded inputs of steps begin..end, as `step` or `run` takes them.
    fn inputs(&self, begin: usize, end: usize, is_step: bool) -> Result<Vec<(&'a str, Tensor)>> {
        let mut chunks = Vec::new();
        for (input, recorded) in self.contract.inputs.iter().zip(&self.trace.inputs) {
            let Some(recorded) = recorded else { continue };
            let (spec, is_stepped) = (&input.spec, self.contract.is_stepped(&input.spec, input.is_length));
            let value = if input.is_length {
                let left = |length: &i64| (length - begin as i64).clamp(0, (end - begin) as i64);
                Tensor::new(recorded.shape(), &recorded.as_slice()?.iter().map(left).collect::<Vec<_>>())
            } else if is_stepped && is_step {
                row(recorded.view(), begin).to_tensor()
            } else if is_stepped {
                to_chunk(self.contract, spec, recorded, begin, end)
            } else {
                recorded.clone()
            };
            chunks.push((spec.name.as_str(), value));
        }
        Ok(chunks)
    }

    /// The outputs of some steps as [step, ...], one row for those without time.
    fn rows(&self, got: &[Tensor], steps: usize, is_step: bool) -> Vec<Tensor> {
        let every = self.contract.outputs.iter().zip(got).zip(&self.trace.outputs);
        every
            .map(|((spec, got), (recorded, _))| {
                let row_shape = &recorded.shape()[1..];
                if !is_step && self.contract.is_stepped(spec, false) {
                    to_rows(self.contract, spec, got.view(), row_shape, steps)
                } else {
                    got.clone().reshaped([&[1], row_shape].concat())
                }
            })
            .collect()
    }

    fn compare_outputs(&mut self, outputs: &[Tensor], end: usize) {
        for (index, (spec, got)) in self.contract.outputs.iter().zip(outputs).enumerate() {
            let (expected, bound) = &self.trace.outputs[index];
            let first = end - got.shape()[0];
            for step in first..end {
                let is_kept = |flat: usize| self.is_valid(spec, &expected.shape()[1..], flat, step);
                let place = Place {
                    tensor: format!("output.{}", spec.name),
                    step: step as i64,
                    bound: *bound,
                    is_kept: &is_kept,
                };
                let (error, failure) =
                    compare_rows(&place, &row(expected.view(), step), &row(got.view(), step - first));
                self.note(error, failure);
            }
        }
    }

    fn compare_states(&mut self, step: i64, index: usize) -> Result<()> {
        for (state, (rows, bound)) in self.contract.states.iter().zip(&self.trace.states) {
            let got = self.stream.state(&state.spec.name)?;
            let tensor = format!("state.{}", state.spec.name);
            let place = Place { tensor, step, bound: *bound, is_kept: &|_| true };
            let (error, failure) = compare_rows(&place, &row(rows.view(), index), &got.view());
            self.note(error, failure);
        }
        Ok(())
    }

    fn note(&mut self, error: f64, failure: Option<Failure>) {
        self.verdict.max_error = self.verdict.max_error.max(error);
        self.verdict.failure = self.verdict.failure.take().or(failure);
    }

    /// Whether the row of entry `flat` of an output has not ended before `step`.
    fn is_valid(&self, spec: &Spec, shape: &[usize], flat: usize, step: usize) -> bool {
        let mut given = self.contract.inputs.iter().zip(&self.trace.inputs).filter(|(input, _)| input.is_length);
        let Some(lengths) = given.find_map(|(_, value)| value.as_ref()) else { return true };
        let axes = spec.shape.iter().filter(|axis| axis.to_string() != "time");
        let batch = axes.into_iter().position(|axis| axis.name() == Some("batch"));
        let row = match batch.filter(|_| !lengths.shape().is_empty()) {
            Some(axis) => flat / shape[axis + 1..].iter().product::<usize>() % shape[axis],
            None if lengths.shape().is_empty() => 0,
            None => return true,
        };
        (step as f64) < lengths.view().number(row)
    }
}

/// The largest error of one row, and the first entry that does not agree.
fn compare_rows(place: &Place, expected: &View, got: &View) -> (f64, Option<Failure>) {
    let (mut largest, mut failure) = (0.0f64, None);
    let shape = expected.shape();
    for flat in (0..shape.iter().product()).filter(|flat| (place.is_kept)(*flat)) {
        let (wanted, have) = (expected.number(flat), got.number(flat));
        let error = (have - wanted).abs();
        if error.is_finite() {
            largest = largest.max(error / (1.0 + wanted.abs()));
        }
        let is_exact = !expected.dtype().is_float();
        let agrees = if is_exact || !wanted.is_finite() || !have.is_finite() {
            wanted == have || (wanted.is_nan() && have.is_nan())
        } else {
            error <= place.bound.absolute + place.bound.relative * wanted.abs()
        };
        if !agrees && failure.is_none() {
            let mut index = vec![0; shape.len()];
            let mut rest = flat;
            for (entry, size) in index.iter_mut().zip(shape).rev() {
                (*entry, rest) = (rest % size, rest / size);
            }
            failure = Some(Failure {
                tensor: place.tensor.clone(),
                step: place.step,
                index,
                expected: plain(expected, flat),
                got: plain(got, flat),
            });
        }
    }
    (largest, failure)
}

/// A number in words that are JSON's, but for `nan`, `inf` and `-inf`.
fn plain(view: &View, index: usize) -> String {
    match (view.dtype(), view.number(index)) {
        (DType::Int64, _) => view.as_slice::<i64>().expect("the dtype was matched")[index].to_string(),
        (DType::Uint64, _) => view.as_slice::<u64>().expect("the dtype was matched")[index].to_string(),
        (dtype, number) if !dtype.is_float() => (number as i64).to_string(),
        (_, number) if number.is_nan() => "nan".into(),
        (_, number) => number.to_string(),
    }
}
