import { RnnxError } from "./error.js";
import { axisIndex, piecesOf, resolve, takeStep } from "./shape.js";
import { Tensor, setNumber } from "./tensor.js";

/** Text being made: a stream of batch 1, a sampler, and the scores that the next symbol is drawn from. */
export class TextStream {
  #stream;
  #vocabulary;
  #sampler;
  /** @type {import("./contract.js").Input} */
  #input;
  /** @type {import("./contract.js").Spec} */
  #output;
  /** @type {Tensor | null} scores [symbols] of the latest step; nothing is drawn from them yet */
  #scores = null;

  /**
   * Start one with `session.text()`.
   * @param {import("./stream.js").Stream} stream
   * @param {import("./vocabulary.js").Vocabulary} vocabulary
   * @param {import("./sampling.js").Sampler} sampler
   */
  constructor(stream, vocabulary, sampler) {
    this.#stream = stream;
    this.#vocabulary = vocabulary;
    this.#sampler = sampler;
    const { inputs, outputs } = stream.session.contract;
    // Both exist, which the contract was checked for.
    [this.#input] = inputs.filter(({ name }) => name === vocabulary.input);
    [this.#output] = outputs.filter(({ name }) => name === vocabulary.output);
  }

  /**
   * Runs a text, the prompt, through the model; its symbols draw no number.
   * @param {string} text
   * @returns {Promise<void>} rejects with `character-outside-vocabulary`; nothing was run then
   */
  async read(text) {
    const ids = this.#vocabulary.encode(text, "prompt");
    if (ids.length === 0) return;
    const { contract } = this.#stream.session;
    const known = new Map([
      ["batch", 1],
      ["time", ids.length],
    ]);
    const chunk = Tensor.full(this.#input.dtype, resolve(contract.callerShape(this.#input, true), known) ?? []);
    for (const [index, id] of ids.entries()) setNumber(chunk, index, id);
    const given = (await this.#stream.run({ [this.#input.name]: chunk }))[this.#output.name];
    const axes = contract.callerShape(this.#output, true);
    const axis = axisIndex(axes, "time");
    const scores = Tensor.full(given.dtype, [this.#vocabulary.symbols.length]);
    if (axis < 0) scores.data.set(/** @type {any} */ (given.data));
    else takeStep(piecesOf(given.shape, axis, axes[axis].factor), given.data, ids.length - 1, scores.data);
    this.#scores = scores;
  }

  /**
   * Draws the next symbol and runs it as a step.
   * @returns {Promise<string>} the symbol; rejects with `prompt-empty` if nothing was read yet, `scores-invalid`, and as
   *   `stream.step` does; nothing changes then
   */
  async writeOne() {
    if (this.#scores === null) {
      throw new RnnxError(
        "prompt-empty",
        "a prompt of at least one character",
        "none",
        "give the characters the text should begin with",
      );
    }
    const before = this.#sampler.state;
    const drawn = this.#sampler.sample(this.#scores);
    const token = Tensor.full(this.#input.dtype, this.#input.stepShape(), drawn);
    try {
      // Run before it is given out, so that the scores always belong to the latest symbol given.
      const outputs = await this.#stream.step({ [this.#input.name]: token });
      const { dtype, data } = outputs[this.#output.name];
      this.#scores = new Tensor(dtype, [data.length], data);
    } catch (error) {
      this.#sampler.state = before;
      throw error;
    }
    return this.#vocabulary.symbols[drawn];
  }

  /**
   * Gives so many symbols that continue what was read and written so far; throws as `writeOne` rejects.
   * @param {number} length
   */
  async *write(length) {
    for (let written = 0; written < length; written++) yield await this.writeOne();
  }

  /** All that is needed to continue exactly here, sampling included. */
  snapshot() {
    if (this.#scores === null) return this.#stream.snapshot();
    const { dtype, data } = this.#scores;
    return this.#stream.snapshot({
      generator: new Tensor("uint64", [1], BigUint64Array.of(this.#sampler.state)),
      temperature: new Tensor("float64", [1], Float64Array.of(this.#sampler.temperature)),
      scores: new Tensor(dtype, [1, data.length], data),
    });
  }

  /**
   * Continues where a snapshot was made, with its generator and temperature if it has them. Throws as `stream.restore`.
   * @param {Uint8Array} data
   */
  restore(data) {
    const sampling = this.#stream.restore(data);
    this.#scores = sampling && new Tensor(sampling.scores.dtype, [sampling.scores.data.length], sampling.scores.data);
    if (sampling === null) return;
    this.#sampler.state = BigInt(sampling.generator.data[0]);
    this.#sampler.temperature = sampling.temperature.number(0);
  }

  /** Lets go of the stream. */
  close() {
    return this.#stream.close();
  }
}
