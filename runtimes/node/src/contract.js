import { isHeld } from "./constant.js";
import { RnnxError } from "./error.js";
import { axisIndex, describe, stepShape, withTime } from "./shape.js";
import { isFloat, roundToEven } from "./tensor.js";

/**
 * @typedef {import("./shape.js").Axis} Axis
 * @typedef {import("./tensor.js").DType} DType
 * @typedef {import("./constant.js").Constant} Constant
 * @typedef {import("./vocabulary.js").Vocabulary} Vocabulary
 */

/** A tensor of the model: name, dtype, and shape with named axes. */
export class Spec {
  /**
   * @param {string} name
   * @param {DType} dtype
   * @param {readonly Axis[]} shape
   */
  constructor(name, dtype, shape) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    /** Of an output: how many steps late it comes. */
    this.delay = 0;
  }

  /**
   * The shape of one step in numbers. Names that `sizes` lacks count as 1.
   * @param {Record<string, number>} [sizes]
   */
  stepShape(sizes = {}) {
    return stepShape(this.shape).map(({ name, factor }) => factor * (sizes[name] ?? 1));
  }

  /**
   * The shape of a chunk of a model with time, in numbers. Other names that `sizes` lacks count as 1.
   * @param {number} steps
   * @param {Record<string, number>} [sizes]
   */
  chunkShape(steps, sizes = {}) {
    return this.shape.map(({ name, factor }) => factor * (name === "time" ? steps : (sizes[name] ?? 1)));
  }
}

/** What the caller gives. */
export class Input extends Spec {
  /** @type {Constant | null} what stands in for the input if it is left out */
  default = null;
  /** Whether it counts the valid steps of each row. */
  isLength = false;
  /** @type {[number, number] | null} what it was made for: other integers are refused, floats not */
  range = null;

  /** Whether a caller has to give the input. */
  get isRequired() {
    return this.default === null && !this.isLength;
  }

  /** The range that integers are held to: that of floats says only what to test with. */
  get bounds() {
    return isFloat(this.dtype) ? null : this.range;
  }
}

/** What is carried from one step to the next. */
export class State extends Spec {
  /**
   * @param {Spec} spec
   * @param {string} input the graph input that takes its value
   * @param {string} output the graph output that gives its next value
   * @param {Constant} initial
   */
  constructor(spec, input, output, initial) {
    super(spec.name, spec.dtype, spec.shape);
    /** Whether 1 in it says that the sequence is over. */
    this.isEnd = false;
    this.input = input;
    this.output = output;
    this.initial = initial;
  }
}

/** What a model takes, gives and carries; see docs/contract.md. Leave it as it is. */
export class Contract {
  id = "";
  name = "";
  /** @type {Input[]} */
  inputs = [];
  /** @type {Spec[]} */
  outputs = [];
  /** @type {State[]} */
  states = [];
  /** @type {number | null} */
  stepsPerSecond = null;
  /** @type {string | null} the reason why the model takes only whole sequences */
  wholeOnly = null;
  /** @type {Vocabulary | null} */
  vocabulary = null;
  /** @type {Record<string, unknown>} what the author handed on, as it is */
  user = {};

  /** Whether the graph itself has a time axis. Without one it is a step model. */
  get hasTime() {
    return this.inputs.some(({ shape }) => axisIndex(shape, "time") >= 0);
  }

  /** Whether several sequences can run side by side. */
  get hasBatch() {
    return [...this.inputs, ...this.states].some(({ shape }) => axisIndex(shape, "batch") >= 0);
  }

  /** The names, other than batch and time, that inputs and states have, in order. */
  get freeDimensions() {
    const names = [...this.inputs, ...this.states].flatMap(({ shape }) => shape.map(({ name }) => name));
    return [...new Set(names)].filter((name) => !["", "batch", "time"].includes(name));
  }

