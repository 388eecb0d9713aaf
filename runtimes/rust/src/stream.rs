//! A stream: one sequence, or a fixed batch of them, being run. It owns the states.

use crate::call::Call;
use crate::checks::{self, Given};
use crate::contract::Contract;
use crate::engine::{self, Sides};
use crate::session::Session;
use crate::shape::{axis_index, with_time, Sizes, Slices};
use crate::snapshot::{Sampling, Snapshot};
use crate::tensor::{Tensor, View};
use crate::waiting::Waiting;
use crate::{Error, Result};

mod feed;

/// What a stream is opened with. Made by [`Session::stream_with`].
#[derive(Debug)]
pub struct StreamBuilder<'a> {
    session: &'a Session,
    batch: usize,
    dims: Sizes,
    initial: Vec<(String, Tensor)>,
}

impl<'a> StreamBuilder<'a> {
    pub(crate) fn new(session: &'a Session) -> Self {
        Self { session, batch: 1, dims: Sizes::new(), initial: Vec::new() }
    }

    /// Number of sequences that run side by side, one to a row.
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// The size of a free dimension; required for those that a state has.
    pub fn dim(mut self, name: impl Into<String>, size: usize) -> Self {
        self.dims.insert(name.into(), size);
        self
    }

    /// Another start than the contract's for a state; `reset` goes back to it.
    pub fn initial(mut self, state: impl Into<String>, value: Tensor) -> Self {
        self.initial.push((state.into(), value));
        self
    }

    /// Open the stream.
    ///
    /// # Errors
    /// `unknown-dimension`, `wrong-dimension`, `empty-batch`, `no-batch`, `missing-dimension`, `unknown-state`,
    /// `wrong-dtype`, `wrong-shape`, `non-finite` or `out-of-memory`.
    pub fn open(self) -> Result<Stream> {
        let (session, contract) = (self.session, self.session.contract());
        let sizes = checks::open_sizes(contract, self.batch, &self.dims)?;
        let starts = checks::starts(contract, &sizes, &self.initial)?;
        let sides = engine::sides(&session.inner.engine, session.provider(), contract, &sizes)?;
        let mut stream = Stream {
            session: session.clone(),
            batch: self.batch,
            sizes,
            starts,
            calls: [None, None],
            sides,
            side: 0,
            position: 0,
            joined: Vec::new(),
            waiting: Waiting::none(contract),
        };
        stream.replace(&stream.starts.clone(), 0)?;
        Ok(stream)
    }
}

/// One batched sequence of a session.
///
/// A step reads one side of the states and writes the other; the two change roles at its very end, so that
/// after an error the states are what they were before the call.
///
/// A stream may move to another thread, but two threads cannot use it at once, and nobody can use it after it
/// was dropped: the compiler refuses.
///
/// ```compile_fail,E0499
/// # fn f(mut stream: rnnx::Stream) {
/// std::thread::scope(|scope| {
///     scope.spawn(|| stream.step(&[]).map(drop));
///     scope.spawn(|| stream.step(&[]).map(drop)); // a second mutable borrow of `stream`
/// });
/// # }
/// ```
///
/// ```compile_fail,E0382
/// # fn f(mut stream: rnnx::Stream) {
/// drop(stream);
/// stream.reset().unwrap(); // a use of what was moved
/// # }
/// ```
pub struct Stream {
    session: Session,
    batch: usize,
    /// Of batch and the free dimensions that were bound.
    pub(crate) sizes: Sizes,
    pub(crate) starts: Vec<Tensor>,
    /// The latest call of `step` and of `run`, with everything allocated that it needs.
    calls: [Option<Call>; 2],
    // Behind the calls, whose bindings point into it.
    sides: Sides,
    side: usize,
    pub(crate) position: u64,
    /// Outputs of the latest chunk of a step model, joined; of a chunk without steps, those with time; of a step
    /// in a pool.
    pub(crate) joined: Vec<Option<Tensor>>,
    pub(crate) waiting: Waiting,
}

