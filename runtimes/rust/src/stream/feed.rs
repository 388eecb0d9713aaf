//! Blocks of any length: the part of a stream that keeps what is over between them.

use super::{Outputs, Stream};
use crate::shape::axis_index;
use crate::tensor::{Tensor, View};
use crate::waiting::{joined_along, no_outputs, views, Waiting};
use crate::Result;

impl Stream {
    /// Run the steps that are whole, and keep what is over for the next call.
    ///
    /// Inputs are in the shape of a chunk, with any number of entries along time, none too; each has a queue of its
    /// own, and as many steps run as the shortest has. Of an input that was given before and is left out no entries
    /// come; one without time stays as it was. The outputs are those of the steps that ran, as `run` gives them; if
    /// none did, those with time have length 0, and the others are left out.
    ///
    /// # Errors
    /// As [`Stream::run`], and `feed-length` for lengths; nothing is kept then.
    pub fn feed(&mut self, inputs: &[(&str, View<'_>)]) -> Result<Outputs<'_>> {
        if self.session.contract().whole_only.is_some() {
            return Err(self.whole_only("a call of feed"));
        }
        let session = self.session.clone();
        let waiting = self.waiting.joined(session.contract(), inputs, &self.sizes)?;
        let steps = waiting.whole_steps(session.contract());
        self.run_first(&waiting, steps)?;
        self.waiting = waiting.without(session.contract(), steps);
        Ok(if steps > 0 { self.chunk_outputs() } else { self.joined_outputs() })
    }

    /// Run what waits as whole steps, the last one filled up with zeros (or what is nearest to 0 in the range of an
    /// input); then it is as if never fed. [`Stream::waiting`] says before how many entries of the last step are
    /// real. The outputs are those of these steps, the filled one included, as [`Stream::feed`] gives them. Where
    /// outputs come late, those of the last steps follow, as the network ends a sequence; then the stream is over,
    /// until it is reset.
    ///
    /// # Errors
    /// `engine-failed`: what waited waits. `no-end`: outputs come late, and nobody can say what the last ones are.
    pub fn flush(&mut self) -> Result<Outputs<'_>> {
        let session = self.session.clone();
        let end = session.contract().end()?;
        let none = Waiting::none(session.contract());
        let waiting = std::mem::replace(&mut self.waiting, none);
        let steps = waiting.steps_to_flush(session.contract());
        let ran = self.run_first(&waiting, steps).and_then(|()| match end {
            None => Ok(steps > 0),
            Some((late, state)) => self.run_end(&waiting, steps > 0, late, state).map(|()| false),
        });
        match ran {
            Ok(true) => Ok(self.chunk_outputs()),
            Ok(false) => Ok(self.joined_outputs()),
            Err(error) => {
                self.waiting = waiting;
                Err(error)
            }
        }
    }

    /// Say that the sequence is over, and join the outputs of the steps after it to those before.
    fn run_end(&mut self, waiting: &Waiting, ran: bool, late: usize, state: usize) -> Result<()> {
        let session = self.session.clone();
        let contract = session.contract();
        let before = if ran { self.chunk_outputs() } else { self.joined_outputs() };
        let before: Vec<_> = before.iter().map(|(name, view)| (name.to_owned(), view.to_tensor())).collect();
        let mut states = self.read_all()?;
        let (dtype, shape) = (contract.states[state].spec.dtype, states[state].shape().to_vec());
        states[state] = Tensor::from_numbers(dtype, shape.clone(), std::iter::repeat_n(1.0, shape.iter().product()));
        self.replace(&states, self.position)?;
        self.run_chunk(&views(&waiting.nothing(contract, &self.sizes).first(contract, late)))?;
        let last: Vec<_> = self.chunk_outputs().iter().map(|(_, view)| view.to_tensor()).collect();
        let joined = contract.outputs.iter().zip(last).map(|(spec, last)| {
            let axis = axis_index(&contract.caller_shape(spec, false, true), "time");
            let first = before.iter().find(|(name, _)| *name == spec.name);
            Some(match (axis, first) {
                (Some(axis), Some((_, first))) => joined_along(axis, first, &last.view()),
                _ => last,
            })
        });
        self.joined = joined.collect();
        Ok(())
    }

    /// How many entries of each input wait for a whole step, without those of which none does.
    pub fn waiting(&self) -> Vec<(&str, usize)> {
        let timed = self.waiting.timed(self.session.contract()).into_iter();
        timed.filter(|timed| timed.entries > 0).map(|timed| (timed.input.spec.name.as_str(), timed.entries)).collect()
    }

    /// Run the first steps of what waits.
    fn run_first(&mut self, waiting: &Waiting, steps: usize) -> Result<()> {
        let session = self.session.clone();
        if steps == 0 {
            self.joined = no_outputs(session.contract(), &self.sizes);
            return Ok(());
        }
        self.run_chunk(&views(&waiting.first(session.contract(), steps)))
    }
}
