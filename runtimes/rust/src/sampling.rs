//! Drawing symbols from scores, the same in every language: splitmix64 and the inverse of a running sum.
//!
//! Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".

use crate::checks::shown;
use crate::tensor::View;
use crate::{Error, Result};

const SMALLEST_SUM: f64 = f64::from_bits(23 << 52); // 2^-1000

/// A generator and a temperature: draws one symbol after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    state: u64,
    temperature: f64,
    /// Kept between draws, so that a draw allocates nothing.
    weights: Vec<f64>,
}

impl Sampler {
    /// A sampler with a seed, and a temperature: 0 for the best symbol each time, 1 for the model's own
    /// probabilities, more for more variety.
    ///
    /// # Errors
    /// `temperature-invalid`.
    pub fn new(seed: u64, temperature: f64) -> Result<Self> {
        if temperature.is_finite() && temperature >= 0.0 {
            return Ok(Self { state: seed, temperature, weights: Vec::new() });
        }
        Err(Error::new(
            "temperature-invalid",
            "a finite temperature of 0 or more",
            shown(temperature),
            "try 0.7; 0 always takes the best symbol",
        ))
    }

    /// The generator's state; a sampler made with it as its seed continues where this one stands.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// The temperature.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The next number of splitmix64.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next u in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draw an index with probability proportional to its weight; takes one number.
    ///
    /// # Errors
    /// `weights-invalid`; no number is drawn then.
    pub fn sample_weights(&mut self, weights: &[f64]) -> Result<usize> {
        // One after the other, so that the sums are the same in every language.
        let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
        let is_valid = weights.iter().all(|weight| *weight >= 0.0);
        if !is_valid || !(SMALLEST_SUM..f64::INFINITY).contains(&total) {
            return Err(Error::new(
                "weights-invalid",
                "weights [symbols], none negative, with a finite sum of at least 2^-1000",
                format!("shape [{}] with {}", weights.len(), offender(weights.iter().copied())),
                "check what the weights were computed from",
            ));
        }
        let threshold = self.uniform() * total;
        let mut sum = 0.0;
        let above = weights.iter().position(|weight| {
            sum += weight;
            sum > threshold
        });
        Ok(above.expect("u is below 1, so that the last sum is above u times itself"))
    }

    /// Draw a symbol from its logits, of any float dtype; takes one number, or none at temperature 0.
    ///
    /// # Errors
    /// `scores-invalid` for NaN, plus infinity, or nothing to choose from.
    pub fn sample(&mut self, scores: View<'_>) -> Result<usize> {
        let count = scores.count();
        let (mut highest, mut best, mut is_nan) = (f64::NEG_INFINITY, 0, false);
        for index in 0..count {
            let score = scores.number(index);
            is_nan |= score.is_nan();
            if score > highest {
                (highest, best) = (score, index);
            }
        }
        if is_nan || !highest.is_finite() {
            return Err(Error::new(
                "scores-invalid",
                "scores [symbols] below infinity with at least one finite",
                format!("shape [{count}] with {}", offender((0..count).map(|index| scores.number(index)))),
                "check the model's weights and inputs for NaN",
            ));
        }
        if self.temperature == 0.0 {
            return Ok(best);
        }
        let mut weights = std::mem::take(&mut self.weights);
        weights.clear();
        weights.extend((0..count).map(|index| ((scores.number(index) - highest) / self.temperature).exp()));
        let drawn = self.sample_weights(&weights);
        self.weights = weights;
        drawn
    }
}

fn offender(values: impl Iterator<Item = f64> + Clone) -> String {
    if values.clone().next().is_none() {
        return "no entries".into();
    }
    let wrongs: [fn(&f64) -> bool; 3] = [|value| value.is_nan(), |value| *value == f64::INFINITY, |value| *value < 0.0];
    for is_wrong in wrongs {
        if let Some((index, value)) = values.clone().enumerate().find(|(_, value)| is_wrong(value)) {
            let value = if value.is_finite() { format!("{value:?}") } else { shown(value) };
            return format!("{value} at index {index}");
        }
    }
    if values.clone().all(|value| value == 0.0) { "all zero" } else { "a sum out of range" }.into()
}
