import { RnnxError } from "./error.js";
import { axisIndex, describe, filled, fit, resolve } from "./shape.js";
import { Tensor, count, isFloat, isSame } from "./tensor.js";

/**
 * What a caller hands in is held against the contract before the engine sees it: engines read out of bounds, or abort
 * the process, on values that do not fit.
 *
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./contract.js").Input} Input
 * @typedef {import("./contract.js").Spec} Spec
 * @typedef {import("./shape.js").Axis} Axis
 * @typedef {import("./shape.js").Sizes} Sizes
 *
 * Tensors by name. An input that is undefined counts as left out.
 * @typedef {Readonly<Record<string, Tensor | undefined>>} Inputs
 */

/**
 * The sizes a stream is opened with, batch included.
 * @param {Contract} contract
 * @param {number} batch
 * @param {Readonly<Record<string, number>>} dims
 * @returns {Sizes}
 */
export function openSizes(contract, batch, dims) {
  const free = contract.freeDimensions;
  for (const name of Object.keys(dims).sort()) {
    if (!free.includes(name)) throw unknown("dimension", name, free);
    if (!isSize(dims[name])) {
      throw new RnnxError("wrong-dimension", `${name} as a number of 1 or more`, shown(dims[name]), "change it");
    }
  }
  if (!isSize(batch)) throw new RnnxError("empty-batch", "batch as a number of 1 or more", shown(batch), "change it");
  if (batch !== 1 && !contract.hasBatch) {
    throw new RnnxError(
      "no-batch",
      "batch 1, since the model has no batch axis",
      shown(batch),
      "open one stream per sequence, or export with a batch axis",
    );
  }
  const known = new Map([...Object.entries(dims), ["batch", batch]]);
  for (const { name, shape } of contract.states) {
    const missing = shape.find((axis) => axis.name !== "" && !known.has(axis.name));
    if (missing !== undefined) {
      throw new RnnxError(
        "missing-dimension",
        `the size of '${missing.name}', which state '${name}' has`,
        `dims with ${Object.keys(dims).sort().join(", ") || "nothing"}`,
        "bind it when opening the stream",
      );
    }
  }
  return known;
}

/** @param {unknown} size */
const isSize = (size) => Number.isSafeInteger(size) && /** @type {number} */ (size) >= 1;

/**
 * The size of every dimension, once names, dtypes and shapes fit: of a chunk, else of one step.
 * @param {Contract} contract
 * @param {Inputs} inputs
 * @param {Sizes} opened
 * @param {boolean} isChunk
 * @returns {Sizes}
 */
export function matchInputs(contract, inputs, opened, isChunk) {
  checkNames(contract, inputs);
  let known = isChunk ? opened : new Map([...opened, ["time", 1]]);
  for (const input of contract.inputs) {
    const tensor = given(inputs, input.name);
    if (tensor === undefined) continue;
    if (tensor.dtype !== input.dtype) throw wrongDType(input, tensor);
    const shape = contract.callerShape(input, isChunk);
    const fitted = fit(shape, tensor.shape, known);
    if (fitted === null || count(tensor.shape) === 0) throw misfit(input, shape, tensor.shape, known, isChunk);
    known = fitted;
    checkCount(input, shape, tensor, known);
  }
  for (const name of ["time", ...contract.freeDimensions]) {
    if (known.has(name)) continue;
    throw new RnnxError(
      "missing-dimension",
      `an input that tells the size of '${name}'`,
      "none given that has such an axis",
      name === "time" ? "give one of the optional inputs" : "bind it when opening the stream",
    );
  }
  return known;
}

/**
 * The tensor given for an input, or undefined.
 * @param {Inputs} inputs
 * @param {string} name
 */
export const given = (inputs, name) => (Object.hasOwn(inputs, name) ? inputs[name] : undefined);

/**
 * @param {Contract} contract
 * @param {Inputs} inputs
 */
