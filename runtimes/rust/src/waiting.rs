//! Entries that wait for a whole step: what `Stream::feed` was given and no step has taken yet.
//!
//! A step takes N entries along an `N*time` axis. Blocks of other lengths are joined here; what is over waits for
//! the next block, or for `flush`, which fills it up.

use crate::checks::{self, Given};
use crate::contract::{Contract, Input};
use crate::shape::{axis_index, Axis, Sizes};
use crate::tensor::{Tensor, View};
use crate::{Error, Result};

/// By input, in the order of the contract, in the shape of a chunk; of an input without time the latest value.
pub(crate) struct Waiting {
    values: Vec<Option<Tensor>>,
}

/// An input with time that was given: how many entries it has, and how many of them a step takes.
pub(crate) struct Timed<'a> {
    index: usize,
    pub(crate) input: &'a Input,
    axis: usize,
    factor: usize,
    pub(crate) entries: usize,
}

impl Waiting {
    pub(crate) fn none(contract: &Contract) -> Self {
        Self { values: vec![None; contract.inputs.len()] }
    }

    pub(crate) fn timed<'a>(&self, contract: &'a Contract) -> Vec<Timed<'a>> {
        let every = contract.inputs.iter().zip(&self.values).enumerate();
        every
            .filter_map(|(index, (input, value))| {
                let shape = contract.caller_shape(&input.spec, input.is_length, true);
                let axis = axis_index(&shape, "time")?;
                let entries = value.as_ref()?.shape()[axis];
                Some(Timed { index, input, axis, factor: shape[axis].factor(), entries })
            })
            .collect()
    }

    /// Steps that nobody gave, of which no entry is there yet; inputs without time are what they were.
    pub(crate) fn nothing(&self, contract: &Contract, sizes: &Sizes) -> Self {
        let values = contract.inputs.iter().zip(&self.values).map(|(input, value)| {
            let shape = contract.caller_shape(&input.spec, input.is_length, true);
            match axis_index(&shape, "time") {
                None => value.clone(),
                Some(_) => {
                    let shape = shape.iter().map(|axis| size_of(axis, sizes)).collect();
                    Some(Tensor::zeros(input.spec.dtype, shape))
                }
            }
        });
        Self { values: values.collect() }
    }

    /// Refuse what would take entries out of their order.
    pub(crate) fn require_none(&self, contract: &Contract) -> Result<()> {
        if self.values.iter().all(Option::is_none) {
            return Ok(());
        }
        match self.timed(contract).iter().find(|timed| timed.entries > 0) {
            None => Ok(()),
            Some(timed) => Err(Error::new(
                "entries-waiting",
                "no entries waiting for a whole step",
                format!("{} of '{}'", timed.entries, timed.input.spec.name),
                "flush first, or reset the whole stream",
            )),
        }
    }

    /// What waits with inputs behind it, checked as if it were run.
    pub(crate) fn joined(&self, contract: &Contract, given: &Given, sizes: &Sizes) -> Result<Self> {
        let kept = contract.inputs.iter().zip(&self.values).filter_map(|(input, value)| {
            let name = input.spec.name.as_str();
            value.as_ref().filter(|_| checks::find(given, name).is_none()).map(|value| (name, value.view()))
        });
        checks::check_names(contract, &given.iter().copied().chain(kept).collect::<Vec<_>>())?;
        let mut made = Self { values: self.values.clone() };
        for (index, input) in contract.inputs.iter().enumerate() {
            let Some(value) = checks::find(given, &input.spec.name) else { continue };
            if input.is_length {
                return Err(Error::new(
                    "feed-length",
                    "no lengths in feed, of which all entries count",
                    format!("'{}'", input.spec.name),
                    "leave it out, or give the whole sequence to run",
                ));
            }
            if value.dtype != input.spec.dtype {
                return Err(checks::wrong_dtype(&input.spec, &value));
            }
            let shape = contract.caller_shape(&input.spec, false, true);
            let before = self.values[index].as_ref();
            if !fits(&shape, &value, before, sizes) {
                return Err(checks::misfit(&input.spec, &shape, &value, sizes, true));
            }
            made.values[index] = Some(match (before, axis_index(&shape, "time")) {
                (Some(before), Some(axis)) => joined_along(axis, before, &value),
                _ => value.to_tensor(),
            });
        }
        let steps = made.steps_to_flush(contract);
        if steps > 0 {
            let taken = made.first(contract, steps);
            let views = views(&taken);
            checks::match_inputs(contract, &views, sizes, true)?;
            checks::check_values(contract, &views, steps)?;
        }
        Ok(made)
    }

    /// How many steps can be run: as many as the shortest of the inputs that were given has.
    pub(crate) fn whole_steps(&self, contract: &Contract) -> usize {
        self.timed(contract).iter().map(|timed| timed.entries / timed.factor).min().unwrap_or(0)
    }

    /// How many steps take all that waits, the last of them filled up.
    pub(crate) fn steps_to_flush(&self, contract: &Contract) -> usize {
        self.timed(contract).iter().map(|timed| timed.entries.div_ceil(timed.factor)).max().unwrap_or(0)
    }

    /// The inputs of the first steps, filled up with zeros, or what is nearest to 0 in a range.
    pub(crate) fn first<'a>(&self, contract: &'a Contract, steps: usize) -> Vec<(&'a str, Tensor)> {
        let mut taken = self.values.clone();
        for Timed { index, input, axis, factor, .. } in self.timed(contract) {
            let filling = input.range.map_or(0.0, |[least, largest]| least.max(0.0).min(largest));
            taken[index] = taken[index].as_ref().map(|value| cut(axis, value.view(), 0, steps * factor, filling));
        }
        let named = contract.inputs.iter().zip(taken);
        named.filter_map(|(input, value)| Some((input.spec.name.as_str(), value?))).collect()
    }

    /// What waits behind the first steps.
    pub(crate) fn without(&self, contract: &Contract, steps: usize) -> Self {
        let mut values = self.values.clone();
        for Timed { index, axis, factor, entries, .. } in self.timed(contract) {
            let begin = entries.min(steps * factor);
            values[index] = values[index].as_ref().map(|value| cut(axis, value.view(), begin, entries, 0.0));
        }
        Self { values }
    }
}

