import { Call } from "./call.js";
import { checkState, checkValues, matchInputs, openSizes, shown, startsOf, stateIndex } from "./checks.js";
import { failed, fromEngine } from "./engine.js";
import { RnnxError } from "./error.js";
import { axisIndex, piecesOf, putStep, takeStep, withTime } from "./shape.js";
import { decodeSnapshot, encodeSnapshot } from "./snapshot.js";
import { Tensor, isSame } from "./tensor.js";
import { Waiting, endOf, joinedOutputs, noOutputs } from "./waiting.js";

/**
 * @typedef {import("./checks.js").Inputs} Inputs
 * @typedef {import("./engine.js").OrtTensor} OrtTensor
 * @typedef {import("./shape.js").Sizes} Sizes
 *
 * Results by name. They are the caller's: no later call changes them.
 * @typedef {Record<string, Tensor>} Outputs
 */

/**
 * One batched sequence of a session. Open it with `session.stream()`.
 *
 * A step makes new states from the old ones, and they take their place at its very end, so that after an error the
 * states are what they were before the call. One call at a time: a second one before the first has settled is refused
 * with `stream-busy`, and one after `close` with `stream-closed`.
 */
export class Stream {
  #engine;
  #leave;
  /** @type {Sizes} of batch and the free dimensions that were bound */
  #known;
  /** @type {Tensor[]} */
  #starts;
  /** @type {OrtTensor[]} never written to, only replaced */
  #states;
  /** @type {Call | null} the latest of step */
  #step = null;
  /** @type {Call | null} the latest of run */
  #chunk = null;
  #position = 0;
  /** @type {"open" | "busy" | "shut"} */
  #gate = "open";
  /** @type {Waiting} */
  #waiting;

  /**
   * @param {import("./session.js").Session} session
   * @param {import("./engine.js").Engine} engine
   * @param {import("./session.js").StreamOptions} options
   * @param {() => Promise<void>} leave called when the stream is closed
   */
  constructor(session, engine, { batch = 1, dims = {}, initial = {} }, leave) {
    this.session = session;
    this.batch = batch;
    this.#engine = engine;
    this.#leave = leave;
    this.#known = openSizes(session.contract, batch, dims);
    this.#starts = startsOf(session.contract, this.#known, initial);
    this.#states = this.#toEngine(this.#starts);
    this.#waiting = new Waiting(session.contract);
  }

  /** The number of steps since the stream was opened or reset as a whole. */
  get position() {
    return this.#position;
  }

  /**
   * Runs one time step. Inputs are in the shape of one step, which has no time axis; an N*time axis has N entries.
   * @param {Inputs} inputs
   * @returns {Promise<Outputs>} rejects with `unknown-input`, `missing-input`, `wrong-dtype`, `wrong-shape`,
   *   `empty-batch`, `missing-dimension`, `non-finite`, `symbol-range`, `length-range`, `value-range`, `whole-only`,
   *   `entries-waiting`, `stream-busy`, `stream-closed` or `engine-failed`; the states are unchanged then
   */
  async step(inputs) {
    this.#enter();
    try {
      this.#waiting.requireNone();
      if (this.#step === null || !this.#step.fill(inputs)) this.#step = this.#prepare(this.#step, inputs, false);
      return await this.#advance(this.#step);
    } finally {
      this.#gate = "open";
    }
  }

  /**
   * Runs a chunk of steps; chunks of any lengths give together what one long one gives. Inputs are in the shape of a
   * chunk, with the time axis; those without one hold for the whole call.
   * @param {Inputs} inputs
   * @returns {Promise<Outputs>} rejects as `step` does, and with `empty-time`
   */
  async run(inputs) {
    this.#enter();
    try {
      this.#waiting.requireNone();
      return await this.#run(inputs);
    } finally {
      this.#gate = "open";
    }
  }

  /** How many entries of each input wait for a whole step, without those of which none does. */
  get waiting() {
    return this.#waiting.counts;
  }

  /**
   * Runs the steps that are whole, and keeps what is over for the next call. Inputs are in the shape of a chunk, with
   * any number of entries along time, none too; each has a queue of its own, and as many steps run as the shortest has.
   * Of an input that was given before and is left out no entries come; one without time stays as it was.
   * @param {Inputs} inputs
   * @returns {Promise<Outputs>} those of the steps that ran, as `run` gives them; if none did, those with time have
   *   length 0, and the others are left out. Rejects as `run` does, and with `feed-length`; nothing is kept then
   */
  async feed(inputs) {
    this.#enter();
    try {
      if (this.session.contract.wholeOnly !== null) throw this.#wholeOnly("a call of feed");
      const waiting = this.#waiting.joined(inputs, this.#known);
      const steps = waiting.wholeSteps;
      const outputs = await this.#runFirst(waiting, steps);
      this.#waiting = waiting.without(steps);
      return outputs;
    } finally {
      this.#gate = "open";
    }
  }

  /**
   * Runs what waits as whole steps, the last one filled up with zeros (or what is nearest to 0 in the range of an
   * input); then it is as if never fed. `waiting` says before how many entries of the last step are real. Where
   * outputs come late, those of the last steps follow, as the network ends a sequence; then the stream is over, until
   * it is reset.
   * @returns {Promise<Outputs>} those of these steps, the filled one included, as `feed` gives them
   */
  async flush() {
    this.#enter();
    try {
      const { contract } = this.session;
      const end = endOf(contract);
      const outputs = await this.#runFirst(this.#waiting, this.#waiting.stepsToFlush);
      const every = end === null ? outputs : await this.#runEnd(outputs, end);
      this.#waiting = new Waiting(contract);
      return every;
    } finally {
      this.#gate = "open";
    }
  }

  /**
   * Says that the sequence is over, and joins the outputs of the steps after it to those before.
   * @param {Outputs} outputs
   * @param {{late: number, state: number}} end
   */
  async #runEnd(outputs, { late, state }) {
    const { contract } = this.session;
    const states = this.#states.map((_, index) => this.#read(index));
    states[state] = Tensor.full(states[state].dtype, states[state].shape, 1);
    this.#replace(states, this.#position);
    const last = await this.#run(this.#waiting.nothing(this.#known).first(late));
    return joinedOutputs(contract, outputs, last);
  }

