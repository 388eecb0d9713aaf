import { RnnxError, firstLine } from "./error.js";
import { DTYPES, Tensor } from "./tensor.js";

/**
 * What both onnxruntime-node and onnxruntime-web offer.
 * @typedef {import("onnxruntime-common")} Ort
 * @typedef {import("onnxruntime-common").Tensor} OrtTensor
 * @typedef {import("onnxruntime-common").InferenceSession} OrtSession
 * @typedef {import("./tensor.js").DType} DType
 */

/** A model loaded in ONNX Runtime: what computes a step. */
export class Engine {
  /** @type {Ort} */
  #ort;
  /** @type {OrtSession} */
  #session;

  /**
   * @param {Ort} ort
   * @param {OrtSession} session
   */
  constructor(ort, session) {
    this.#ort = ort;
    this.#session = session;
  }

  /**
   * A tensor for the engine, over the memory of `data`.
   * @param {DType} dtype
   * @param {readonly number[]} shape
   * @param {import("./tensor.js").Entries} data
   * @returns {OrtTensor}
   */
  tensor(dtype, shape, data) {
    const tensor = new this.#ort.Tensor(dtype, /** @type {any} */ (data), shape);
    // Where there is a Float16Array, ONNX Runtime's tensor holds one, which its native part takes for empty.
    if (dtype === "float16" && tensor.data !== data) Object.defineProperty(tensor, "data", { value: data });
    return tensor;
  }

  /**
   * Computes all outputs of the graph.
   * @param {Record<string, OrtTensor>} feeds
   * @returns {Promise<Readonly<Record<string, OrtTensor>>>}
   * @throws {RnnxError} `engine-failed`
   */
  async run(feeds) {
    try {
      return await this.#session.run(feeds);
    } catch (error) {
      throw failed(firstLine(error), error);
    }
  }

  /** Lets go of the model. */
  async release() {
    await this.#session.release();
  }
}

/**
 * The tensor that the engine gave, in its memory.
 * @param {OrtTensor} tensor
 */
export function fromEngine({ type, dims, data }) {
  const dtype = /** @type {DType} */ (type);
  const entries = /** @type {any} */ (data);
  const isOwn = entries instanceof DTYPES[dtype].array;
  return new Tensor(
    dtype,
    [...dims],
    isOwn ? entries : new Uint16Array(entries.buffer, entries.byteOffset, entries.length),
  );
}

/**
 * @typedef {object} Loading
 * @property {Uint8Array | string} model its bytes or path
 * @property {string} label what it is called in messages
 * @property {string} provider "cpu" or "cuda"
 * @property {string} backend what ONNX Runtime calls that provider here
 * @property {number} threads inside one operator
 * @property {{path: string, data: Uint8Array}[]} [externalData] weights that do not lie in the model
 * @property {(reason: string) => string} whyNoCuda what was found instead of a CUDA that works
 */

/**
 * Loads a model on a provider and nowhere else.
 * @param {Ort} ort
 * @param {Loading} loading
 * @throws {RnnxError} `provider-unavailable` or `engine-refused`
 */
export async function loadEngine(ort, { model, label, provider, backend, threads, externalData, whyNoCuda }) {
  const options = {
    executionProviders: [backend],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: /** @type {const} */ (4), // what goes wrong is thrown; nothing is printed beside it
    ...(externalData && { externalData }),
  };
  try {
    const create = /** @type {(model: any, options: object) => Promise<OrtSession>} */ (ort.InferenceSession.create);
    return new Engine(ort, await create.call(ort.InferenceSession, model, options));
  } catch (error) {
    const reason = firstLine(error);
    if (provider === "cuda" && /cuda/i.test(reason)) {
      throw new RnnxError(
        "provider-unavailable",
        "CUDA to work on this machine",
        whyNoCuda(reason),
        "install ONNX Runtime with CUDA (in Python: rnnx[cuda], without onnxruntime), or use provider cpu",
        error,
      );
    }
    throw new RnnxError(
      "engine-refused",
      `${label} to load in ONNX Runtime`,
      reason,
      "export it again, or install a newer ONNX Runtime",
      error,
    );
  }
}

/**
 * @param {string} found
 * @param {unknown} [cause]
 */
export function failed(found, cause) {
  return new RnnxError(
    "engine-failed",
    "ONNX Runtime to compute the step",
    found,
    "the states are unchanged; check that the contract fits the graph, or export the model again",
    cause,
  );
}
