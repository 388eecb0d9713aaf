//! Text from a model over symbols: encode, decode, and symbol after symbol, the same for the same seed.

use crate::contract::Vocabulary;
use crate::sampling::Sampler;
use crate::session::Session;
use crate::shape::{axis_index, resolve, Axis, Sizes, Slices};
use crate::snapshot::Sampling;
use crate::stream::Stream;
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Vocabulary {
    /// The ids of the characters of `text`; `what` it is stands in the message ("prompt").
    ///
    /// # Errors
    /// `character-outside-vocabulary`, naming the first such character and its position.
    pub fn encode(&self, text: &str, what: &str) -> Result<Vec<i64>> {
        let id = |(position, character): (usize, char)| {
            let found = self.symbols.iter().position(|symbol| *symbol == character);
            found.map(|id| id as i64).ok_or_else(|| {
                let code = u32::from(character);
                Error::new(
                    "character-outside-vocabulary",
                    format!("a {what} of the vocabulary's {} characters", self.symbols.len()),
                    format!("'{character}' (U+{code:04X}) at character {position} (from 0)"),
                    "leave it out or replace it; 'rnnx inspect MODEL --json' lists the vocabulary",
                )
            })
        };
        text.chars().enumerate().map(id).collect()
    }

    /// The text that `ids` stand for.
    ///
    /// # Errors
    /// `id-outside-vocabulary`, naming the first such id and its position.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let symbol = |(position, id): (usize, &i64)| {
            let symbol = usize::try_from(*id).ok().and_then(|id| self.symbols.get(id)).copied();
            symbol.ok_or_else(|| {
                Error::new(
                    "id-outside-vocabulary",
                    format!("ids in 0..{}", self.symbols.len().saturating_sub(1)),
                    format!("{id} at position {position} (from 0)"),
                    "use the ids of the vocabulary this model was trained with",
                )
            })
        };
        ids.iter().enumerate().map(symbol).collect()
    }
}

/// Text being made: a stream of batch 1, a sampler, and the scores that the next symbol is drawn from.
///
/// It is an iterator without an end: take as many symbols as you want.
pub struct TextStream {
    vocabulary: Vocabulary,
    stream: Stream,
    sampler: Sampler,
    /// Of the latest step; nothing is drawn from them yet. [symbols]
    scores: Option<Tensor>,
}

impl Session {
    /// Start a text; the same seed gives the same text in every language.
    ///
    /// # Errors
    /// `not-symbols` for a model without vocabulary, `temperature-invalid`.
    pub fn text(&self, seed: u64, temperature: f64) -> Result<TextStream> {
        let vocabulary = self.contract().vocabulary.clone().ok_or_else(|| {
            Error::new(
                "not-symbols",
                "a model with a vocabulary, to make text with",
                "one without, which takes arrays",
                "give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'",
            )
        })?;
        let sampler = Sampler::new(seed, temperature)?;
        Ok(TextStream { vocabulary, stream: self.stream()?, sampler, scores: None })
    }
}

impl TextStream {
    /// Run `text`, the prompt, through the model; its symbols draw no number.
    ///
    /// # Errors
    /// `character-outside-vocabulary`; nothing was run.
    pub fn read(&mut self, text: &str) -> Result<()> {
        let ids = self.vocabulary.encode(text, "prompt")?;
        if ids.is_empty() {
            return Ok(());
        }
        let session = self.stream.session().clone();
        let contract = session.contract();
        let given = contract.inputs.iter().find(|input| input.spec.name == self.vocabulary.input);
        let given = given.expect("a checked vocabulary names an input");
        let sizes = Sizes::from([("batch".into(), 1), ("time".into(), ids.len())]);
        let shape = resolve(&contract.caller_shape(&given.spec, false, true), &sizes).unwrap_or_default();
        let numbers = ids.iter().map(|id| *id as f64);
        let chunk = Tensor::from_numbers(given.spec.dtype, shape, numbers);
        let outputs = self.stream.run(&[(&self.vocabulary.input, chunk.view())])?;
        let taken = contract.outputs.iter().find(|spec| spec.name == self.vocabulary.output);
        let taken = taken.expect("a checked vocabulary names an output");
        let chunk = outputs.get(&taken.name)?;
        // The scores of the last step of the chunk.
        let mut last = Tensor::zeros(taken.dtype, vec![self.vocabulary.symbols.len()]);
        let axes = contract.caller_shape(taken, false, true);
        match axis_index(&axes, "time") {
            None => last.bytes_mut().copy_from_slice(chunk.bytes),
            Some(axis) => {
                let slices = Slices::new(chunk.shape(), axis, axes[axis].factor(), taken.dtype.size());
                slices.take(chunk.bytes, ids.len() - 1, last.bytes_mut());
            }
        }
        self.scores = Some(last);
        Ok(())
    }

    /// Draw the next symbol and run it as a step.
    ///
    /// # Errors
    /// `prompt-empty` if nothing was read yet, `scores-invalid`, or `engine-failed`; nothing changes then.
    pub fn write_one(&mut self) -> Result<char> {
        let scores = self.scores.as_mut().ok_or_else(|| {
            let fix = "give the characters the text should begin with";
            Error::new("prompt-empty", "a prompt of at least one character", "none", fix)
        })?;
        let before = self.sampler.clone();
        let drawn = self.sampler.sample(scores.view())?;
        // Run before it is given out, so that the scores always belong to the latest symbol given.
        match Self::step(&mut self.stream, &self.vocabulary, drawn, scores) {
            Ok(()) => Ok(self.vocabulary.symbols[drawn]),
            Err(error) => {
                self.sampler = before;
                Err(error)
            }
        }
    }

    fn step(stream: &mut Stream, vocabulary: &Vocabulary, drawn: usize, scores: &mut Tensor) -> Result<()> {
        let contract = stream.session().contract();
        let given = contract.inputs.iter().find(|input| input.spec.name == vocabulary.input);
        let spec = &given.expect("a checked vocabulary names an input").spec;
        let rank = spec.shape.iter().filter(|axis| **axis != Axis::Named("time".into())).count();
        let token = Tensor::from_numbers(spec.dtype, vec![1; rank], std::iter::once(drawn as f64));
        let outputs = stream.step(&[(&vocabulary.input, token.view())])?;
        scores.bytes_mut().copy_from_slice(outputs.get(&vocabulary.output)?.bytes);
        Ok(())
    }

    /// All that is needed to continue exactly here, sampling included.
    ///
    /// # Errors
    /// As [`Stream::snapshot`].
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let sampling = self.scores.as_ref().map(|scores| Sampling {
            generator: vec![self.sampler.state()],
            temperature: vec![self.sampler.temperature()],
            scores: scores.clone().reshaped([1, self.vocabulary.symbols.len()]),
        });
        self.stream.snapshot_with(sampling.as_ref())
    }

    /// Continue where a snapshot was made, with its generator and temperature if it has them.
    ///
    /// # Errors
    /// As [`Stream::restore`].
    pub fn restore(&mut self, data: &[u8]) -> Result<()> {
        let sampling = self.stream.restore_with(data)?;
        self.scores = None;
        if let Some(Sampling { generator, temperature, scores }) = sampling {
            self.sampler = Sampler::new(generator[0], temperature[0])?;
            self.scores = Some(scores.reshaped([self.vocabulary.symbols.len()]));
        }
        Ok(())
    }
}

impl Iterator for TextStream {
    type Item = Result<char>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.write_one())
    }
}
