import { checkNames, checkValues, given, matchInputs, misfit, wrongDType } from "./checks.js";
import { RnnxError } from "./error.js";
import { axisIndex, piecesOf } from "./shape.js";
import { Tensor } from "./tensor.js";

/**
 * @typedef {import("./checks.js").Inputs} Inputs
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./contract.js").Input} Input
 * @typedef {import("./shape.js").Sizes} Sizes
 */

/**
 * Entries that wait for a whole step: what `Stream.feed` was given and no step has taken yet. A step takes N entries
 * along an N*time axis; blocks of other lengths are joined here. Never changed.
 */
export class Waiting {
  #contract;
  #values;

  /**
   * @param {Contract} contract
   * @param {Readonly<Record<string, Tensor>>} [values] in the shape of a chunk; of inputs without time the latest
   */
  constructor(contract, values = {}) {
    this.#contract = contract;
    this.#values = values;
  }

  /** How many entries of each input wait, without those of which none does. */
  get counts() {
    const counts = this.#timed().map(({ name, entries }) => /** @type {[string, number]} */ ([name, entries]));
    return Object.fromEntries(counts.filter(([, entries]) => entries > 0));
  }

  /** Refuses what would take entries out of their order. */
  requireNone() {
    for (const [name, entries] of Object.entries(this.counts)) {
      throw new RnnxError(
        "entries-waiting",
        "no entries waiting for a whole step",
        `${entries} of '${name}'`,
        "flush first, or reset the whole stream",
      );
    }
  }

