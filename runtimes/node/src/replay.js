import { indexOf } from "./checks.js";
import { Tensor, isFloat } from "./tensor.js";
import { axisIndex } from "./shape.js";
import { readTrace, rowOf, toChunk, toRows } from "./trace.js";
import { cut } from "./waiting.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./contract.js").Spec} Spec
 * @typedef {import("./trace.js").Trace} Trace
 *
 * The first value that does not agree.
 * @typedef {{tensor: string, step: number, index: number[], expected: unknown, got: unknown}} Failure
 *
 * How a replay went.
 * @typedef {{agrees: boolean, steps: number, calls: number, max_error: number, failure: Failure | null}} Verdict
 */

/**
 * Replays a trace through a stream of its own and says whether the model gives what was recorded.
 * @param {Session} session
 * @param {Uint8Array} data the trace that was exported beside the model
 * @param {number[]} [chunks] lengths of the chunks, in turn; 0 for all that is left. Steps unless given
 * @returns {Promise<Verdict>} rejects with `not-safetensors`, `not-a-trace`, `trace-newer`, `trace-of-another-model` or
 *   `trace-invalid`, and as `Stream.run`
 */
export async function replay(session, data, chunks = [1]) {
  const replayer = new Replayer(session, readTrace(data, session.contract));
  const verdict = await replayer.run(chunks);
  await replayer.stream.close();
  return verdict;
}

/** A trace being replayed through a stream. */
export class Replayer {
  /** @type {Verdict} */
  verdict = { agrees: true, steps: 0, calls: 0, max_error: 0, failure: null };

  /**
   * @param {Session} session
   * @param {Trace} trace
   */
  constructor(session, trace) {
    this.contract = session.contract;
    this.trace = trace;
    const dims = [...trace.sizes].filter(([name]) => this.contract.freeDimensions.includes(name));
    this.stream = session.stream({ batch: trace.sizes.get("batch"), dims: Object.fromEntries(dims) });
    const counted = this.contract.inputs.find(({ name, isLength }) => isLength && trace.inputs.has(name));
    /** @type {Tensor | undefined} how many steps of each row are valid, [batch] or [] */
    this.lengths = counted && trace.inputs.get(counted.name);
  }

  /**
   * Replays all of it in chunks of these lengths, in turn; stops where something disagrees.
   * @param {number[]} chunks
   */
  async run(chunks) {
    const lengths = this.contract.wholeOnly === null ? chunks : [0];
    this.#compareStates(-1, 0);
    this.#begin();
    for (let [begin, turn] = [0, 0]; begin < this.trace.steps && this.verdict.agrees; turn++) {
      const length = lengths[turn % lengths.length] || this.trace.steps;
      const end = Math.min(begin + length, this.trace.steps);
      const outputs = await this.#call(begin, end);
      this.verdict.steps = end;
      this.#compareOutputs(outputs, end);
      this.#compareStates(end - 1, end);
      begin = end;
    }
    return this.verdict;
  }

  /**
   * Replays all of it through `feed`, in blocks of so many entries, in turn, and then `flush`.
   * @param {number[]} blocks 0 for all that is left
   * @param {number} omitted entries at the end of each input that are left out, and that flush has to fill up
   */
  async runBlocks(blocks, omitted) {
    this.#compareStates(-1, 0);
    this.#begin();
    const left = this.#inputs(0, this.trace.steps, false);
    for (const input of this.contract.inputs) this.#take(left, input, omitted, true);
    for (let turn = 0; this.verdict.agrees; turn++) {
      /** @type {Record<string, Tensor>} */
      const block = { ...left };
      let taken = 0;
      for (const input of this.contract.inputs) {
        const part = this.#take(left, input, blocks[turn % blocks.length], false);
        if (part === null) continue;
        block[input.name] = part.tensor;
        taken += part.entries;
      }
      const outputs = taken > 0 ? await this.stream.feed(block) : await this.stream.flush();
      const begin = this.verdict.steps;
      const end = this.stream.position;
      this.verdict.calls++;
      this.verdict.steps = end;
      if (end > begin) {
        this.#compareOutputs(this.#rows(outputs, end - begin, false), end);
        this.#compareStates(end - 1, end);
      }
      if (taken === 0) break;
    }
    return this.verdict;
  }