export function checkNames(contract, inputs) {
  if (typeof inputs !== "object" || inputs === null) throw new TypeError("inputs must be an object of tensors by name");
  for (const name of Object.keys(inputs).sort()) {
    if (!contract.inputs.some((input) => input.name === name)) {
      throw unknown(
        "input",
        name,
        contract.inputs.map((input) => input.name),
      );
    }
    if (inputs[name] !== undefined) checkTensor(name, inputs[name]);
  }
  const needed = contract.inputs.filter(({ isRequired }) => isRequired).map(({ name }) => name);
  const missing = needed.find((name) => given(inputs, name) === undefined);
  if (missing !== undefined) {
    throw new RnnxError(
      "missing-input",
      `a value for each of the inputs ${needed.join(", ")}`,
      `none for '${missing}'`,
      `add '${missing}'`,
    );
  }
}

/**
 * @param {string} name
 * @param {unknown} value
 */
function checkTensor(name, value) {
  if (!(value instanceof Tensor)) {
    throw new TypeError(`'${name}' must be a Tensor, not ${Object(value).constructor?.name ?? value}`);
  }
}

/**
 * Checks the values of inputs whose shapes fit.
 * @param {Contract} contract
 * @param {Inputs} inputs
 * @param {number} steps
 */
export function checkValues(contract, inputs, steps) {
  for (const input of contract.inputs) {
    const tensor = given(inputs, input.name);
    if (tensor === undefined) continue;
    const check = checkOf(contract, input, steps);
    const flat = firstWrong(check, tensor);
    if (flat >= 0) throw problem(check, input, tensor, flat);
  }
}

/**
 * What is checked about the values of one input: that they are finite, or in a range of a kind; else nothing.
 * @typedef {{kind: "finite" | "symbol" | "length" | "value" | "none", least: number, largest: number}} Check
 */

/**
 * @param {Contract} contract
 * @param {Input} input
 * @param {number} steps of the call
 * @returns {Check}
 */
export function checkOf(contract, input, steps) {
  if (contract.vocabulary?.input === input.name) {
    return { kind: "symbol", least: 0, largest: contract.vocabulary.symbols.length - 1 };
  }
  if (input.isLength) return { kind: "length", least: 0, largest: steps };
  if (input.bounds !== null) return { kind: "value", least: input.bounds[0], largest: input.bounds[1] };
  return { kind: isFloat(input.dtype) ? "finite" : "none", least: NaN, largest: NaN };
}

/**
 * The index of the first value that may not reach the engine, or -1.
 * @param {Check} check
 * @param {Tensor} tensor
 */
export function firstWrong({ kind, least, largest }, { dtype, data }) {
  if (kind === "none") return -1;
  for (let index = 0; index < data.length; index++) {
    const entry = data[index];
    if (kind !== "finite") {
      if (!(least <= entry && entry <= largest)) return index;
    } else if (dtype === "float16" ? (Number(entry) & 0x7c00) === 0x7c00 : !Number.isFinite(entry)) {
      return index;
    }
  }
  return -1;
}

const RANGES = {
  symbol: ["ids", "encode the text with the model's own vocabulary"],
  length: ["lengths", "give the number of valid steps of each row in this call"],
  value: ["values", "give values in the range that the model was exported for"],
};

/**
 * @param {Check} check
 * @param {Spec} spec
 * @param {Tensor} tensor
 * @param {number} flat
 */
function problem({ kind, least, largest }, spec, tensor, flat) {
  const place = tensor.shape.length > 0 ? `at index [${indexOf(tensor.shape, flat).join(", ")}]` : "as its value";
  const entry = tensor.dtype === "float16" ? tensor.number(flat) : tensor.data[flat];
  const found = `${shown(entry)} ${place}`;
  if (kind === "finite" || kind === "none") {
    return new RnnxError(
      "non-finite",
      `finite values in '${spec.name}'`,
      found,
      "mend the source of the NaN or infinity; one of them would spoil every later step",
    );
  }
  const [what, fix] = RANGES[kind];
  return new RnnxError(`${kind}-range`, `${what} in ${shown(least)}..${shown(largest)} in '${spec.name}'`, found, fix);
}

