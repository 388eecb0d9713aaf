//! A pool: many streams of a session stepped as the rows of one batch.

use crate::checks::{self, find, Given};
use crate::contract::{Contract, Input};
use crate::session::Session;
use crate::shape::{axis_index, resolve, Sizes, Slices};
use crate::stream::{Outputs, Stream};
use crate::tensor::Tensor;
use crate::{Error, Result, View};
use std::sync::Arc;

/// Sizes of batches whose buffers stay.
const KEPT: usize = 32;

/// Steps many streams of a session, each of batch 1, as the rows of one batch. Made by [`Session::pool`].
///
/// Which streams step is free at each call: those that are left out stay as they are.
pub struct Pool {
    session: Session,
    /// Of as many rows as were stepped; the latest is the last.
    batches: Vec<Stream>,
}

impl Pool {
    pub(crate) fn new(session: &Session) -> Result<Self> {
        check_model(session.contract())?;
        Ok(Self { session: session.clone(), batches: Vec::new() })
    }

    /// Run one step of each of the streams, with the inputs of each as its own [`Stream::step`] takes them.
    ///
    /// The outputs of each are, to rounding, those that it gives alone. If anything is refused no stream has moved,
    /// and the message says whose input it was.
    ///
    /// # Errors
    /// As [`Stream::step`], and `streams-disagree` for a stream of another session, one of a batch, other free
    /// dimensions, or another value of an input without a batch axis.
    pub fn step<'s>(&mut self, rows: Vec<(&'s mut Stream, &[(&str, View<'_>)])>) -> Result<Vec<Outputs<'s>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let sizes = self.matched(&rows)?;
        let inputs = self.joined(&rows, &sizes)?;
        let views: Vec<_> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.view())).collect();
        let mut streams: Vec<&'s mut Stream> = rows.into_iter().map(|(stream, _)| stream).collect();
        self.batch(&sizes, streams.len())?.step_rows(&mut streams, &views)?;
        Ok(streams.into_iter().map(|stream| &*stream).map(Stream::joined_outputs).collect())
    }

    /// Check the inputs of each stream as a step of it alone would; return the sizes of that step.
    fn matched(&self, rows: &[(&mut Stream, &Given)]) -> Result<Sizes> {
        let contract = self.session.contract();
        let mut all = Vec::with_capacity(rows.len());
        for (place, (stream, inputs)) in rows.iter().enumerate() {
            if !Arc::ptr_eq(&stream.session().inner, &self.session.inner) {
                return Err(disagree("streams of the session that the pool was opened on", "one of another session"));
            }
            if stream.batch() != 1 {
                return Err(disagree("streams of batch 1", "a stream of a larger batch"));
            }
            let sizes = stream.match_step(inputs).map_err(|error| match error.code() {
                "entries-waiting" => error,
                _ => error.found_in(&format!("in the input of stream {place}")),
            })?;
            all.push(sizes);
        }
        for (name, (place, sizes)) in
            contract.free_dimensions().into_iter().flat_map(|name| all.iter().enumerate().map(move |each| (name, each)))
        {
            if sizes[name] != all[0][name] {
                return Err(disagree(
                    &format!("one size of '{name}' in all streams that run together"),
                    &format!("{} in stream 0, {} in stream {place}", all[0][name], sizes[name]),
                ));
            }
        }
        Ok(all.swap_remove(0))
    }

    /// The inputs of all streams as those of one batch.
    fn joined(&self, rows: &[(&mut Stream, &Given)], sizes: &Sizes) -> Result<Vec<(String, Tensor)>> {
        let contract = self.session.contract();
        let mut whole_sizes = sizes.clone();
        whole_sizes.insert("batch".into(), rows.len());
        contract
            .inputs
            .iter()
            .map(|input| {
                let (spec, axes) = (&input.spec, contract.caller_shape(&input.spec, input.is_length, false));
                let left_out = default_of(input, &resolve(&axes, sizes).expect("matching found every size"));
                let shape = resolve(&axes, &whole_sizes).expect("matching found every size");
                let mut whole = Tensor::zeros(spec.dtype, shape.clone());
                let axis = axis_index(&axes, "batch");
                for (row, (_, inputs)) in rows.iter().enumerate() {
                    let given = find(inputs, &spec.name);
                    let bytes = given.as_ref().map_or(left_out.bytes(), |view| view.bytes);
                    match axis {
                        Some(axis) => {
                            Slices::new(&shape, axis, 1, spec.dtype.size()).put(whole.bytes_mut(), row, bytes);
                        }
                        None if row == 0 => whole.set_bytes(bytes),
                        None if whole.bytes() == bytes => {}
                        None => {
                            return Err(disagree(
                                &format!(
                                    "one value of '{}', which has no batch axis, in all streams of a call",
                                    spec.name
                                ),
                                &format!("another in stream {row} than in stream 0"),
                            ))
                        }
                    }
                }
                Ok((spec.name.clone(), whole))
            })
            .collect()
    }

    /// The stream of so many rows.
    fn batch(&mut self, sizes: &Sizes, rows: usize) -> Result<&mut Stream> {
        let free = self.session.contract().free_dimensions();
        let same =
            |batch: &Stream| batch.batch() == rows && free.iter().all(|name| batch.size(name) == Some(sizes[*name]));
        let latest = match self.batches.iter().position(same) {
            Some(place) => self.batches.remove(place),
            None => {
                let options = self.session.stream_with().batch(rows);
                free.iter().fold(options, |options, name| options.dim(*name, sizes[*name])).open()?
            }
        };
        if self.batches.len() == KEPT {
            self.batches.remove(0);
        }
        self.batches.push(latest);
        Ok(self.batches.last_mut().expect("it was put there"))
    }
}