  /**
   * @param {Waiting} waiting
   * @param {number} steps
   */
  async #runFirst(waiting, steps) {
    return steps > 0 ? this.#run(waiting.first(steps)) : noOutputs(this.session.contract, this.#known);
  }

  /** @param {Inputs} inputs */
  async #run(inputs) {
    const { hasTime, wholeOnly } = this.session.contract;
    if (!hasTime) return this.#runSteps(inputs);
    if (this.#position > 0 && wholeOnly !== null) throw this.#wholeOnly("a second call");
    if (this.#chunk === null || !this.#chunk.fill(inputs)) this.#chunk = this.#prepare(this.#chunk, inputs, true);
    return this.#advance(this.#chunk);
  }

  /**
   * Puts all states back to their start, and the position to 0, and drops what waits for a whole step; or the states of
   * some rows of the batch, and leaves the position.
   * @param {Iterable<number>} [rows]
   * @throws {RnnxError} `row-range` for a row that does not exist, `shared-state` where rows share a state,
   *   `entries-waiting` for rows while entries wait, `stream-busy` or `stream-closed`
   */
  reset(rows) {
    this.#checkOpen();
    if (rows === undefined) {
      this.#replace(this.#starts, 0);
      this.#waiting = new Waiting(this.session.contract);
    } else {
      this.#waiting.requireNone();
      this.#replace(this.#withoutRows(new Set(rows)), this.#position);
    }
  }

  /** @param {Set<number>} rows */
  #withoutRows(rows) {
    for (const row of rows) {
      if (!Number.isInteger(row) || row < 0 || row >= this.batch) {
        throw new RnnxError(
          "row-range",
          `rows in 0..${this.batch - 1}`,
          shown(row),
          "name rows of this stream's batch",
        );
      }
    }
    return this.session.contract.states.map(({ name, shape }, index) => {
      const start = this.#starts[index];
      const axis = axisIndex(shape, "batch");
      if (axis < 0 && rows.size === this.batch) return start;
      const value = this.#read(index);
      if (axis < 0 && rows.size > 0) {
        throw new RnnxError(
          "shared-state",
          "states with a batch axis, so that a row has its own",
          `state '${name}' shared by all rows`,
          "reset the whole stream",
        );
      }
      for (const row of rows) {
        const pieces = piecesOf(value.shape, axis, 1);
        const entries = start.data.slice(0, pieces.outer * pieces.size);
        takeStep(pieces, start.data, row, entries);
        putStep(pieces, value.data, row, entries);
      }
      return value;
    });
  }

  /**
   * A copy of a state.
   * @param {string} name
   * @throws {RnnxError} `unknown-state`, `stream-busy` or `stream-closed`
   */
  state(name) {
    this.#checkOpen();
    return this.#read(stateIndex(this.session.contract, name));
  }

  /**
   * Overwrites a state.
   * @param {string} name
   * @param {Tensor} value
   * @throws {RnnxError} `unknown-state`, `wrong-dtype`, `wrong-shape`, `non-finite` for NaN (infinities are allowed),
   *   `stream-busy` or `stream-closed`
   */
  setState(name, value) {
    this.#checkOpen();
    const position = checkState(this.session.contract, name, value, this.#known);
    this.#states = this.#states.with(position, this.#toEngine([value.clone()])[0]);
  }

  /**
   * All that is needed to continue elsewhere, as safetensors bytes: the same in every language.
   * @param {import("./snapshot.js").Sampling | null} [sampling] where sampling stopped
   * @throws {RnnxError} `entries-waiting`, since a snapshot has no room for them, `stream-busy` or `stream-closed`
   */
  snapshot(sampling = null) {
    this.#checkOpen();
    this.#waiting.requireNone();
    const states = this.#states.map(fromEngine);
    return encodeSnapshot(this.session.contract, { position: this.#position, states, sampling });
  }

  /**
   * Continues where a snapshot was made; the outputs that follow are the same bit for bit. What waits for a whole step
   * is dropped.
   * @param {Uint8Array} data
   * @returns {import("./snapshot.js").Sampling | null} where sampling stopped, if the snapshot says
   * @throws {RnnxError} `not-safetensors`, `not-a-snapshot`, `snapshot-newer`, `snapshot-of-another-model`,
   *   `snapshot-invalid`, `stream-busy` or `stream-closed`; the states are unchanged then
   */
  restore(data) {
    this.#checkOpen();
    const { states, position, sampling } = decodeSnapshot(data, this.session.contract, this.#known);
    this.#replace(states, position);
    this.#waiting = new Waiting(this.session.contract);
    return sampling;
  }

  /** Lets go of the stream. Closing twice is fine. Rejects with `stream-busy` while a call is running. */
  async close() {
    if (this.#gate === "shut") return;
    this.#checkOpen();
    this.#gate = "shut";
    this.#states = [];
    this.#step = this.#chunk = null;
    await this.#leave();
  }

  // What a pool needs of its streams. Not for other callers.

  /**
   * Does something while every other call of some streams is kept out.
   * @template T
   * @param {readonly Stream[]} streams
   * @param {() => Promise<T>} action
   * @ignore
   */
  static async held(streams, action) {
    let entered = 0;
    try {
      for (const stream of streams) {
        stream.#enter();
        entered++;
      }
      return await action();
    } finally {
      for (const stream of streams.slice(0, entered)) stream.#gate = "open";
    }
  }

  /**
   * Checks the inputs of a step, and returns the size of every dimension; errors say where they were found.
   * @param {Stream} stream
   * @param {Inputs} inputs
   * @param {string} place
   * @ignore
   */
  static matchStep(stream, inputs, place) {
    const { contract } = stream.session;
    stream.#waiting.requireNone();
    try {
      const known = matchInputs(contract, inputs, stream.#known, false);
      checkValues(contract, inputs, 1);
      return known;
    } catch (error) {
      if (!(error instanceof RnnxError)) throw error;
      throw new RnnxError(error.code, error.expected, `${error.found}, ${place}`, error.fix, error);
    }
  }

  /**
   * The size of a dimension that was bound.
   * @param {Stream} stream
   * @param {string} name
   * @ignore
   */
  static sizeOf(stream, name) {
    return stream.#known.get(name);
  }

  /**
   * Steps a batch whose rows are the states of these streams, and hands each what came of its row.
   * @param {Stream} batch
   * @param {readonly Stream[]} streams
   * @param {Inputs} inputs
   * @returns {Promise<Outputs[]>} by stream
   * @ignore
   */
  static async stepRows(batch, streams, inputs) {
    const { states, outputs } = batch.session.contract;
    const joined = batch.#starts.map(({ dtype, shape }) => Tensor.full(dtype, shape));
    const pieces = states.map(({ shape }, index) => piecesOf(joined[index].shape, axisIndex(shape, "batch"), 1));
    for (const [row, stream] of streams.entries()) {
      for (const [index, whole] of joined.entries()) {
        putStep(pieces[index], whole.data, row, fromEngine(stream.#states[index]).data);
      }
    }
    batch.#replace(joined, 0);
    const made = await batch.step(inputs);
    return streams.map((stream, row) => {
      const next = batch.#states.map((state, index) => {
        const own = Tensor.full(stream.#starts[index].dtype, stream.#starts[index].shape);
        takeStep(pieces[index], fromEngine(state).data, row, own.data);
        return own;
      });
      stream.#replace(next, stream.#position + 1);
      return Object.fromEntries(
        outputs.map((spec) => {
          const { dtype, shape, data } = made[spec.name];
          const axis = axisIndex(stream.session.contract.callerShape(spec, false), "batch");
          const own = Tensor.full(dtype, shape.with(axis, 1));
          takeStep(piecesOf(shape, axis, 1), data, row, own.data);
          return [spec.name, own];
        }),
      );
    });
  }

  #checkOpen() {
    if (this.#gate === "open") return;
    if (this.#gate === "shut") {
      throw new RnnxError(
        "stream-closed",
        "a stream that is open",
        "one that was closed",
        "open another stream of the session",
      );
    }
    throw new RnnxError(
      "stream-busy",
      "one thread at a time on a stream",
      "a call while another is running",
      "open a stream for each thread; they share the session",
    );
  }

  /** Keeps every other call out until the gate is open again. */
  #enter() {
    this.#checkOpen();
    this.#gate = "busy";
  }

  /**
   * A call that is filled with these inputs: the long way, where the latest does not fit.
   * @param {Call | null} latest
   * @param {Inputs} inputs
   * @param {boolean} isChunk
   */
  #prepare(latest, inputs, isChunk) {
    const { contract } = this.session;
    if (!isChunk && contract.wholeOnly !== null) throw this.#wholeOnly("a call of step");
    const known = matchInputs(contract, inputs, this.#known, isChunk);
    checkValues(contract, inputs, known.get("time") ?? 1);
    const call = this.#fitting(latest, known, isChunk);
    if (!call.fill(inputs)) throw new Error("rnnx: a call refused inputs that were checked");
    return call;
  }

  /**
   * The latest call where it has these sizes, else another.
   * @param {Call | null} latest
   * @param {Sizes} known
   * @param {boolean} isChunk
   */
  #fitting(latest, known, isChunk) {
    const isFit = latest !== null && [...known].every(([name, size]) => latest.known.get(name) === size);
    return isFit ? latest : new Call(this.session.contract, this.#engine, known, isChunk);
  }

  /** @param {Call} call */
  async #advance(call) {
    const { outputs, states } = await call.run(this.#states);
    this.#states = states;
    this.#position += call.known.get("time") ?? 1;
    return outputs;
  }

  /**
   * Runs a chunk of a step model: step by step, back to the start of the chunk if one fails.
   * @param {Inputs} inputs
   */
  async #runSteps(inputs) {
    const { contract } = this.session;
    const known = matchInputs(contract, inputs, this.#known, true);
    const steps = known.get("time") ?? 1;
    checkValues(contract, inputs, steps);
    const call = (this.#step = this.#fitting(this.#step, new Map([...known, ["time", 1]]), false));
    const [states, position] = [this.#states, this.#position];
    try {
      /** @type {Outputs} */
      const outputs = {};
      for (let step = 0; step < steps; step++) {
        call.fillStep(inputs, step);
        this.#join(outputs, await this.#advance(call), step, steps);
      }
      return outputs;
    } catch (error) {
      [this.#states, this.#position] = [states, position];
      throw error;
    }
  }

  /**
   * Puts the outputs of one step where they belong in those of the chunk, which the first step makes.
   * @param {Outputs} outputs
   * @param {Outputs} row
   * @param {number} step
   * @param {number} steps
   */
  #join(outputs, row, step, steps) {
    for (const { name, dtype, shape } of this.session.contract.outputs) {
      const axis = axisIndex(withTime(shape), "time");
      const whole = row[name].shape.toSpliced(axis, 0, steps);
      if (step === 0) outputs[name] = Tensor.full(dtype, whole);
      if (!isSame(outputs[name].shape, whole)) {
        throw failed(
          `'${name}' of another size than in the steps of the chunk before: [${row[name].shape.join(", ")}]`,
        );
      }
      putStep(piecesOf(whole, axis, 1), outputs[name].data, step, row[name].data);
    }
  }

  /** @param {number} index */
  #read(index) {
    return fromEngine(this.#states[index]).clone();
  }

  /**
   * Makes states current, all at once.
   * @param {Tensor[]} states
   * @param {number} position
   */
  #replace(states, position) {
    this.#states = this.#toEngine(states);
    this.#position = position;
  }

  /**
   * The engine's tensors over the memory of states, which nothing may write to from then on.
   * @param {Tensor[]} states
   */
  #toEngine(states) {
    return states.map(({ dtype, shape, data }) => this.#engine.tensor(dtype, shape, data));
  }

  /** @param {string} found */
  #wholeOnly(found) {
    return new RnnxError(
      "whole-only",
      `the whole sequence in one call of run, because of ${this.session.contract.wholeOnly}`,
      found,
      "give the whole sequence to run, and reset before the next one",
    );
  }
}
