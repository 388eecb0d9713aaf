import { RnnxError } from "./error.js";
import { loadEngine } from "./engine.js";
import { contractOf } from "./model-file.js";
import { Pool } from "./pool.js";
import { Sampler } from "./sampling.js";
import { Stream } from "./stream.js";
import { TextStream } from "./text.js";

/**
 * @typedef {import("./engine.js").Engine} Engine
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./tensor.js").Tensor} Tensor
 *
 * @typedef {object} StreamOptions
 * @property {number} [batch] sequences that run side by side, one to a row; 1 if not given
 * @property {Record<string, number>} [dims] sizes of free dimensions; required for those that a state has
 * @property {Record<string, Tensor>} [initial] other starts than the contract's, by state; reset goes back to them
 *
 * @typedef {object} TextOptions
 * @property {number | bigint} [seed] unsigned 64 bit; 0 if not given. The same seed gives the same text in every language
 * @property {number} [temperature] 0 for the best symbol each time, 1, the default, for the model's own probabilities
 */

/** A loaded model. Any number of streams share it. */
export class Session {
  #engine;
  #streams = 0; // that are open
  #isClosed = false;

  /**
   * @param {Contract} contract what the model takes, gives and carries. Leave it as it is
   * @param {string} provider the name of what computes a step
   * @param {Engine} engine
   */
  constructor(contract, provider, engine) {
    this.contract = contract;
    this.provider = provider;
    this.#engine = engine;
  }

  /** The identity of the model; snapshots and traces are tied to it. */
  get id() {
    return this.contract.id;
  }

  /**
   * Opens a stream with states at their start.
   * @param {StreamOptions} [options]
   * @throws {RnnxError} `unknown-dimension`, `wrong-dimension`, `empty-batch`, `no-batch`, `missing-dimension`,
   *   `unknown-state`, `wrong-dtype`, `wrong-shape`, `non-finite`, `out-of-memory` or `session-closed`
   */
  stream(options = {}) {
    if (this.#isClosed) {
      throw new RnnxError("session-closed", "a session that is open", "one that was closed", "open the model again");
    }
    const stream = new Stream(this, this.#engine, options, () => this.#leave());
    this.#streams++;
    return stream;
  }

  /**
   * Opens a pool, which steps many streams as one batch.
   * @throws {RnnxError} `whole-only`, `no-batch`, `shared-state` or `shared-output`
   */
  pool() {
    return new Pool(this);
  }

  /**
   * Starts a text.
   * @param {TextOptions} [options]
   * @throws {RnnxError} `not-symbols` for a model without vocabulary, `seed-invalid`, `temperature-invalid`, and those
   *   of `stream`
   */
  text({ seed = 0, temperature = 1 } = {}) {
    const { vocabulary } = this.contract;
    if (vocabulary === null) {
      throw new RnnxError(
        "not-symbols",
        "a model with a vocabulary, to make text with",
        "one without, which takes arrays",
        "give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'",
      );
    }
    const sampler = new Sampler(seed, temperature);
    return new TextStream(this.stream(), vocabulary, sampler);
  }

  /** Lets go of the model, once the last of its streams is closed. Closing twice is fine. */
  async close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#streams === 0) await this.#engine.release();
  }

  async #leave() {
    this.#streams--;
    if (this.#isClosed && this.#streams === 0) await this.#engine.release();
  }
}

/**
 * Loads a model over either package of ONNX Runtime.
 * @param {() => Promise<import("./engine.js").Ort>} load the package; called once the contract is known to be good
 * @param {Uint8Array} data
 * @param {{label: string, provider: string} & Omit<import("./engine.js").Loading, "backend">} loading
 * @param {Readonly<Record<string, string>>} backends what ONNX Runtime calls each provider here
 */
export async function openSession(load, data, loading, backends) {
  const { label, provider } = loading;
  if (!Object.hasOwn(backends, provider)) {
    throw new RnnxError(
      "provider-unknown",
      `a provider out of ${Object.keys(backends).join(", ")}`,
      `'${provider}'`,
      "choose one of these",
    );
  }
  const contract = contractOf(data, label);
  const engine = await loadEngine(await load(), { ...loading, backend: backends[provider] });
  return new Session(contract, provider, engine);
}