pub(crate) fn views<'a>(named: &'a [(&'a str, Tensor)]) -> Vec<(&'a str, View<'a>)> {
    named.iter().map(|(name, value)| (*name, value.view())).collect()
}

/// The outputs of no steps: those with time, of length 0. A size that only a run tells is 0.
pub(crate) fn no_outputs(contract: &Contract, sizes: &Sizes) -> Vec<Option<Tensor>> {
    let outputs = contract.outputs.iter().map(|spec| {
        let shape = contract.caller_shape(spec, false, true);
        axis_index(&shape, "time")?;
        Some(Tensor::zeros(spec.dtype, shape.iter().map(|axis| size_of(axis, sizes)).collect()))
    });
    outputs.collect()
}

/// The size of an axis; of what is not known, such as time, 0.
fn size_of(axis: &Axis, sizes: &Sizes) -> usize {
    match axis.name() {
        None => axis.factor(),
        Some(name) => axis.factor() * sizes.get(name).copied().unwrap_or(0),
    }
}

/// Whether a tensor has the axes of a chunk, of the sizes that are known; any number along time.
fn fits(shape: &[Axis], value: &View, before: Option<&Tensor>, sizes: &Sizes) -> bool {
    let wanted = |(index, axis): (usize, &Axis)| match axis.name() {
        None => Some(axis.factor()),
        Some("time") => None,
        Some(name) => sizes.get(name).copied().or(before.map(|before| before.shape()[index])),
    };
    value.shape.len() == shape.len()
        && value.bytes.len() == value.count() * value.dtype.size()
        && shape.iter().enumerate().map(wanted).zip(value.shape).all(|(size, actual)| size.is_none_or(|s| s == *actual))
}

/// Entries begin..end along an axis; where there are fewer, `filling` stands for them.
pub(crate) fn cut(axis: usize, value: View, begin: usize, end: usize, filling: f64) -> Tensor {
    let mut shape = value.shape.to_vec();
    shape[axis] = end - begin;
    let count = shape.iter().product();
    let mut made = Tensor::from_numbers(value.dtype, shape, std::iter::repeat_n(filling, count));
    let taken = end.min(value.shape[axis]).saturating_sub(begin);
    put(axis, &mut made, 0, value, begin, taken);
    made
}

pub(crate) fn joined_along(axis: usize, first: &Tensor, second: &View) -> Tensor {
    let (before, more) = (first.shape()[axis], second.shape[axis]);
    let mut made = cut(axis, first.view(), 0, before + more, 0.0);
    put(axis, &mut made, before, *second, 0, more);
    made
}

/// Copy `count` entries along an axis, from `begin` of `from` to `at` of `to`.
fn put(axis: usize, to: &mut Tensor, at: usize, from: View, begin: usize, count: usize) {
    let entry = from.shape[axis + 1..].iter().product::<usize>() * from.dtype.size();
    let (source, target) = (from.shape[axis] * entry, to.shape()[axis] * entry);
    for piece in 0..from.shape[..axis].iter().product() {
        let bytes = &from.bytes[piece * source + begin * entry..][..count * entry];
        to.bytes_mut()[piece * target + at * entry..][..count * entry].copy_from_slice(bytes);
    }
}