/// The outputs of a call, borrowed from the stream until its next one.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    contract: &'a Contract,
    from: Source<'a>,
}

/// Where outputs lie.
#[derive(Clone, Copy)]
enum Source<'a> {
    Call(&'a Call),
    Joined(&'a [Option<Tensor>]),
}

impl<'a> Outputs<'a> {
    /// The output called `name`: in the shape of one step after `step`, with the time axis after `run`.
    ///
    /// # Errors
    /// `unknown-output`.
    pub fn get(&self, name: &str) -> Result<View<'a>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, view)| view).ok_or_else(|| {
            let known = crate::shape::join(self.contract.outputs.iter().map(|spec| &spec.name));
            let fix = "use one of the names that 'rnnx inspect' lists as outputs";
            Error::new("unknown-output", format!("outputs {known}"), format!("'{name}'"), fix)
        })
    }

    /// Name and value of every output, in the order of the contract.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, View<'a>)> + '_ {
        let Self { contract, from } = *self;
        contract.outputs.iter().enumerate().filter_map(move |(index, spec)| {
            let view = match from {
                Source::Joined(tensors) => tensors[index].as_ref()?.view(),
                Source::Call(call) => call.output(index, spec.dtype),
            };
            Some((spec.name.as_str(), view))
        })
    }
}