/**
 * The index of entry `flat` in a tensor of a shape.
 * @param {readonly number[]} shape
 * @param {number} flat
 */
export function indexOf(shape, flat) {
  const index = shape.map(() => 0);
  for (let [axis, rest] = [shape.length - 1, flat]; axis >= 0; axis--) {
    index[axis] = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
  }
  return index;
}

/**
 * A number as all languages write it in messages.
 * @param {unknown} value
 */
export function shown(value) {
  if (typeof value === "string") return `'${value}'`;
  if (typeof value !== "number" || Number.isNaN(value)) return String(value).toLowerCase();
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  return Number.isInteger(value) ? String(BigInt(value)) : String(value);
}

/**
 * The position of a state, once a value for it has the right name, dtype and shape, and no NaN.
 * @param {Contract} contract
 * @param {string} name
 * @param {Tensor} value
 * @param {Sizes} known
 */
export function checkState(contract, name, value, known) {
  const position = stateIndex(contract, name);
  const spec = contract.states[position];
  checkTensor(name, value);
  if (value.dtype !== spec.dtype) throw wrongDType(spec, value);
  if (!isSame(value.shape, resolve(spec.shape, known) ?? [])) {
    throw wrongShape(spec, spec.shape, known, describe(value.dtype, value.shape));
  }
  checkCount(spec, spec.shape, value, known);
  const place = nanIn(value);
  if (place !== null) {
    throw new RnnxError(
      "non-finite",
      `state '${name}' without NaN (infinities are allowed)`,
      place,
      "mend where it comes from; a NaN stays in a state for ever",
    );
  }
  return position;
}

/**
 * Where the first NaN of a tensor stands, in words; null if there is none.
 * @param {Tensor} value
 */
export function nanIn(value) {
  for (let flat = 0; isFloat(value.dtype) && flat < value.data.length; flat++) {
    if (Number.isNaN(value.number(flat))) return `nan at index [${indexOf(value.shape, flat).join(", ")}]`;
  }
  return null;
}

/**
 * @param {Contract} contract
 * @param {string} name
 */
export function stateIndex(contract, name) {
  const position = contract.states.findIndex((state) => state.name === name);
  if (position < 0)
    throw unknown(
      "state",
      name,
      contract.states.map((state) => state.name),
    );
  return position;
}

/**
 * The start of every state: the caller's where named there, else the contract's.
 * @param {Contract} contract
 * @param {Sizes} known
 * @param {Readonly<Record<string, Tensor>>} initial
 */
export function startsOf(contract, known, initial) {
  const places = Object.keys(initial)
    .sort()
    .map((name) => ({ name, position: checkState(contract, name, initial[name], known) }));
  const chosen = new Map(places.map(({ name, position }) => [position, initial[name]]));
  return contract.states.map((state, position) => {
    try {
      return chosen.get(position)?.clone() ?? state.initial.fill(state.dtype, resolve(state.shape, known) ?? []);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // what an array says that is too large
      throw new RnnxError(
        "out-of-memory",
        "sizes whose states fit into memory",
        `state '${state.name}' as ${state.dtype}${filled(state.shape, known)}`,
        "open the stream with smaller ones",
        error,
      );
    }
  });
}

/**
 * @param {string} kind
 * @param {string} name
 * @param {string[]} known
 */
function unknown(kind, name, known) {
  const fix =
    kind === "input"
      ? "correct or remove it; 'rnnx inspect' lists the inputs"
      : `use one of the names that 'rnnx inspect' lists as ${kind}s`;
  const listed = known.length === 0 && kind !== "input" ? "(none)" : known.join(", ");
  return new RnnxError(`unknown-${kind}`, `${kind}s ${listed}`, `'${name}'`, fix);
}

