//! Tensors of a model whose values lie in other files: found wherever a tensor may stand, and read from the model's
//! own folder alone.
//!
//! Field numbers are those of onnx.proto.

use crate::model_file::{fields, text_entry, varint, Wire};
use crate::{Error, Result};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

/// Messages in messages, as protobuf reads them.
const DEEPEST: usize = 100;
/// How many tensors may share values, on average.
const SHARED: u64 = 4;
/// Bits of an entry by TensorProto.DataType; 0 for types without a size.
const BITS: [u64; 25] = [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8];

/// A kind of message that leads to tensors.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

/// The kind of message that field `number` of a message of another kind holds.
fn inside(outer: Kind, number: u64) -> Option<Kind> {
    match (outer, number) {
        (Kind::Model, 7) | (Kind::Training, 1 | 2) | (Kind::Attribute, 6 | 11) => Some(Kind::Graph),
        (Kind::Model, 20) => Some(Kind::Training),
        (Kind::Model, 25) => Some(Kind::Function),
        (Kind::Function, 7) | (Kind::Graph, 1) => Some(Kind::Node),
        (Kind::Function, 11) | (Kind::Node, 5) => Some(Kind::Attribute),
        (Kind::Graph, 15) | (Kind::Attribute, 22 | 23) => Some(Kind::Sparse),
        (Kind::Graph, 5) | (Kind::Attribute, 5 | 10) | (Kind::Sparse, 1 | 2) => Some(Kind::Tensor),
        _ => None,
    }
}

/// A tensor whose values lie in another file.
pub(crate) struct External {
    location: String,
    offset: u64,
    bytes: u64,
}

/// The external tensors of a model, in the order in which they stand in it. None where the bytes are no model.
///
/// # Errors
/// `external-data-refused` for what no such tensor may say.
pub(crate) fn external_tensors(model: &[u8]) -> Option<Result<Vec<External>>> {
    let mut found = Vec::new();
    let walked = walk(model, Kind::Model, DEEPEST, &mut found)?;
    Some(walked.map(|()| found))
}

fn walk(message: &[u8], kind: Kind, left: usize, found: &mut Vec<External>) -> Option<Result<()>> {
    if let Kind::Tensor = kind {
        return Some(read_tensor(message)?.map(|tensor| found.extend(tensor)));
    }
    for field in fields(message) {
        let (number, value) = field?;
        if let (Some(inner), Wire::Bytes(bytes)) = (inside(kind, number), value) {
            if let Err(refusal) = walk(bytes, inner, left.checked_sub(1)?, found)? {
                return Some(Err(refusal));
            }
        }
    }
    Some(Ok(()))
}

fn read_tensor(message: &[u8]) -> Option<Result<Option<External>>> {
    let (mut is_external, mut entries, mut bits) = (false, 1_u64, 0);
    let mut said: HashMap<&str, &str> = HashMap::new();
    for field in fields(message) {
        match field? {
            (1, Wire::Number(size)) => entries = times(entries, size),
            (1, Wire::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    entries = times(entries, varint(&mut packed)?);
                }
            }
            (2, Wire::Number(kind)) => {
                bits = usize::try_from(kind).ok().and_then(|kind| BITS.get(kind)).copied().unwrap_or(0);
            }
            (13, Wire::Bytes(entry)) => {
                is_external = true;
                said.extend([text_entry(entry)?]);
            }
            (13, Wire::Number(_)) | (14, Wire::Number(1)) => is_external = true,
            _ => {}
        }
    }
    if !is_external {
        return Some(Ok(None));
    }
    if bits == 0 {
        return Some(Err(refused("an external tensor of a dtype with a size", "one of another")));
    }
    Some(settle(&said, if entries > u64::MAX / 256 { u64::MAX } else { (entries * bits).div_ceil(8) }))
}

/// The tensor of `bytes` bytes, if that is what it says of itself.
fn settle(said: &HashMap<&str, &str>, bytes: u64) -> Result<Option<External>> {
    let size = |name: &str, default: u64| {
        let Some(text) = said.get(name) else { return Ok(default) };
        let digits = text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| {
            let expected = format!("a whole number of bytes as {name} of an external tensor");
            refused(expected, format!("'{}'", shown(text)))
        })
    };
    let (offset, length) = (size("offset", 0)?, size("length", bytes)?);
    if length != bytes {
        let expected = format!("an external tensor of {bytes} bytes, as its shape has");
        return Err(refused(expected, format!("length {length}")));
    }
    let location = said.get("location").copied().unwrap_or_default().to_owned();
    Ok(Some(External { location, offset, bytes }))
}

fn times(left: u64, right: u64) -> u64 {
    left.saturating_mul(right)
}

/// Hold tensors against the files in the folder of a model; `path` is None for one that is bytes alone.
///
/// # Errors
/// `external-data-missing` or `external-data-refused`.
pub(crate) fn check_external(tensors: &[External], path: Option<&Path>) -> Result<()> {
    let Some(first) = tensors.first() else { return Ok(()) };
    let Some(path) = path else { return Err(missing(&first.location, "bytes without a folder")) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut files: HashMap<&str, u64> = HashMap::new();
    for External { location, offset, bytes } in tensors {
        let size = match files.get(location.as_str()) {
            Some(size) => *size,
            None => size_of(folder, location)?,
        };
        files.insert(location, size);
        if *bytes > size || *offset > size - bytes {
            let expected = format!("{bytes} bytes from {offset} on in '{}'", shown(location));
            return Err(refused(expected, format!("a file of {size}")));
        }
    }
    // No sum leaves 64 bits: each part is at most the size of a file.
    let (held, wanted) = (files.values().sum(), tensors.iter().map(|tensor| tensor.bytes).sum::<u64>());
    if wanted > times(SHARED, held) {
        let expected = format!("at most {SHARED} times the {held} bytes of the files that hold it");
        return Err(refused(expected, wanted.to_string()));
    }
    Ok(())
}

/// The size of the plain file that a location names, with all links followed: none may lead out of the folder.
fn size_of(folder: &Path, location: &str) -> Result<u64> {
    let home_alone = "external data in a file of the model's folder";
    if leads_out(location) {
        return Err(refused(home_alone, format!("'{}'", shown(location))));
    }
    let absent = |error: std::io::Error| {
        let gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        missing(location, if gone { "no such file" } else { "one that cannot be read" })
    };
    let home = folder.canonicalize().map_err(absent)?;
    let place = home.join(location).canonicalize().map_err(absent)?;
    if !place.starts_with(&home) {
        return Err(refused(home_alone, format!("a link out of it: '{}'", shown(location))));
    }
    let found = place.metadata().map_err(absent)?;
    if !found.is_file() {
        return Err(refused(format!("a plain file at '{}'", shown(location)), "a folder, pipe or device"));
    }
    Ok(found.len())
}

/// Whether a location leads out of a folder by its words alone, in the ways of any system.
fn leads_out(location: &str) -> bool {
    location.is_empty()
        || location.contains('\0')
        || location.starts_with(['/', '\\'])
        || location.as_bytes().get(1) == Some(&b':')
        || location.split(['/', '\\']).any(|part| part == "..")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn missing(location: &str, found: &str) -> Error {
    Error::new(
        "external-data-missing",
        format!("the model's weights in '{}' beside it", shown(location)),
        found,
        "keep both files together and load the model by its path",
    )
}

fn refused(expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::new("external-data-refused", expected, found, "export the model again, or ask whoever made it")
}