fn default_of(input: &Input, shape: &[usize]) -> Tensor {
    match &input.default {
        _ if input.is_length => Tensor::new(shape, &vec![1_i64; shape.iter().product()]),
        Some(default) => default.fill(input.spec.dtype, shape),
        None => Tensor::zeros(input.spec.dtype, shape.to_vec()),
    }
}

fn check_model(contract: &Contract) -> Result<()> {
    if let Some(reason) = &contract.whole_only {
        return Err(Error::new(
            "whole-only",
            "a model that can be stepped",
            format!("one that takes whole sequences, because of {reason}"),
            "open a stream, and give it the whole sequence in one call of run",
        ));
    }
    if !contract.has_batch() {
        return Err(Error::new(
            "no-batch",
            "a model with a batch axis, whose rows the streams of a pool are",
            "none in any input or state",
            "open one stream per sequence, or export with a batch axis",
        ));
    }
    let states = contract.states.iter().map(|state| ("shared-state", "state", &state.spec));
    let outputs = contract.outputs.iter().map(|spec| ("shared-output", "output", spec));
    match states.chain(outputs).find(|(_, _, spec)| axis_index(&spec.shape, "batch").is_none()) {
        None => Ok(()),
        Some((code, kind, spec)) => Err(Error::new(
            code,
            format!("{kind}s with a batch axis, so that each stream of a pool has its own"),
            format!("{kind} '{}' shared by all rows", spec.name),
            "open one stream per sequence",
        )),
    }
}

fn disagree(expected: &str, found: &str) -> Error {
    Error::new("streams-disagree", expected, found, "run them in separate calls")
}

impl Stream {
    /// The size of a dimension that was bound.
    fn size(&self, name: &str) -> Option<usize> {
        self.sizes.get(name).copied()
    }

    /// Check the inputs of a step, and return the size of every dimension.
    fn match_step(&self, inputs: &Given) -> Result<Sizes> {
        let contract = self.session().contract();
        self.waiting.require_none(contract)?;
        let sizes = checks::match_inputs(contract, inputs, &self.sizes, false)?;
        checks::check_values(contract, inputs, 1)?;
        Ok(sizes)
    }

    /// Step a batch whose rows are the states of these streams, and hand each what came of its row.
    fn step_rows(&mut self, streams: &mut [&mut Stream], inputs: &Given) -> Result<()> {
        let session = self.session().clone();
        let contract = session.contract();
        let slices: Vec<_> = contract
            .states
            .iter()
            .zip(&self.starts)
            .map(|(state, start)| {
                let axis = axis_index(&state.spec.shape, "batch").expect("the model was checked");
                Slices::new(start.shape(), axis, 1, state.spec.dtype.size())
            })
            .collect();
        let mut states = self.starts.clone();
        for (row, stream) in streams.iter().enumerate() {
            for ((slices, whole), own) in slices.iter().zip(&mut states).zip(stream.read_all()?) {
                slices.put(whole.bytes_mut(), row, own.bytes());
            }
        }
        self.replace(&states, 0)?;
        let outputs = self.step(inputs)?;
        let mut joined: Vec<Vec<Option<Tensor>>> = vec![Vec::new(); streams.len()];
        for ((_, view), spec) in outputs.iter().zip(&contract.outputs) {
            let axes = contract.caller_shape(spec, false, false);
            let axis = axis_index(&axes, "batch").expect("the model was checked");
            let slices = Slices::new(view.shape(), axis, 1, spec.dtype.size());
            let mut shape = view.shape().to_vec();
            shape[axis] = 1;
            for (row, own) in joined.iter_mut().enumerate() {
                let mut tensor = Tensor::zeros(spec.dtype, shape.clone());
                slices.take(view.bytes, row, tensor.bytes_mut());
                own.push(Some(tensor));
            }
        }
        let states = self.read_all()?;
        for (row, (stream, joined)) in streams.iter_mut().zip(joined).enumerate() {
            let mut own = stream.starts.clone();
            for ((slices, whole), own) in slices.iter().zip(&states).zip(&mut own) {
                slices.take(whole.bytes(), row, own.bytes_mut());
            }
            stream.replace(&own, stream.position + 1)?;
            stream.joined = joined;
        }
        Ok(())
    }
}
