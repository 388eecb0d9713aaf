import { shown } from "./checks.js";
import { RnnxError } from "./error.js";

const SMALLEST_SUM = 2 ** -1000;
const wrap = (/** @type {bigint} */ number) => BigInt.asUintN(64, number);

/**
 * Draws symbols from scores, the same in every language: splitmix64 (Steele, Lea, Flood 2014, "Fast splittable
 * pseudorandom number generators") and the inverse of a running sum.
 */
export class Sampler {
  /**
   * @param {number | bigint} seed unsigned 64 bit
   * @param {number} [temperature] 0 for the best symbol each time, 1 for the model's own probabilities
   * @throws {RnnxError} `seed-invalid` or `temperature-invalid`
   */
  constructor(seed, temperature = 1) {
    if ((typeof seed !== "bigint" && !Number.isSafeInteger(seed)) || wrap(BigInt(seed)) !== BigInt(seed)) {
      throw new RnnxError(
        "seed-invalid",
        "a seed in 0..18446744073709551615 (unsigned 64 bit)",
        String(seed),
        "choose a seed in that range",
      );
    }
    if (!Number.isFinite(temperature) || temperature < 0) {
      throw new RnnxError(
        "temperature-invalid",
        "a finite temperature of 0 or more",
        shown(temperature),
        "try 0.7; 0 always takes the best symbol",
      );
    }
    /** State of the generator: a sampler with it as its seed continues where this one stands. */
    this.state = BigInt(seed);
    this.temperature = temperature;
  }

  /** The next number of splitmix64. */
  nextUint64() {
    this.state = wrap(this.state + 0x9e3779b97f4a7c15n);
    let z = this.state;
    z = wrap((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = wrap((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  }

  /** The next u in [0, 1), a multiple of 2^-53. */
  uniform() {
    return Number(this.nextUint64() >> 11n) * 2 ** -53;
  }

  /**
   * Draws an index with probability proportional to its weight; it takes one number.
   * @param {ArrayLike<number>} weights [symbols]
   * @returns {number}
   * @throws {RnnxError} `weights-invalid`; no number is drawn then
   */
  sampleWeights(weights) {
    let [total, isValid] = [0, weights.length > 0];
    for (let index = 0; index < weights.length; index++) {
      total += weights[index]; // one after the other, so that the sums are the same in every language
      isValid &&= weights[index] >= 0;
    }
    if (!isValid || !(total >= SMALLEST_SUM) || total === Infinity) {
      throw new RnnxError(
        "weights-invalid",
        "weights [symbols], none negative, with a finite sum of at least 2^-1000",
        `shape [${weights.length}] with ${offender(weights)}`,
        "check what the weights were computed from",
      );
    }
    const threshold = this.uniform() * total;
    let [index, sum] = [0, weights[0]];
    // u is below 1, so that the last sum is above u times itself.
    while (!(sum > threshold)) sum += weights[++index];
    return index;
  }

  /**
   * Draws a symbol from its logits; it takes one number, or none at temperature 0.
   * @param {import("./tensor.js").Tensor} scores of any float dtype, [symbols]
   * @returns {number}
   * @throws {RnnxError} `scores-invalid` for NaN, plus infinity, or nothing to choose from
   */
  sample(scores) {
    const values = Float64Array.from({ length: scores.data.length }, (_, index) => scores.number(index));
    const highest = values.reduce((most, value) => (value > most ? value : most), -Infinity);
    if (values.some(Number.isNaN) || !Number.isFinite(highest)) {
      throw new RnnxError(
        "scores-invalid",
        "scores [symbols] below infinity with at least one finite",
        `shape [${values.length}] with ${offender(values)}`,
        "check the model's weights and inputs for NaN",
      );
    }
    if (this.temperature === 0) return values.indexOf(highest);
    return this.sampleWeights(values.map((score) => Math.exp((score - highest) / this.temperature)));
  }
}

/** @param {ArrayLike<number>} values */
function offender(values) {
  const numbers = Array.from(values);
  if (numbers.length === 0) return "no entries";
  const isWrong = [
    Number.isNaN,
    (/** @type {number} */ value) => value === Infinity,
    (/** @type {number} */ value) => value < 0,
  ];
  for (const test of isWrong) {
    const index = numbers.findIndex(test);
    if (index >= 0) return `${shown(numbers[index])} at index ${index}`;
  }
  return numbers.every((value) => value === 0) ? "all zero" : "a sum out of range";
}
