//! Shapes with named axes, and how those of a chunk, of one step and of the graph hang together.

use std::collections::BTreeMap;
use std::fmt;

/// Sizes of `batch`, `time` and the free dimensions, by name.
pub(crate) type Sizes = BTreeMap<String, usize>;

/// One dimension of a shape in a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// So many entries: `257`.
    Fixed(usize),
    /// As many entries as the name stands for: `batch`, `time`, or a free dimension.
    Named(String),
    /// `160*time`: an axis of which one step has that many entries.
    Multiple(usize),
}

impl Axis {
    /// The name of the axis, `time` for a multiple of it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::Named(name) => Some(name),
            Self::Multiple(_) => Some("time"),
        }
    }

    /// Entries for each 1 of what the name stands for.
    pub fn factor(&self) -> usize {
        match self {
            Self::Fixed(factor) | Self::Multiple(factor) => *factor,
            Self::Named(_) => 1,
        }
    }

    /// Parse `batch` or `160*time`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(factor) = text.strip_suffix("*time") {
            let digits = factor.bytes().all(|byte| byte.is_ascii_digit()) && !factor.starts_with('0');
            return factor.parse().ok().filter(|_| digits).map(Self::Multiple);
        }
        let mut letters = text.bytes();
        let first = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let all = first && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        all.then(|| Self::Named(text.into()))
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
            Self::Multiple(factor) => write!(f, "{factor}*time"),
        }
    }
}

/// Position of the axis called `name`.
pub(crate) fn axis_index(shape: &[Axis], name: &str) -> Option<usize> {
    shape.iter().position(|axis| axis.name() == Some(name))
}

/// `shape` in numbers; None if `sizes` lacks a name.
pub(crate) fn resolve(shape: &[Axis], sizes: &Sizes) -> Option<Vec<usize>> {
    let size = |axis: &Axis| Some(axis.factor() * axis.name().map_or(Some(1), |name| sizes.get(name).copied())?);
    shape.iter().map(size).collect()
}

/// The shape of one step: no `time` axis; an `N*time` axis has N entries there.
pub(crate) fn step_shape(shape: &[Axis]) -> Vec<Axis> {
    let kept = shape.iter().filter(|axis| **axis != Axis::Named("time".into()));
    kept.map(|axis| if let Axis::Multiple(factor) = axis { Axis::Fixed(*factor) } else { axis.clone() }).collect()
}

/// The shape of a chunk of a step model: time put in right after the batch, first without one.
pub(crate) fn with_time(shape: &[Axis]) -> Vec<Axis> {
    let mut shape = shape.to_vec();
    shape.insert(axis_index(&shape, "batch").map_or(0, |index| index + 1), Axis::Named("time".into()));
    shape
}

/// `sizes` with the names that `actual` settles, or None where it contradicts shape or sizes.
pub(crate) fn fit(shape: &[Axis], actual: &[usize], sizes: &Sizes) -> Option<Sizes> {
    if shape.len() != actual.len() {
        return None;
    }
    let mut known = sizes.clone();
    for (axis, &size) in shape.iter().zip(actual) {
        let factor = axis.factor();
        match axis.name() {
            None if size != factor => return None,
            None => {}
            Some(name) => {
                let count = *known.entry(name.into()).or_insert(size / factor);
                if count * factor != size {
                    return None;
                }
            }
        }
    }
    Some(known)
}

/// A shape for a message, with the sizes that are known: `[batch=2, 4*time, 3]`.
pub(crate) fn filled(shape: &[Axis], sizes: &Sizes) -> String {
    let part = |axis: &Axis| match axis.name().and_then(|name| sizes.get(name)) {
        Some(size) => format!("{axis}={}", axis.factor().saturating_mul(*size)),
        None => axis.to_string(),
    };
    format!("[{}]", join(shape.iter().map(part)))
}

pub(crate) fn join(parts: impl IntoIterator<Item = impl fmt::Display>) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

/// `float32[batch, 3]`: how a tensor is written in messages.
pub(crate) fn describe(dtype: &str, shape: impl IntoIterator<Item = impl fmt::Display>) -> String {
    format!("{dtype}[{}]", join(shape))
}

/// Where the values of one step lie in those of a chunk: `outer` pieces of `piece` bytes, every `stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slices {
    outer: usize,
    piece: usize,
    stride: usize,
}

impl Slices {
    /// Along `axis` of a tensor of `sizes`, `factor` entries a step.
    pub(crate) fn new(sizes: &[usize], axis: usize, factor: usize, entry_bytes: usize) -> Self {
        let inner = sizes[axis + 1..].iter().product::<usize>() * entry_bytes;
        Self { outer: sizes[..axis].iter().product(), piece: factor * inner, stride: sizes[axis] * inner }
    }

    /// Copy step `step` of `chunk` to `row`, which is contiguous.
    pub(crate) fn take(&self, chunk: &[u8], step: usize, row: &mut [u8]) {
        for (index, piece) in row.chunks_exact_mut(self.piece.max(1)).enumerate().take(self.outer) {
            piece.copy_from_slice(&chunk[index * self.stride + step * self.piece..][..self.piece]);
        }
    }

    /// Copy `row` to step `step` of `chunk`.
    pub(crate) fn put(&self, chunk: &mut [u8], step: usize, row: &[u8]) {
        for (index, piece) in row.chunks_exact(self.piece.max(1)).enumerate().take(self.outer) {
            chunk[index * self.stride + step * self.piece..][..self.piece].copy_from_slice(piece);
        }
    }
}