  /**
   * Takes entries out of the inputs that are left: the first, or the last; null for an input without time.
   * @param {Record<string, Tensor>} left
   * @param {import("./contract.js").Input} input
   * @param {number} count 0 for all, of the first
   * @param {boolean} isLast
   */
  #take(left, input, count, isLast) {
    const axis = axisIndex(this.contract.callerShape(input, true), "time");
    const value = left[input.name];
    if (value === undefined || axis < 0) return null;
    const all = value.shape[axis];
    const entries = isLast ? count : Math.min(count || all, all);
    left[input.name] = isLast ? cut(axis, value, 0, all - entries) : cut(axis, value, entries, all);
    return { tensor: cut(axis, value, 0, entries), entries };
  }

  /**
   * Replays the first steps, one at a time, and returns the stream.
   * @param {number} steps
   */
  async toStep(steps) {
    this.#begin();
    for (let step = 0; step < steps; step++) await this.#call(step, step + 1);
    return this.stream;
  }

  /** Sets all states to row 0. */
  #begin() {
    for (const { name } of this.contract.states) this.stream.setState(name, rowOf(this.#recorded("states", name), 0));
  }

  /**
   * @param {"outputs" | "states"} kind
   * @param {string} name
   */
  #recorded(kind, name) {
    return /** @type {Tensor} */ (this.trace[kind].get(name)); // it is there, which readTrace saw to
  }

  /**
   * Runs steps begin..end-1; returns each output as [step, ...], one row for those without time.
   * @param {number} begin
   * @param {number} end
   */
  async #call(begin, end) {
    const isStep = end - begin === 1 && this.contract.wholeOnly === null;
    const inputs = this.#inputs(begin, end, isStep);
    this.verdict.calls++;
    const outputs = isStep ? await this.stream.step(inputs) : await this.stream.run(inputs);
    return this.#rows(outputs, end - begin, isStep);
  }

  /**
   * The recorded inputs of steps begin..end-1, as `step` or `run` takes them.
   * @param {number} begin
   * @param {number} end
   * @param {boolean} isStep
   */
  #inputs(begin, end, isStep) {
    /** @type {Record<string, Tensor>} */
    const inputs = {};
    for (const input of this.contract.inputs) {
      const recorded = this.trace.inputs.get(input.name);
      if (recorded === undefined) continue;
      if (input.isLength) inputs[input.name] = lengthsLeft(recorded, begin, end);
      else if (!this.contract.isStepped(input)) inputs[input.name] = recorded;
      else if (isStep) inputs[input.name] = rowOf(recorded, begin);
      else inputs[input.name] = toChunk(this.contract, input, recorded, begin, end);
    }
    return inputs;
  }

  /**
   * The outputs of some steps as [step, ...], one row for those without time.
   * @param {Record<string, Tensor>} outputs
   * @param {number} steps
   * @param {boolean} isStep
   */
  #rows(outputs, steps, isStep) {
    return new Map(
      this.contract.outputs.map((spec) => {
        const got = outputs[spec.name];
        const row = this.#recorded("outputs", spec.name).shape.slice(1);
        const isChunk = !isStep && this.contract.isStepped(spec);
        const rows = isChunk
          ? toRows(this.contract, spec, got, row, steps)
          : new Tensor(got.dtype, [1, ...got.shape], got.data);
        return [spec.name, rows];
      }),
    );
  }

  /**
   * @param {Map<string, Tensor>} outputs
   * @param {number} end
   */
  #compareOutputs(outputs, end) {
    for (const spec of this.contract.outputs) {
      const got = /** @type {Tensor} */ (outputs.get(spec.name));
      const expected = this.#recorded("outputs", spec.name);
      const first = end - got.shape[0];
      for (let step = first; step < end; step++) {
        const isKept = (/** @type {number[]} */ index) => this.#isValid(spec, index, step);
        this.#compare(`output.${spec.name}`, step, rowOf(expected, step), rowOf(got, step - first), isKept);
      }
    }
  }

  /**
   * @param {number} step
   * @param {number} row
   */
  #compareStates(step, row) {
    for (const { name } of this.contract.states) {
      this.#compare(
        `state.${name}`,
        step,
        rowOf(this.#recorded("states", name), row),
        this.stream.state(name),
        () => true,
      );
    }
  }

  /**
   * Whether the row of an entry of an output has not ended before a step.
   * @param {Spec} spec
   * @param {number[]} index
   * @param {number} step
   */
  #isValid(spec, index, step) {
    if (this.lengths === undefined) return true;
    const batch = spec.shape
      .filter(({ name, isMultiple }) => name !== "time" || isMultiple)
      .findIndex(({ name }) => name === "batch");
    const row = this.lengths.shape.length > 0 && batch >= 0 ? index[batch] : 0;
    return step < this.lengths.number(row);
  }

  /**
   * Compares one row of a tensor, where isKept.
   * @param {string} name
   * @param {number} step
   * @param {Tensor} expected
   * @param {Tensor} got
   * @param {(index: number[]) => boolean} isKept
   */
  #compare(name, step, expected, got, isKept) {
    const { atol, rtol } = this.trace.bounds[name];
    for (let flat = 0; flat < expected.data.length; flat++) {
      const index = indexOf(expected.shape, flat);
      if (!isKept(index)) continue;
      const [wanted, have] = [expected.number(flat), got.number(flat)];
      const off = Math.abs(have - wanted);
      let agrees = isFloat(expected.dtype) ? Object.is(have + 0, wanted + 0) : expected.data[flat] === got.data[flat];
      if (Number.isFinite(off)) {
        this.verdict.max_error = Math.max(this.verdict.max_error, off / (1 + Math.abs(wanted)));
        agrees ||= isFloat(expected.dtype) && off <= atol + rtol * Math.abs(wanted);
      }
      if (!agrees && this.verdict.agrees) {
        this.verdict.agrees = false;
        this.verdict.failure = {
          tensor: name,
          step,
          index,
          expected: plain(expected, flat),
          got: plain(got, flat),
        };
      }
    }
  }
}

/**
 * What is left of lengths in the chunk of steps begin..end-1.
 * @param {Tensor} lengths int64 [batch] or []
 * @param {number} begin
 * @param {number} end
 */
function lengthsLeft(lengths, begin, end) {
  const left = lengths.clone();
  for (let row = 0; row < left.data.length; row++) {
    left.data[row] = BigInt(Math.min(Math.max(lengths.number(row) - begin, 0), end - begin));
  }
  return left;
}

/**
 * A number as JSON can hold it.
 * @param {Tensor} tensor
 * @param {number} index
 */
export function plain(tensor, index) {
  const number = tensor.number(index);
  return Number.isFinite(number) ? number : Number.isNaN(number) ? "nan" : number > 0 ? "inf" : "-inf";
}