/**
 * @param {Spec} spec
 * @param {Tensor} tensor
 */
export function wrongDType(spec, tensor) {
  return new RnnxError(
    "wrong-dtype",
    `'${spec.name}' as ${spec.dtype}`,
    describe(tensor.dtype, tensor.shape),
    `convert it to ${spec.dtype}`,
  );
}

/**
 * @param {Spec} spec
 * @param {readonly Axis[]} shape
 * @param {Sizes} known
 * @param {string} found
 * @param {string} [fix]
 */
function wrongShape(
  spec,
  shape,
  known,
  found,
  fix = "reshape it, or open the stream with the batch and dims that you mean",
) {
  return new RnnxError("wrong-shape", `'${spec.name}' as ${spec.dtype}${filled(shape, known)}`, found, fix);
}

/**
 * Checks that there are as many entries as the shape says.
 * @param {Spec} spec
 * @param {readonly Axis[]} shape
 * @param {Tensor} tensor
 * @param {Sizes} known
 */
function checkCount(spec, shape, tensor, known) {
  if (tensor.data.length !== count(tensor.shape)) {
    throw wrongShape(spec, shape, known, `[${tensor.shape.join(", ")}] with ${tensor.data.length} entries`);
  }
}

/**
 * The error for an input whose sizes do not fit shape, known or each other.
 * @param {Spec} spec
 * @param {readonly Axis[]} shape
 * @param {readonly number[]} actual
 * @param {Sizes} known
 * @param {boolean} isChunk
 */
export function misfit(spec, shape, actual, known, isChunk) {
  const found = `[${actual.join(", ")}]`;
  for (const name of ["batch", "time"]) {
    const axis = axisIndex(shape, name);
    if (axis >= 0 && actual.length === shape.length && actual[axis] === 0) {
      return new RnnxError(
        `empty-${name}`,
        `'${spec.name}' as ${spec.dtype}${filled(shape, known)} with at least one entry`,
        `${found}: a ${name} of 0`,
        "leave the call out when there is nothing to run",
      );
    }
  }
  if (actual.length === shape.length + 1 && !isChunk) {
    return wrongShape(spec, shape, known, `${found}, which has one axis more than a step`, "use run for chunks");
  }
  const time = axisIndex(shape, "time");
  if (isChunk && time >= 0 && actual.length === shape.length) {
    const { factor } = shape[time];
    const full = Math.ceil(actual[time] / factor) * factor;
    if (full !== actual[time] && fit(shape, actual.with(time, full), known) !== null) {
      const part = `${found}, where ${actual[time]} is no multiple of ${factor}`;
      return wrongShape(
        spec,
        shape,
        known,
        part,
        `fill it up to ${full}, or give it to feed, which keeps what is over`,
      );
    }
  }
  if (isChunk && withAxis("time", shape, actual, known) !== null) {
    return wrongShape(spec, shape, known, `${found}, which has one axis less than a chunk`, "use step for one step");
  }
  const batched = withAxis("batch", shape, actual, known);
  if (batched !== null) {
    const fix = `reshape it to [${batched.join(", ")}], a batch of one row`;
    return wrongShape(spec, shape, known, `${found}, which has no batch axis`, fix);
  }
  return wrongShape(spec, shape, known, found);
}

/**
 * Sizes with a 1 for the axis called name, null where they do not fit shape and known so.
 * @param {string} name
 * @param {readonly Axis[]} shape
 * @param {readonly number[]} actual
 * @param {Sizes} known
 */
function withAxis(name, shape, actual, known) {
  const axis = axisIndex(shape, name);
  if (axis < 0 || actual.length !== shape.length - 1) return null;
  const sizes = [...actual.slice(0, axis), 1, ...actual.slice(axis)];
  return fit(shape, sizes, known) === null ? null : sizes;
}