impl Stream {
    /// The session it runs.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Number of sequences side by side.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of steps since the stream was opened or reset as a whole.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Run one time step. A second step of the same sizes allocates nothing.
    ///
    /// Inputs are in the shape of one step, which has no time axis; an `N*time` axis has N entries.
    ///
    /// # Errors
    /// `unknown-input`, `missing-input`, `wrong-dtype`, `wrong-shape`, `empty-batch`, `missing-dimension`,
    /// `non-finite`, `symbol-range`, `length-range`, `whole-only`, `entries-waiting` or `engine-failed`; the states
    /// are unchanged.
    pub fn step(&mut self, inputs: &[(&str, View<'_>)]) -> Result<Outputs<'_>> {
        self.waiting.require_none(self.session.contract())?;
        self.prepare(inputs, false)?;
        self.advance(false)?;
        Ok(self.outputs(false))
    }

    /// Run a chunk of steps; chunks of any lengths give together what one long one gives.
    ///
    /// Inputs are in the shape of a chunk, with the time axis; those without one hold for the whole call.
    ///
    /// # Errors
    /// As [`Stream::step`], and `empty-time`.
    pub fn run(&mut self, inputs: &[(&str, View<'_>)]) -> Result<Outputs<'_>> {
        self.waiting.require_none(self.session.contract())?;
        self.run_chunk(inputs)?;
        Ok(self.chunk_outputs())
    }

    /// Put all states back to their start, and the position to 0, and drop what waits for a whole step.
    ///
    /// # Errors
    /// `engine-failed` if a GPU cannot be written to.
    pub fn reset(&mut self) -> Result<()> {
        self.waiting = Waiting::none(self.session.contract());
        self.replace(&self.starts.clone(), 0)
    }

    /// Put the states of some rows of the batch back to their start; the position stays.
    ///
    /// # Errors
    /// `row-range` for a row that does not exist, `shared-state` where rows share a state, `entries-waiting`.
    pub fn reset_rows(&mut self, rows: &[usize]) -> Result<()> {
        self.waiting.require_none(self.session.contract())?;
        let rows = checks::check_rows(rows, self.batch)?;
        let mut values = self.read_all()?;
        for ((state, value), start) in self.session.contract().states.iter().zip(&mut values).zip(&self.starts) {
            let spec = &state.spec;
            if let Some(axis) = axis_index(&spec.shape, "batch") {
                let slices = Slices::new(value.shape(), axis, 1, spec.dtype.size());
                let mut row_bytes = vec![0; value.bytes().len() / self.batch];
                for &row in &rows {
                    slices.take(start.bytes(), row, &mut row_bytes);
                    slices.put(value.bytes_mut(), row, &row_bytes);
                }
            } else if rows.len() == self.batch {
                *value = start.clone();
            } else if !rows.is_empty() {
                return Err(Error::new(
                    "shared-state",
                    "states with a batch axis, so that a row has its own",
                    format!("state '{}' shared by all rows", spec.name),
                    "reset the whole stream",
                ));
            }
        }
        self.replace(&values, self.position)
    }

    /// A copy of the state called `name`.
    ///
    /// # Errors
    /// `unknown-state`.
    pub fn state(&self, name: &str) -> Result<Tensor> {
        self.sides[self.side][checks::state_index(self.session.contract(), name)?].read()
    }

    /// Overwrite the state called `name`.
    ///
    /// # Errors
    /// `unknown-state`, `wrong-dtype`, `wrong-shape`, or `non-finite` for NaN; infinities are allowed.
    pub fn set_state(&mut self, name: &str, value: View<'_>) -> Result<()> {
        let index = checks::check_state(self.session.contract(), name, &value, &self.sizes)?;
        self.sides[self.side][index].write(value.bytes)
    }

    /// All that is needed to continue elsewhere, as safetensors bytes: the same in every language.
    ///
    /// # Errors
    /// `entries-waiting`, since a snapshot has no room for them; `engine-failed` if a GPU cannot be read.
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        self.snapshot_with(None)
    }

    pub(crate) fn snapshot_with(&self, sampling: Option<&Sampling>) -> Result<Vec<u8>> {
        self.waiting.require_none(self.session.contract())?;
        let states = self.read_all()?;
        Ok(Snapshot { position: self.position, states, sampling: sampling.cloned() }.encode(self.session.contract()))
    }

    /// Continue where a snapshot was made; the outputs that follow are the same bit for bit. What waits for a whole
    /// step is dropped.
    ///
    /// # Errors
    /// `not-safetensors`, `not-a-snapshot`, `snapshot-newer`, `snapshot-of-another-model` or
    /// `snapshot-invalid`; the states are unchanged.
    pub fn restore(&mut self, data: &[u8]) -> Result<()> {
        self.restore_with(data).map(drop)
    }

    pub(crate) fn restore_with(&mut self, data: &[u8]) -> Result<Option<Sampling>> {
        let found = Snapshot::decode(data, self.session.contract(), &self.sizes)?;
        self.replace(&found.states, found.position)?;
        self.waiting = Waiting::none(self.session.contract());
        Ok(found.sampling)
    }

    /// Fill the latest call with these inputs or, where it does not fit, make one that does.
    fn prepare(&mut self, inputs: &Given, whole: bool) -> Result<()> {
        let slot = usize::from(whole);
        if self.calls[slot].as_mut().is_some_and(|call| call.fill(inputs)) {
            return Ok(());
        }
        let contract = self.session.contract();
        if !whole && contract.whole_only.is_some() {
            return Err(self.whole_only("a call of step"));
        }
        let sizes = checks::match_inputs(contract, inputs, &self.sizes, whole)?;
        checks::check_values(contract, inputs, sizes["time"])?;
        let call = self.call(&sizes, whole)?;
        assert!(call.fill(inputs), "inputs that were checked fit the call made for them");
        Ok(())
    }

    /// The latest call if it has these sizes, else a new one in its place.
    fn call(&mut self, sizes: &Sizes, whole: bool) -> Result<&mut Call> {
        let slot = &mut self.calls[usize::from(whole)];
        let latest = slot.take().filter(|call| call.sizes == *sizes);
        let inner = &self.session.inner;
        let call = match latest {
            Some(call) => call,
            None => Call::new(&inner.engine, &inner.contract, &mut self.sides, sizes, whole)?,
        };
        Ok(slot.insert(call))
    }

    fn advance(&mut self, whole: bool) -> Result<()> {
        let inner = &self.session.inner;
        let call = self.calls[usize::from(whole)].as_mut().expect("a call was prepared");
        call.run(inner, self.side)?;
        self.side = 1 - self.side;
        self.position += call.sizes["time"] as u64;
        Ok(())
    }

    fn outputs(&self, whole: bool) -> Outputs<'_> {
        let call = self.calls[usize::from(whole)].as_ref().expect("a call was run");
        Outputs { contract: self.session.contract(), from: Source::Call(call) }
    }

    pub(crate) fn joined_outputs(&self) -> Outputs<'_> {
        Outputs { contract: self.session.contract(), from: Source::Joined(&self.joined) }
    }

    /// The outputs of the latest chunk.
    fn chunk_outputs(&self) -> Outputs<'_> {
        if self.session.contract().has_time() {
            self.outputs(true)
        } else {
            self.joined_outputs()
        }
    }

    fn run_chunk(&mut self, inputs: &Given) -> Result<()> {
        if !self.session.contract().has_time() {
            return self.run_steps(inputs);
        }
        if self.position > 0 && self.session.contract().whole_only.is_some() {
            return Err(self.whole_only("a second call"));
        }
        self.prepare(inputs, true)?;
        self.advance(true)
    }

    /// Run a chunk of a step model: step by step, back to the start of the chunk if one fails.
    fn run_steps(&mut self, inputs: &Given) -> Result<()> {
        let session = self.session.clone();
        let contract = session.contract();
        let sizes = checks::match_inputs(contract, inputs, &self.sizes, true)?;
        let time = sizes["time"];
        checks::check_values(contract, inputs, time)?;
        let mut step_sizes = sizes.clone();
        step_sizes.insert("time".into(), 1);
        self.call(&step_sizes, false)?;
        let (before, saved) = (self.position, self.read_all()?);
        let mut joined: Vec<Tensor> = Vec::new();
        for step in 0..time {
            self.calls[0].as_mut().expect("made above").fill_step(contract, inputs, step, time);
            if let Err(error) = self.advance(false) {
                self.replace(&saved, before)?;
                return Err(error);
            }
            if let Err(error) = self.join(&mut joined, step, time) {
                self.replace(&saved, before)?;
                return Err(error);
            }
        }
        self.joined = joined.into_iter().map(Some).collect();
        Ok(())
    }

    /// Put the outputs of one step where they belong in those of the chunk, which the first step makes.
    fn join(&self, joined: &mut Vec<Tensor>, step: usize, time: usize) -> Result<()> {
        let call = self.calls[0].as_ref().expect("a step was run");
        for (index, spec) in self.session.contract().outputs.iter().enumerate() {
            let row = call.output(index, spec.dtype);
            let axis = axis_index(&with_time(&spec.shape), "time").expect("it was put in");
            let mut shape = row.shape().to_vec();
            shape.insert(axis, time);
            if step == 0 {
                joined.push(Tensor::zeros(spec.dtype, shape.clone()));
            }
            let chunk = &mut joined[index];
            if chunk.shape() != shape {
                let expected = format!("output '{}' of one size in all steps of a chunk", spec.name);
                let found = format!("{:?} behind {:?}", shape, chunk.shape());
                return Err(Error::new("engine-failed", expected, found, "step it one by one"));
            }
            Slices::new(&shape, axis, 1, spec.dtype.size()).put(chunk.bytes_mut(), step, row.bytes);
        }
        Ok(())
    }

    pub(crate) fn read_all(&self) -> Result<Vec<Tensor>> {
        self.sides[self.side].iter().map(engine::Buffer::read).collect()
    }

    /// Make `states` current, all at once: they are written to the other side, which then changes roles.
    pub(crate) fn replace(&mut self, states: &[Tensor], position: u64) -> Result<()> {
        let other = 1 - self.side;
        for (buffer, value) in self.sides[other].iter_mut().zip(states) {
            buffer.write(value.bytes())?;
        }
        (self.side, self.position) = (other, position);
        Ok(())
    }

    fn whole_only(&self, found: &str) -> Error {
        let reason = self.session.contract().whole_only.as_deref().unwrap_or_default();
        Error::new(
            "whole-only",
            format!("the whole sequence in one call of run, because of {reason}"),
            found,
            "give the whole sequence to run, and reset before the next one",
        )
    }
}