  /**
   * The shape of an input or output as a caller sees it: of a chunk, else of a step.
   * @param {Spec} spec
   * @param {boolean} isChunk
   */
  callerShape(spec, isChunk) {
    if (!isChunk) return stepShape(spec.shape);
    return this.hasTime || (spec instanceof Input && spec.isLength) ? spec.shape : withTime(spec.shape);
  }

  /**
   * Whether each step of a chunk has its own value of a spec; else one value holds for the chunk.
   * @param {Spec} spec
   */
  isStepped(spec) {
    return axisIndex(this.callerShape(spec, true), "time") >= 0;
  }

  /** Checks what the types cannot say. Throws `contract-invalid`. */
  check() {
    const { inputs, outputs, states } = this;
    checkNames("input", [...inputs.map(({ name }) => name), ...states.map(({ input }) => input)]);
    checkNames("output", [...outputs.map(({ name }) => name), ...states.map(({ output }) => output)]);
    checkNames(
      "state",
      states.map(({ name }) => name),
    );
    for (const { name, shape } of [...inputs, ...outputs, ...states]) {
      for (const reserved of ["batch", "time"]) {
        if (shape.filter((axis) => axis.name === reserved).length > 1)
          throw invalid(`'${name}' has two ${reserved} axes`);
      }
    }
    for (const state of states) {
      if (axisIndex(state.shape, "time") >= 0) throw invalid(`state '${state.name}' has a time axis`);
      if (!state.initial.fits(state.dtype, state.shape)) throw misfitting(state);
    }
    for (const input of inputs) {
      checkRange(input, this.vocabulary?.input === input.name);
      checkDefault(input);
      const isAlone = input.shape.length === 0 || (input.shape.length === 1 && input.shape[0].name === "batch");
      if (input.isLength && (input.dtype !== "int64" || !isAlone)) {
        throw invalid(`length input '${input.name}' is ${describe(input.dtype, input.shape)}, not int64[batch]`);
      }
    }
    this.vocabulary?.check(this);
  }
}

/**
 * @param {string} kind
 * @param {string[]} names
 */
function checkNames(kind, names) {
  const seen = new Set();
  for (const name of names) {
    if (name === "") throw invalid(`an ${kind} without a name`);
    if (seen.has(name)) throw invalid(`two entries for ${kind} '${name}'`);
    seen.add(name);
  }
}

/**
 * @param {Input} input
 * @param {boolean} takesSymbols
 */
function checkRange({ name, dtype, isLength, range }, takesSymbols) {
  if (range === null) return;
  const taken = dtype === "bool" ? "truth values" : isLength ? "lengths" : takesSymbols ? "symbols" : null;
  if (taken !== null) throw invalid(`a range of '${name}', which takes ${taken}`);
  // Of integers whole and below 2^53, where a number is exact.
  const isBound = isFloat(dtype)
    ? Number.isFinite
    : (/** @type {number} */ number) => Number.isSafeInteger(number) && isHeld(dtype, number);
  if (!range.every(isBound) || range[0] > range[1]) {
    throw invalid(`a range of '${name}' that is not the least and the largest of ${dtype}`);
  }
}

/** @param {Input} input */
function checkDefault(input) {
  if (input.default === null) return;
  const [least, largest] = input.bounds ?? [-Infinity, Infinity];
  const isInside = (/** @type {number} */ number) => least <= roundToEven(number) && roundToEven(number) <= largest;
  if (
    !input.default.fits(input.dtype, input.shape) ||
    (input.bounds !== null && !input.default.numbers.every(isInside))
  ) {
    throw misfitting(input);
  }
}

/** @param {Spec} spec */
export function misfitting({ name, dtype, shape }) {
  return invalid(`initial or default of '${name}' does not fit ${describe(dtype, shape)}`);
}

/** @param {string} found */
export function invalid(found) {
  return new RnnxError(
    "contract-invalid",
    "a contract as docs/contract.md describes",
    found,
    "export the model again with 'rnnx export'",
  );
}
