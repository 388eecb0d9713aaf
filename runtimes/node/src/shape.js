import { count } from "./tensor.js";

/**
 * One dimension of a shape in a contract: `factor` entries, or `factor` for each 1 of what `name` stands for ("batch",
 * "time", a free dimension; "" for a number). An axis that is written "N*time" is multiple: it stays in a step, with
 * N entries.
 * @typedef {{readonly name: string, readonly factor: number, readonly isMultiple: boolean}} Axis
 *
 * Sizes of batch, time and the free dimensions, by name.
 * @typedef {ReadonlyMap<string, number>} Sizes
 */

/** @type {Axis} */
const TIME = { name: "time", factor: 1, isMultiple: false };

/**
 * The axis that a text in a contract means, or null.
 * @param {string} text
 * @returns {Axis | null}
 */
export function parseAxis(text) {
  const match = /^(?:([1-9][0-9]*)\*)?([A-Za-z_][A-Za-z0-9_]*)$/.exec(text);
  if (match === null || (match[1] && match[2] !== "time")) return null;
  return { name: match[2], factor: Number(match[1] ?? 1), isMultiple: match[1] !== undefined };
}

/**
 * An axis as a contract writes it.
 * @param {Axis} axis
 */
export function axisText({ name, factor, isMultiple }) {
  if (name === "") return String(factor);
  return isMultiple ? `${factor}*${name}` : name;
}

/**
 * @param {readonly Axis[]} shape
 * @param {string} name
 */
export const axisIndex = (shape, name) => shape.findIndex((axis) => axis.name === name);

/**
 * A shape in numbers, or null if `known` lacks a name.
 * @param {readonly Axis[]} shape
 * @param {Sizes} known
 */
export function resolve(shape, known) {
  const numbers = [];
  for (const { name, factor } of shape) {
    const size = name === "" ? 1 : known.get(name);
    if (size === undefined) return null;
    numbers.push(factor * size);
  }
  return numbers;
}

/**
 * The shape of one step: no time axis; an N*time axis has N entries there.
 * @param {readonly Axis[]} shape
 * @returns {Axis[]}
 */
export function stepShape(shape) {
  return shape
    .filter(({ name, isMultiple }) => name !== "time" || isMultiple)
    .map((axis) => (axis.isMultiple ? { name: "", factor: axis.factor, isMultiple: false } : axis));
}

/**
 * The shape of a chunk of a step model: time right after the batch, first without one.
 * @param {readonly Axis[]} shape
 */
export const withTime = (shape) => shape.toSpliced(axisIndex(shape, "batch") + 1, 0, TIME);

/**
 * `known` with the names that `actual` settles, or null where it contradicts shape or known.
 * @param {readonly Axis[]} shape
 * @param {readonly number[]} actual
 * @param {Sizes} known
 * @returns {Sizes | null}
 */
export function fit(shape, actual, known) {
  if (shape.length !== actual.length) return null;
  const fitted = new Map(known);
  for (const [index, { name, factor }] of shape.entries()) {
    if (name !== "" && !fitted.has(name)) fitted.set(name, Math.floor(actual[index] / factor));
    if (actual[index] !== factor * (name === "" ? 1 : /** @type {number} */ (fitted.get(name)))) return null;
  }
  return fitted;
}

/**
 * A shape for a message, with the sizes that are known: [batch=2, 4*time, 3].
 * @param {readonly Axis[]} shape
 * @param {Sizes} known
 */
export function filled(shape, known) {
  const parts = shape.map((axis) => {
    const size = known.get(axis.name);
    return axisText(axis) + (size === undefined ? "" : `=${axis.factor * size}`);
  });
  return `[${parts.join(", ")}]`;
}

/**
 * How a tensor is written in messages: float32[batch, 3].
 * @param {string} dtype
 * @param {readonly (string | number | Axis)[]} shape
 */
export function describe(dtype, shape) {
  return `${dtype}[${shape.map((axis) => (typeof axis === "object" ? axisText(axis) : axis)).join(", ")}]`;
}

/**
 * Where the entries of one step lie in those of a chunk: `outer` pieces of `size` entries, every `stride`.
 * @typedef {{outer: number, size: number, stride: number}} Pieces
 */

/**
 * @param {readonly number[]} numbers the shape of the chunk
 * @param {number} axis that of time
 * @param {number} factor entries a step
 * @returns {Pieces}
 */
export function piecesOf(numbers, axis, factor) {
  const inner = count(numbers.slice(axis + 1));
  return { outer: count(numbers.slice(0, axis)), size: factor * inner, stride: numbers[axis] * inner };
}

/**
 * Copies a step of a chunk to `row`, which is contiguous. Both are of one dtype.
 * @param {Pieces} pieces
 * @param {any} chunk
 * @param {number} step
 * @param {any} row
 */
export function takeStep({ outer, size, stride }, chunk, step, row) {
  for (let index = 0; index < outer; index++) {
    const start = index * stride + step * size;
    row.set(chunk.subarray(start, start + size), index * size);
  }
}

/**
 * Copies `row` to a step of a chunk. Both are of one dtype.
 * @param {Pieces} pieces
 * @param {any} chunk
 * @param {number} step
 * @param {any} row
 */
export function putStep({ outer, size, stride }, chunk, step, row) {
  for (let index = 0; index < outer; index++) {
    chunk.set(row.subarray(index * size, (index + 1) * size), index * stride + step * size);
  }
}
