//! Snapshots: all that is needed to continue a stream elsewhere, in one layout for all languages.

use crate::checks::nan_in;
use crate::contract::Contract;
use crate::shape::{describe, fit, Sizes};
use crate::tensor::Tensor;
use crate::tensor_file::{encode, Kind, TensorFile};
use crate::{Error, Result};

const KIND: Kind = Kind {
    what: "a snapshot",
    name: "snapshot",
    codes: ["not-a-snapshot", "snapshot-newer", "snapshot-of-another-model"],
};

/// Where sampling stopped, one entry for each row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    pub(crate) generator: Vec<u64>,
    pub(crate) temperature: Vec<f64>,
    /// [batch, symbols], in the dtype of the vocabulary's output.
    pub(crate) scores: Tensor,
}

/// The content of a snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) position: u64,
    /// In the order of the contract.
    pub(crate) states: Vec<Tensor>,
    pub(crate) sampling: Option<Sampling>,
}

impl Snapshot {
    pub(crate) fn encode(&self, contract: &Contract) -> Vec<u8> {
        let names = contract.states.iter().map(|state| format!("state.{}", state.spec.name));
        let mut tensors: Vec<_> = names.zip(&self.states).collect();
        let rows = self.sampling.as_ref().map(|sampling| {
            let batch = vec![sampling.generator.len()];
            let generator = Tensor::new(batch.clone(), &sampling.generator);
            (generator, Tensor::new(batch, &sampling.temperature), &sampling.scores)
        });
        if let Some((generator, temperature, scores)) = &rows {
            tensors.push(("sampling.generator".into(), generator));
            tensors.push(("sampling.temperature".into(), temperature));
            tensors.push(("sampling.scores".into(), scores));
        }
        let metadata = [
            ("format", "rnnx-snapshot".to_owned()),
            ("version", "1".to_owned()),
            ("model", contract.id.clone()),
            ("position", self.position.to_string()),
        ];
        encode(&tensors, &metadata)
    }

    /// Read a snapshot and check it against the model and the sizes of the stream it is for.
    pub(crate) fn decode(data: &[u8], contract: &Contract, sizes: &Sizes) -> Result<Self> {
        let file = TensorFile::decode(data, KIND.what)?;
        file.check(&KIND, &contract.id)?;
        let position = file.metadata.get("position").map_or("", String::as_str);
        let number = position.parse().ok().filter(|_| position.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.ok_or_else(|| invalid("a position in decimal", format!("'{position}'")))?;
        let mut known = sizes.clone();
        let mut states = Vec::new();
        for state in &contract.states {
            let spec = &state.spec;
            let tensor = file.get(&format!("state.{}", spec.name));
            let tensor = tensor.ok_or_else(|| invalid(format!("a tensor 'state.{}'", spec.name), file.names()))?;
            let fitted = fit(&spec.shape, tensor.shape(), &known).filter(|_| tensor.dtype() == spec.dtype);
            known = fitted.ok_or_else(|| {
                let size = |axis: &crate::Axis| {
                    axis.name().and_then(|name| known.get(name)).map_or(axis.to_string(), usize::to_string)
                };
                let wanted = describe(spec.dtype.name(), spec.shape.iter().map(size));
                let found = describe(tensor.dtype().name(), tensor.shape());
                invalid(format!("state '{}' as {wanted}", spec.name), found)
            })?;
            // One engine keeps NaN, another takes it for a number.
            if let Some(place) = nan_in(&tensor.view()).filter(|_| !state.initial.numbers.iter().any(|it| it.is_nan()))
            {
                let expected = format!("a snapshot with state '{}' without NaN", spec.name);
                let fix = "take an earlier snapshot: when this one was written, the network had overflowed already";
                return Err(Error::new("snapshot-invalid", expected, place, fix));
            }
            states.push(tensor.clone());
        }
        Ok(Self { position: number, states, sampling: sampling(&file, contract, known["batch"])? })
    }
}

/// The three sampling tensors, which are there together or not at all.
fn sampling(file: &TensorFile, contract: &Contract, batch: usize) -> Result<Option<Sampling>> {
    let Some(vocabulary) = contract.vocabulary.as_ref().filter(|_| file.get("sampling.generator").is_some()) else {
        return Ok(None);
    };
    let take = |name: &str, shape: Vec<usize>, is_kind: fn(&Tensor) -> bool| {
        let tensor = file.get(name);
        let found = tensor.map_or("none".into(), |tensor| describe(tensor.dtype().name(), tensor.shape()));
        let fits = tensor.filter(|tensor| tensor.shape() == shape && is_kind(tensor));
        fits.cloned().ok_or_else(|| invalid(format!("a tensor '{name}' of shape {shape:?}"), found))
    };
    let generator = take("sampling.generator", vec![batch], |tensor| tensor.as_slice::<u64>().is_ok())?;
    let temperature = take("sampling.temperature", vec![batch], |tensor| tensor.as_slice::<f64>().is_ok())?;
    let shape = vec![batch, vocabulary.symbols.len()];
    let scores = take("sampling.scores", shape, |tensor| tensor.dtype().is_float())?;
    let dtype = contract.outputs.iter().find(|spec| spec.name == vocabulary.output).map(|spec| spec.dtype);
    if dtype != Some(scores.dtype()) {
        let wanted = dtype.map_or("", crate::DType::name);
        return Err(invalid(format!("a tensor 'sampling.scores' as {wanted}"), scores.dtype().name().to_owned()));
    }
    Ok(Some(Sampling {
        generator: generator.as_slice()?.to_vec(),
        temperature: temperature.as_slice()?.to_vec(),
        scores,
    }))
}

fn invalid(expected: impl AsRef<str>, found: String) -> Error {
    let expected = format!("a snapshot with {}", expected.as_ref());
    let fix = "open the stream with the batch and dims that the snapshot was made with";
    Error::new("snapshot-invalid", expected, found, fix)
}
