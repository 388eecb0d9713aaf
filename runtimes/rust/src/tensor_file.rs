//! safetensors bytes, written in one fixed order and read with care: what traces and snapshots are stored as.

use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;

const LARGEST_HEADER: u64 = 100_000_000; // the format's own limit

/// What a safetensors file holds, in the order of its header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: Vec<(String, Tensor)>,
    /// Text by name.
    pub metadata: HashMap<String, String>,
}

/// Which file of ours a safetensors file is to be.
pub(crate) struct Kind {
    pub(crate) what: &'static str,
    pub(crate) name: &'static str,
    /// `not-a-NAME`, `NAME-newer`, `NAME-of-another-model`
    pub(crate) codes: [&'static str; 3],
}

impl TensorFile {
    /// Read safetensors bytes; `what` they should be stands in the message ("a trace").
    ///
    /// # Errors
    /// `not-safetensors` for anything that is not whole and well formed.
    pub fn decode(data: &[u8], what: &str) -> Result<Self> {
        decode(data).map_err(|reason| {
            Error::new(
                "not-safetensors",
                format!("{what}, in safetensors format"),
                format!("{} bytes that are not: {reason}", data.len()),
                "check the path; if the file was copied, copy it again whole",
            )
        })
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// The names of all tensors, for a message.
    pub(crate) fn names(&self) -> String {
        match self.tensors.as_slice() {
            [] => "no tensors".into(),
            tensors => crate::shape::join(tensors.iter().map(|(name, _)| name)),
        }
    }

    /// Check that the file is of `kind` in version 1, and belongs to the model at hand.
    pub(crate) fn check(&self, kind: &Kind, model_id: &str) -> Result<()> {
        let Kind { what, name, codes } = kind;
        let text = |key: &str| self.metadata.get(key).map_or("", String::as_str);
        let version = text("version");
        let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        if text("format") != format!("rnnx-{name}") || !is_number {
            return Err(Error::new(
                codes[0],
                format!("{what} (metadata format 'rnnx-{name}' and a version)"),
                format!("safetensors of format '{}'", text("format")),
                format!("name a {name} that rnnx wrote"),
            ));
        }
        if version.trim_start_matches('0').len() > 1 || version.parse::<u64>().is_ok_and(|version| version > 1) {
            let expected = format!("{what} of version 1 at most");
            return Err(Error::new(codes[1], expected, format!("version {version}"), "install a newer rnnx"));
        }
        if text("model") != model_id {
            let found = format!("one of {}", self.metadata.get("model").map_or("no model", String::as_str));
            let fix = "use the model file that it was made with";
            return Err(Error::new(codes[2], format!("{what} of the model {model_id}"), found, fix));
        }
        Ok(())
    }
}

/// safetensors bytes: tensors in the order given, largest entries first so that all are aligned.
pub(crate) fn encode(tensors: &[(String, &Tensor)], metadata: &[(&str, String)]) -> Vec<u8> {
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size()));
    let texts = metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str())));
    let mut header = Map::from_iter([("__metadata__".to_owned(), Value::Object(texts.collect()))]);
    let mut end = 0;
    for (name, tensor) in &sorted {
        let start = end;
        end += tensor.bytes().len();
        let entry = [
            ("dtype".to_owned(), Value::from(tensor.dtype().code())),
            ("shape".to_owned(), Value::from(tensor.shape().to_vec())),
            ("data_offsets".to_owned(), Value::from(vec![start, end])),
        ];
        header.insert(name.clone(), Value::Object(Map::from_iter(entry)));
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut data = (text.len() as u64).to_le_bytes().to_vec();
    data.extend(text.bytes());
    for (_, tensor) in sorted {
        let start = data.len();
        data.extend(tensor.bytes());
        to_little_endian(&mut data[start..], tensor.dtype());
    }
    data
}

/// Turn entries around on machines that are not little-endian; works both ways.
fn to_little_endian(bytes: &mut [u8], dtype: DType) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
}

fn decode(data: &[u8]) -> std::result::Result<TensorFile, String> {
    let (size, rest) = data.split_first_chunk::<8>().ok_or("too short for a header")?;
    let size = u64::from_le_bytes(*size);
    if size > (rest.len() as u64).min(LARGEST_HEADER) {
        return Err("cut short in the header".into());
    }
    let (header, body) = rest.split_at(size as usize);
    let malformed = |kind: &str| format!("a malformed header ({kind})");
    let header: Value = serde_json::from_slice(header).map_err(|_| malformed("no JSON"))?;
    let header = header.as_object().ok_or_else(|| malformed("no object"))?;
    let (mut file, mut used, mut total) = (TensorFile::default(), 0, 0);
    for (name, entry) in header {
        if name == "__metadata__" {
            for (key, value) in entry.as_object().ok_or_else(|| malformed("no object"))? {
                let text = value.as_str().ok_or("metadata that is not text")?;
                file.metadata.insert(key.clone(), text.into());
            }
            continue;
        }
        let dtype = entry["dtype"].as_str().and_then(DType::from_code).ok_or_else(|| malformed("no dtype"))?;
        let numbers = |key: &str| entry[key].as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>();
        let shape = numbers("shape").ok_or_else(|| malformed("no shape"))?;
        let offsets = numbers("data_offsets").ok_or_else(|| malformed("no offsets"))?;
        let [start, end] = *offsets.as_slice() else { return Err(malformed("no offsets")) };
        let count = shape.iter().try_fold(dtype.size() as u64, |count, size| count.checked_mul(*size));
        if end.checked_sub(start) != count {
            return Err(format!("tensor '{name}' of another size than its shape"));
        }
        if end > body.len() as u64 {
            return Err(format!("cut short in tensor '{name}'"));
        }
        // Every byte belongs to one tensor, so that a file costs what it is long.
        total += end - start;
        if total > body.len() as u64 {
            return Err("tensors that share bytes".into());
        }
        let mut tensor = Tensor::zeros(dtype, shape.iter().map(|size| *size as usize).collect());
        let bytes = tensor.bytes_mut();
        bytes.copy_from_slice(&body[start as usize..end as usize]);
        to_little_endian(bytes, dtype);
        if dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0)); // as Rust and the engine want it
        }
        file.tensors.push((name.clone(), tensor));
        used = used.max(end as usize);
    }
    match body.len() - used {
        0 if total < body.len() as u64 => Err("bytes between tensors".into()),
        0 => Ok(file),
        left => Err(format!("{left} bytes behind the last tensor")),
    }
}
