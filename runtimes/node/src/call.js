import { checkOf, firstWrong, given } from "./checks.js";
import { Constant } from "./constant.js";
import { failed, fromEngine } from "./engine.js";
import { axisIndex, describe, piecesOf, resolve, takeStep } from "./shape.js";
import { Tensor, isSame, setNumber } from "./tensor.js";

/**
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./engine.js").Engine} Engine
 * @typedef {import("./engine.js").OrtTensor} OrtTensor
 * @typedef {import("./checks.js").Inputs} Inputs
 * @typedef {import("./shape.js").Sizes} Sizes
 * @typedef {{outputs: Record<string, Tensor>, states: OrtTensor[]}} Results
 *
 * An input as the caller sees it: the engine's memory, and what stands in for the input if it is left out.
 * @typedef {{name: string, tensor: Tensor, standIn: Tensor | null, check: import("./checks.js").Check}} Port
 */

/** One shape of call, a step or a chunk of one length, with everything made that it needs but the results. */
export class Call {
  #contract;
  #engine;
  /** @type {Port[]} */
  #ports = [];
  /** @type {Record<string, OrtTensor>} */
  #feeds = Object.create(null);
  /** Of each output the shape as the graph and as the caller sees it; null where only a run can tell. */
  #outputs;
  /** @type {number[][]} */
  #states;

  /**
   * @param {Contract} contract
   * @param {Engine} engine
   * @param {Sizes} known
   * @param {boolean} isChunk
   */
  constructor(contract, engine, known, isChunk) {
    this.known = known;
    this.isChunk = isChunk;
    this.#contract = contract;
    this.#engine = engine;
    const steps = known.get("time") ?? 1;
    const shapeOf = (/** @type {import("./contract.js").Spec} */ spec) =>
      resolve(contract.callerShape(spec, isChunk), known);
    for (const input of contract.inputs) {
      const tensor = Tensor.full(input.dtype, shapeOf(input) ?? []);
      const constant = input.isLength ? new Constant([], [steps]) : input.default;
      const standIn = constant?.fill(input.dtype, tensor.shape) ?? null;
      this.#ports.push({ name: input.name, tensor, standIn, check: checkOf(contract, input, steps) });
      this.#feeds[input.name] = engine.tensor(input.dtype, resolve(input.shape, known) ?? [], tensor.data);
    }
    this.#outputs = contract.outputs.map((spec) => ({
      spec,
      graph: resolve(spec.shape, known),
      caller: shapeOf(spec),
    }));
    this.#states = contract.states.map(({ shape }) => resolve(shape, known) ?? []);
  }

  /**
   * Writes all inputs to the engine's memory. False if anything about them is not as it should be.
   * @param {Inputs} inputs
   */
  fill(inputs) {
    if (typeof inputs !== "object" || inputs === null) return false;
    let left = 0;
    for (const name of Object.keys(inputs)) left += Number(inputs[name] !== undefined);
    for (const { name, tensor, standIn, check } of this.#ports) {
      const found = given(inputs, name);
      if (found === undefined) {
        if (standIn === null) return false;
        tensor.data.set(/** @type {any} */ (standIn.data));
        continue;
      }
      const fits =
        found instanceof Tensor &&
        found.dtype === tensor.dtype &&
        found.data.length === tensor.data.length &&
        isSame(found.shape, tensor.shape);
      if (!fits || firstWrong(check, found) >= 0) return false;
      tensor.data.set(/** @type {any} */ (found.data));
      left--;
    }
    return left === 0;
  }

  /**
   * Writes the inputs of one step of a chunk of a step model; a length becomes 0 or 1.
   * @param {Inputs} inputs
   * @param {number} step
   */
  fillStep(inputs, step) {
    for (const [index, input] of this.#contract.inputs.entries()) {
      const { tensor, standIn } = this.#ports[index];
      const found = given(inputs, input.name);
      if (found === undefined) {
        tensor.data.set(/** @type {any} */ (standIn?.data));
      } else if (input.isLength) {
        for (let row = 0; row < tensor.data.length; row++) setNumber(tensor, row, Number(step < found.number(row)));
      } else {
        const axis = axisIndex(this.#contract.callerShape(input, true), "time");
        takeStep(piecesOf(found.shape, axis, 1), found.data, step, tensor.data);
      }
    }
  }

  /**
   * Computes outputs and next states from states.
   * @param {readonly OrtTensor[]} states
   * @returns {Promise<Results>}
   */
  async run(states) {
    const contract = this.#contract;
    for (let index = 0; index < states.length; index++) this.#feeds[contract.states[index].input] = states[index];
    const results = await this.#engine.run(this.#feeds);
    /** @type {Record<string, Tensor>} */
    const outputs = {};
    for (const { spec, graph, caller } of this.#outputs) {
      const tensor = fromEngine(results[spec.name]);
      if (graph !== null) checkShape(spec.name, graph, tensor);
      tensor.shape = caller ?? this.#callerShapeOf(spec, tensor.shape);
      outputs[spec.name] = tensor;
    }
    const next = contract.states.map(({ dtype, output }, index) => {
      const result = results[output];
      if (dtype !== "float16" && isSame(result.dims, this.#states[index])) return result;
      const tensor = fromEngine(result);
      checkShape(output, this.#states[index], tensor);
      return this.#engine.tensor(dtype, tensor.shape, tensor.data);
    });
    return { outputs, states: next };
  }

  /**
   * The shape of an output whose size only a run could tell, as the caller sees it.
   * @param {import("./contract.js").Spec} spec
   * @param {number[]} shape as the graph gave it
   */
  #callerShapeOf(spec, shape) {
    return this.isChunk
      ? shape
      : shape.filter((_, axis) => spec.shape[axis]?.name !== "time" || spec.shape[axis].isMultiple);
  }
}

/**
 * Holds what the engine gave against what the contract says; the graph's own declarations may be wrong.
 * @param {string} name
 * @param {readonly number[]} expected
 * @param {Tensor} tensor
 */
function checkShape(name, expected, { dtype, shape }) {
  if (!isSame(shape, expected))
    throw failed(`'${name}' as ${describe(dtype, shape)}, not ${describe(dtype, expected)}`);
}
