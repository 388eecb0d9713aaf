//! Blocks of any length: the part of a stream that keeps what is over between them.

use super::{Outputs, Stream};
use crate::tensor::View;
use crate::waiting::{no_outputs, views, Waiting};
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
    /// real. The outputs are those of these steps, the filled one included, as [`Stream::feed`] gives them.
    ///
    /// # Errors
    /// `engine-failed`; what waited waits.
    pub fn flush(&mut self) -> Result<Outputs<'_>> {
        let none = Waiting::none(self.session.contract());
        let waiting = std::mem::replace(&mut self.waiting, none);
        let steps = waiting.steps_to_flush(self.session.contract());
        if let Err(error) = self.run_first(&waiting, steps) {
            self.waiting = waiting;
            return Err(error);
        }
        Ok(if steps > 0 { self.chunk_outputs() } else { self.joined_outputs() })
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
