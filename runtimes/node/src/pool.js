import { RnnxError } from "./error.js";
import { given } from "./checks.js";
import { Constant } from "./constant.js";
import { axisIndex, piecesOf, putStep, resolve } from "./shape.js";
import { Stream } from "./stream.js";
import { Tensor } from "./tensor.js";

/**
 * @typedef {import("./checks.js").Inputs} Inputs
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./contract.js").Input} Input
 * @typedef {import("./shape.js").Sizes} Sizes
 * @typedef {import("./stream.js").Outputs} Outputs
 */

const KEPT = 32; // sizes of batches whose memory stays

/**
 * Steps many streams of a session, each of batch 1, as the rows of one batch. Open it with `session.pool()`.
 *
 * Which streams step is free at each call: those that are left out stay as they are. One call at a time.
 */
export class Pool {
  /** @type {Stream[]} of as many rows as were stepped; the latest is the last */
  #batches = [];
  /** @type {"open" | "busy" | "shut"} */
  #gate = "open";

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
    checkModel(session.contract);
  }

  /**
   * Runs one step of each of the streams.
   * @param {ReadonlyMap<Stream, Inputs>} inputs by stream, those of each as its own `step` takes them
   * @returns {Promise<Map<Stream, Outputs>>} by stream, to rounding what each gives alone. Rejects as `step` does, and
   *   with `streams-disagree` for a stream of another session, one of a batch, other free dimensions, or another value
   *   of an input without a batch axis; no stream has moved then, and the message says whose input it was
   */
  async step(inputs) {
    this.#enter();
    try {
      const streams = [...inputs.keys()];
      if (streams.length === 0) return new Map();
      return await Stream.held(streams, async () => {
        const known = this.#match(streams, [...inputs.values()]);
        const joined = this.#join([...inputs.values()], known);
        const outputs = await Stream.stepRows(this.#batch(known, streams.length), streams, joined);
        return new Map(streams.map((stream, row) => [stream, outputs[row]]));
      });
    } finally {
      this.#gate = "open";
    }
  }

  /** Lets go of the pool; its streams stay as they are. Closing twice is fine. */
  async close() {
    if (this.#gate === "shut") return;
    this.#enter();
    this.#gate = "shut";
    for (const batch of this.#batches) await batch.close();
  }

  #enter() {
    if (this.#gate === "shut") {
      throw new RnnxError("stream-closed", "a pool that is open", "one that was closed", "open another pool");
    }
    if (this.#gate === "busy") {
      throw new RnnxError(
        "stream-busy",
        "one thread at a time on a pool",
        "a call while another is running",
        "let one thread step it, and the others hand it what they have, by a queue",
      );
    }
    this.#gate = "busy";
  }

  /**
   * Checks the inputs of each stream as a step of it alone would; returns the sizes of that step.
   * @param {readonly Stream[]} streams
   * @param {readonly Inputs[]} inputs
   * @returns {Sizes}
   */
  #match(streams, inputs) {
    /** @type {Sizes[]} */
    const all = [];
    for (const [place, stream] of streams.entries()) {
      if (stream.session !== this.session) {
        throw disagree("streams of the session that the pool was opened on", "one of another session");
      }
      if (stream.batch !== 1) throw disagree("streams of batch 1", "a stream of a larger batch");
      all.push(Stream.matchStep(stream, inputs[place], `in the input of stream ${place}`));
      for (const name of this.session.contract.freeDimensions) {
        const [first, size] = [all[0].get(name), all[place].get(name)];
        if (first !== size) {
          throw disagree(
            `one size of '${name}' in all streams that run together`,
            `${first} in stream 0, ${size} in stream ${place}`,
          );
        }
      }
    }
    return all[0];
  }

  /**
   * The inputs of all streams as those of one batch.
   * @param {readonly Inputs[]} inputs
   * @param {Sizes} known
   */
  #join(inputs, known) {
    const { contract } = this.session;
    /** @type {Record<string, Tensor>} */
    const joined = {};
    for (const input of contract.inputs) {
      const axes = contract.callerShape(input, false);
      const whole = Tensor.full(input.dtype, resolve(axes, new Map([...known, ["batch", inputs.length]])) ?? []);
      const leftOut = standIn(input, resolve(axes, known) ?? []);
      const axis = axisIndex(axes, "batch");
      for (const [row, each] of inputs.entries()) {
        const { data } = given(each, input.name) ?? leftOut;
        if (axis >= 0) {
          putStep(piecesOf(whole.shape, axis, 1), whole.data, row, data);
        } else if (row === 0) {
          whole.data.set(/** @type {any} */ (data));
        } else if (!isSameData(whole.data, data)) {
          throw disagree(
            `one value of '${input.name}', which has no batch axis, in all streams of a call`,
            `another in stream ${row} than in stream 0`,
          );
        }
      }
      joined[input.name] = whole;
    }
    return joined;
  }

  /**
   * The stream of so many rows.
   * @param {Sizes} known
   * @param {number} rows
   */
  #batch(known, rows) {
    const { freeDimensions } = this.session.contract;
    const place = this.#batches.findIndex(
      (batch) => batch.batch === rows && freeDimensions.every((name) => Stream.sizeOf(batch, name) === known.get(name)),
    );
    const dims = Object.fromEntries(freeDimensions.map((name) => [name, known.get(name) ?? 1]));
    const found = place < 0 ? this.session.stream({ batch: rows, dims }) : this.#batches.splice(place, 1)[0];
    if (this.#batches.length === KEPT) void this.#batches.shift()?.close();
    this.#batches.push(found);
    return found;
  }
}

/**
 * What stands in for an input that is left out.
 * @param {Input} input
 * @param {number[]} shape
 */
function standIn(input, shape) {
  const constant = input.isLength ? new Constant([], [1]) : input.default;
  return constant?.fill(input.dtype, shape) ?? Tensor.full(input.dtype, shape);
}

/**
 * Whether two arrays of one type have the same bits.
 * @param {import("./tensor.js").Entries} one
 * @param {import("./tensor.js").Entries} other
 */
function isSameData(one, other) {
  const [bytes, others] = [one, other].map((data) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return bytes.every((byte, index) => byte === others[index]);
}

/** @param {Contract} contract */
function checkModel(contract) {
  if (contract.wholeOnly !== null) {
    throw new RnnxError(
      "whole-only",
      "a model that can be stepped",
      `one that takes whole sequences, because of ${contract.wholeOnly}`,
      "open a stream, and give it the whole sequence in one call of run",
    );
  }
  if (!contract.hasBatch) {
    throw new RnnxError(
      "no-batch",
      "a model with a batch axis, whose rows the streams of a pool are",
      "none in any input or state",
      "open one stream per sequence, or export with a batch axis",
    );
  }
  for (const [kind, specs] of Object.entries({ state: contract.states, output: contract.outputs })) {
    const shared = specs.find(({ shape }) => axisIndex(shape, "batch") < 0);
    if (shared !== undefined) {
      throw new RnnxError(
        `shared-${kind}`,
        `${kind}s with a batch axis, so that each stream of a pool has its own`,
        `${kind} '${shared.name}' shared by all rows`,
        "open one stream per sequence",
      );
    }
  }
}

/**
 * @param {string} expected
 * @param {string} found
 */
const disagree = (expected, found) => new RnnxError("streams-disagree", expected, found, "run them in separate calls");