  /**
   * What waits with inputs behind it, checked as if it were run.
   * @param {Inputs} inputs
   * @param {Sizes} known of batch and the free dimensions that are bound
   */
  joined(inputs, known) {
    checkNames(this.#contract, { ...this.#values, ...inputs });
    const values = { ...this.#values };
    for (const input of this.#contract.inputs) {
      const value = given(inputs, input.name);
      if (value === undefined) continue;
      if (input.isLength) {
        throw new RnnxError(
          "feed-length",
          "no lengths in feed, of which all entries count",
          `'${input.name}'`,
          "leave it out, or give the whole sequence to run",
        );
      }
      const before = given(this.#values, input.name);
      if (value.dtype !== input.dtype) throw wrongDType(input, value);
      const shape = this.#contract.callerShape(input, true);
      if (!this.#fits(shape, value, before, known)) throw misfit(input, shape, value.shape, known, true);
      const axis = axisIndex(shape, "time");
      values[input.name] = before && axis >= 0 ? joinedAlong(axis, before, value) : value.clone();
    }
    const waiting = new Waiting(this.#contract, values);
    const steps = waiting.stepsToFlush;
    if (steps > 0) {
      const taken = waiting.first(steps);
      matchInputs(this.#contract, taken, known, true);
      checkValues(this.#contract, taken, steps);
    }
    return waiting;
  }

  /**
   * Steps that nobody gave, of which no entry is there yet; inputs without time are what they were.
   * @param {Sizes} known
   */
  nothing(known) {
    const values = { ...this.#values };
    for (const input of this.#contract.inputs) {
      const shape = this.#contract.callerShape(input, true);
      if (axisIndex(shape, "time") >= 0) values[input.name] = Tensor.full(input.dtype, sizesOf(shape, known));
    }
    return new Waiting(this.#contract, values);
  }

  /** How many steps can be run: as many as the shortest of the inputs that were given has. */
  get wholeSteps() {
    const steps = this.#timed().map(({ entries, factor }) => Math.floor(entries / factor));
    return steps.length === 0 ? 0 : Math.min(...steps);
  }

  /** How many steps take all that waits, the last of them filled up. */
  get stepsToFlush() {
    return Math.max(0, ...this.#timed().map(({ entries, factor }) => Math.ceil(entries / factor)));
  }

  /**
   * The inputs of the first steps, filled up with zeros, or what is nearest to 0 in a range.
   * @param {number} steps
   */
  first(steps) {
    const taken = { ...this.#values };
    for (const { name, input, axis, factor } of this.#timed()) {
      const { least, largest } = this.#rangeOf(input);
      taken[name] = cut(axis, taken[name], 0, steps * factor, Math.min(Math.max(0, least), largest));
    }
    return taken;
  }

  /**
   * What waits behind the first steps.
   * @param {number} steps
   */
  without(steps) {
    const left = { ...this.#values };
    for (const { name, axis, factor, entries } of this.#timed())
      left[name] = cut(axis, left[name], steps * factor, entries);
    return new Waiting(this.#contract, left);
  }

  /** Each input with time that was given: how many entries it has, and how many of them a step takes. */
  #timed() {
    return this.#contract.inputs.flatMap((input) => {
      const { name } = input;
      const shape = this.#contract.callerShape(input, true);
      const axis = axisIndex(shape, "time");
      const value = given(this.#values, name);
      if (value === undefined || axis < 0) return [];
      return [{ name, input, axis, factor: shape[axis].factor, entries: value.shape[axis] }];
    });
  }

  /**
   * @param {Input} input
   */
  #rangeOf(input) {
    const { vocabulary } = this.#contract;
    const [least, largest] = vocabulary?.input === input.name ? [0, 0] : (input.range ?? [0, 0]);
    return { least, largest };
  }

  /**
   * Whether a tensor has the axes of a chunk, of the sizes that are known; any number along time.
   * @param {readonly import("./shape.js").Axis[]} shape
   * @param {Tensor} value
   * @param {Tensor | undefined} before
   * @param {Sizes} known
   */
  #fits(shape, value, before, known) {
    const time = axisIndex(shape, "time");
    const wanted = shape.map(({ name, factor }, axis) => {
      const size = name === "" ? 1 : known.get(name);
      return size === undefined ? before?.shape[axis] : size * factor;
    });
    const isSize = (/** @type {number | undefined} */ size, /** @type {number} */ axis) =>
      axis === time || size === undefined || size === value.shape[axis];
    const count = value.shape.reduce((product, size) => product * size, 1);
    return value.shape.length === shape.length && count === value.data.length && wanted.every(isSize);
  }
}

/**
 * The outputs of no steps: those with time, of length 0. A size that only a run tells is 0.
 * @param {Contract} contract
 * @param {Sizes} known
 */
export function noOutputs(contract, known) {
  /** @type {Record<string, Tensor>} */
  const outputs = {};
  for (const spec of contract.outputs) {
    const shape = contract.callerShape(spec, true);
    if (axisIndex(shape, "time") < 0) continue;
    outputs[spec.name] = Tensor.full(spec.dtype, sizesOf(shape, known));
  }
  return outputs;
}

/**
 * A shape in numbers; of what is not known, such as time, 0.
 * @param {readonly import("./shape.js").Axis[]} shape
 * @param {Sizes} known
 */
function sizesOf(shape, known) {
  return shape.map(({ name, factor }) => factor * (name === "" ? 1 : name === "time" ? 0 : (known.get(name) ?? 0)));
}

/**
 * How many steps late outputs come, and which state says that a sequence is over; null if they do not.
 * @param {Contract} contract
 */
export function endOf(contract) {
  const late = Math.max(0, ...contract.outputs.map(({ delay }) => delay));
  if (late === 0) return null;
  const state = contract.states.findIndex(({ isEnd }) => isEnd);
  if (state >= 0) return { late, state };
  throw new RnnxError(
    "no-end",
    `a model that can give the last ${late} steps, which its outputs are late by`,
    "one whose network ends a sequence otherwise than with zeros",
    "do without them, or give the whole sequence to a model that was exported without delay",
  );
}

/**
 * Outputs of steps with those of the steps after them; of an output without time, the last.
 * @param {Contract} contract
 * @param {Readonly<Record<string, Tensor>>} first
 * @param {Readonly<Record<string, Tensor>>} then
 */
export function joinedOutputs(contract, first, then) {
  /** @type {Record<string, Tensor>} */
  const outputs = {};
  for (const spec of contract.outputs) {
    const axis = axisIndex(contract.callerShape(spec, true), "time");
    const before = given(first, spec.name);
    const last = then[spec.name];
    outputs[spec.name] = before && axis >= 0 ? joinedAlong(axis, before, last) : last;
  }
  return outputs;
}

/**
 * Entries begin..end-1 along an axis; where there are fewer, `filling` stands for them.
 * @param {number} axis
 * @param {Tensor} tensor
 * @param {number} begin
 * @param {number} end
 * @param {number} [filling]
 */
export function cut(axis, tensor, begin, end, filling = 0) {
  const from = piecesOf(tensor.shape, axis, 1);
  const last = Math.min(end, tensor.shape[axis]);
  const made = Tensor.full(tensor.dtype, tensor.shape.with(axis, Math.max(0, end - begin)), filling);
  if (last <= begin) return made;
  const to = piecesOf(made.shape, axis, 1);
  for (let piece = 0; piece < from.outer; piece++) {
    const start = piece * from.stride;
    const entries = tensor.data.subarray(start + begin * from.size, start + last * from.size);
    made.data.set(/** @type {any} */ (entries), piece * to.stride);
  }
  return made;
}

/**
 * Two tensors, one behind the other along an axis.
 * @param {number} axis
 * @param {Tensor} first
 * @param {Tensor} second
 */
function joinedAlong(axis, first, second) {
  const made = cut(axis, first, 0, first.shape[axis] + second.shape[axis]);
  const [from, to] = [piecesOf(second.shape, axis, 1), piecesOf(made.shape, axis, 1)];
  for (let piece = 0; piece < from.outer; piece++) {
    const entries = second.data.subarray(piece * from.stride, (piece + 1) * from.stride);
    made.data.set(/** @type {any} */ (entries), piece * to.stride + first.shape[axis] * to.size);
  }
  return made;
}
