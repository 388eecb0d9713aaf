import { axisIndex, axisText, describe, fit, piecesOf, putStep, stepShape, takeStep } from "./shape.js";
import { readTensors } from "./tensor-file.js";
import { RnnxError } from "./error.js";
import { Tensor } from "./tensor.js";

/**
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./contract.js").Spec} Spec
 * @typedef {import("./shape.js").Axis} Axis
 * @typedef {import("./tensor-file.js").TensorFile} TensorFile
 *
 * How far a value may be off: |got - expected| <= atol + rtol * |expected|.
 * @typedef {{atol: number, rtol: number}} Bound
 *
 * Recorded inputs, outputs and states, by name: the test vectors that all languages share. `inputs` are [step, ...], or
 * once for inputs without time, or missing where the default was taken; `outputs` [step, ...]; `states` [step+1, ...],
 * row 0 the start; `bounds` are those of "output.NAME" and "state.NAME".
 * @typedef {object} Trace
 * @property {number} steps
 * @property {import("./shape.js").Sizes} sizes of batch and free dimensions
 * @property {Map<string, Tensor>} inputs
 * @property {Map<string, Tensor>} outputs
 * @property {Map<string, Tensor>} states
 * @property {Record<string, Bound>} bounds
 */

/**
 * Reads a trace and checks it against the model it is for.
 * @param {Uint8Array} data
 * @param {Contract} contract
 * @returns {Trace}
 * @throws {RnnxError} `not-safetensors`, `not-a-trace`, `trace-newer`, `trace-of-another-model` or `trace-invalid`
 */
export function readTrace(data, contract) {
  const file = readTensors(data, "a trace");
  file.check("trace", contract.id);
  const bounds = readBounds(file.metadata.get("tolerances") ?? "");
  const reader = new TraceReader(file);
  const given = contract.inputs.filter(({ name, isRequired }) => isRequired || file.tensors.has(`input.${name}`));
  const inputs = new Map(
    given.map((spec) => {
      return [spec.name, reader.take("input", spec, stepShape(spec.shape), contract.isStepped(spec) ? 0 : null)];
    }),
  );
  const outputs = new Map(
    contract.outputs.map((spec) => [spec.name, reader.take("output", spec, stepShape(spec.shape), 0)]),
  );
  const states = new Map(contract.states.map((spec) => [spec.name, reader.take("state", spec, spec.shape, 1)]));
  const steps = reader.known.get("step") ?? 0;
  for (const name of [...reader.compared]) {
    if (!Object.hasOwn(bounds, name)) {
      throw invalid(`a tolerance for '${name}'`, Object.keys(bounds).sort().join(", ") || "none");
    }
  }
  if (steps === 0) throw invalid("at least one step", "none");
  return { steps, sizes: reader.known, inputs, outputs, states, bounds };
}

/**
 * @param {string} text
 * @returns {Record<string, Bound>}
 */
function readBounds(text) {
  try {
    const bounds = JSON.parse(text);
    const isBound = (/** @type {any} */ bound) => Number.isFinite(bound.atol) && Number.isFinite(bound.rtol);
    if (Object.values(bounds).every(isBound)) return bounds;
  } catch {
    // Told below: no JSON, or not of objects.
  }
  throw invalid("tolerances as JSON", `'${text.slice(0, 60)}'`);
}

/** Takes tensors out of a trace, checking that all agree on steps, batch and free dimensions. */
class TraceReader {
  /** @type {import("./shape.js").Sizes} */
  known = new Map();
  /** @type {string[]} the tensors that are compared */
  compared = [];

  /** @param {TensorFile} file */
  constructor(file) {
    this.file = file;
  }

  /**
   * The tensor KIND.NAME, of a shape behind a first axis of steps.
   * @param {string} kind
   * @param {Spec} spec
   * @param {readonly Axis[]} shape
   * @param {number | null} more rows than steps; null without that axis
   */
  take(kind, spec, shape, more) {
    const name = `${kind}.${spec.name}`;
    if (kind !== "input") this.compared.push(name);
    const tensor = this.file.tensors.get(name);
    if (tensor === undefined) throw invalid(`a tensor '${name}'`, this.file.names);
    const fitted = tensor.dtype === spec.dtype ? this.#fit(tensor.shape, shape, more) : null;
    if (fitted === null) {
      const wanted = [...(more === null ? [] : [more === 0 ? "step" : "step+1"]), ...shape.map(axisText)];
      const where = [...this.known.keys()].sort().map((key) => `${key} ${this.known.get(key)}`);
      const condition = where.length === 0 ? "" : ` where ${where.join(", ")}`;
      throw invalid(`'${name}' as ${describe(spec.dtype, wanted)}${condition}`, describe(tensor.dtype, tensor.shape));
    }
    this.known = fitted;
    return tensor;
  }

  /**
   * @param {number[]} actual
   * @param {readonly Axis[]} shape
   * @param {number | null} more
   */
  #fit(actual, shape, more) {
    if (more === null) return fit(shape, actual, this.known);
    if (actual.length === 0) return null;
    const steps = actual[0] - more;
    const fitted = fit(shape, actual.slice(1), this.known);
    if (fitted === null || steps < 1 || (fitted.get("step") ?? steps) !== steps) return null;
    return new Map([...fitted, ["step", steps]]);
  }
}

/**
 * Row `index` of [step, ...], in its memory.
 * @param {Tensor} rows
 * @param {number} index
 */
export function rowOf({ dtype, shape, data }, index) {
  const size = data.length / shape[0];
  return new Tensor(dtype, shape.slice(1), data.subarray(index * size, (index + 1) * size));
}

/**
 * Steps begin..end-1 of rows, [step, ...], as a chunk of a spec.
 * @param {Contract} contract
 * @param {Spec} spec
 * @param {Tensor} rows
 * @param {number} begin
 * @param {number} end
 */
export function toChunk(contract, spec, rows, begin, end) {
  const { shape, pieces } = chunkOf(contract, spec, rows.shape.slice(1), end - begin);
  const chunk = Tensor.full(rows.dtype, shape);
  for (let step = begin; step < end; step++) putStep(pieces, chunk.data, step - begin, rowOf(rows, step).data);
  return chunk;
}

/**
 * A chunk of a spec as [step, ...], with rows of a shape: the inverse of toChunk.
 * @param {Contract} contract
 * @param {Spec} spec
 * @param {Tensor} chunk
 * @param {number[]} row
 * @param {number} steps
 */
export function toRows(contract, spec, chunk, row, steps) {
  const { pieces } = chunkOf(contract, spec, row, steps);
  const rows = Tensor.full(chunk.dtype, [steps, ...row]);
  for (let step = 0; step < steps; step++) takeStep(pieces, chunk.data, step, rowOf(rows, step).data);
  return rows;
}

/**
 * @param {Contract} contract
 * @param {Spec} spec
 * @param {number[]} row
 * @param {number} steps
 */
function chunkOf(contract, spec, row, steps) {
  const axes = contract.callerShape(spec, true);
  const axis = axisIndex(axes, "time");
  const { factor, isMultiple } = axes[axis];
  const shape = isMultiple ? row.with(axis, row[axis] * steps) : row.toSpliced(axis, 0, steps);
  return { shape, pieces: piecesOf(shape, axis, factor) };
}

/**
 * @param {string} expected
 * @param {string} found
 */
function invalid(expected, found) {
  return new RnnxError(
    "trace-invalid",
    `a trace with ${expected}`,
    found,
    "record it again with 'rnnx export', or use the trace that belongs to this model",
  );
}
