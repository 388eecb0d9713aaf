import { RnnxError, firstLine } from "./error.js";
import { ALONE, checkExternal, missing, refused } from "./external.js";
import { openSession } from "./session.js";

export * from "./rnnx.js";

const BACKENDS = { cpu: "wasm", cuda: "cuda" };

/**
 * Loads a model. Weights in other files are read from its own folder alone.
 * @param {string | URL | Uint8Array} source its address, relative to the page, or its bytes; one with weights in another
 *   file needs the address
 * @param {{provider?: string}} [options] provider: what computes a step; "cpu" alone works in a browser
 * @returns {Promise<import("./session.js").Session>} rejects with `file-missing`, `cannot-read`, `not-onnx`,
 *   `external-data-missing`, `external-data-refused`, `no-contract`, `contract-invalid`, `contract-newer`,
 *   `contract-requires`, `contract-graph`, `onnxruntime-missing`, `provider-unknown`, `provider-unavailable` or
 *   `engine-refused`
 */
export async function open(source, { provider = "cpu" } = {}) {
  const address = source instanceof Uint8Array ? null : String(source);
  const data = address === null ? /** @type {Uint8Array} */ (source) : await readFile(address, "an ONNX model");
  const label = address ?? "the model";
  /** @type {{path: string, data: Uint8Array}[]} */
  const externalData = [];
  const sizeOf = async (/** @type {string} */ path) => {
    const weights = await readWeights(String(address), path);
    externalData.push({ path, data: weights });
    return weights.length;
  };
  await checkExternal(data, label, address === null ? null : sizeOf);
  const loading = {
    model: data,
    label,
    provider,
    threads: 1,
    externalData,
    whyNoCuda: () => "an ONNX Runtime built without CUDA",
  };
  return openSession(loadOnnxRuntime, data, loading, BACKENDS);
}

/** @returns {Promise<import("./engine.js").Ort>} */
async function loadOnnxRuntime() {
  try {
    const ort = await import("onnxruntime-web/wasm");
    // More threads need a page that is isolated from other origins, and make a step of a small network slower.
    ort.env.wasm.numThreads ??= 1;
    if (ort.env.logLevel === "warning") ort.env.logLevel = "fatal"; // what goes wrong is thrown; nothing is printed
    return ort;
  } catch (error) {
    throw new RnnxError(
      "onnxruntime-missing",
      "the package onnxruntime-web",
      `none that can be loaded (${firstLine(error)})`,
      "npm install onnxruntime-web, and tell the page where 'onnxruntime-web/wasm' is, in an import map or by a bundler",
      error,
    );
  }
}

/**
 * The weights that lie beside a model, and nowhere else. A location is the name of a file: nothing in it means anything
 * else in an address.
 * @param {string} address of the model
 * @param {string} location
 */
async function readWeights(address, location) {
  try {
    const base = new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href);
    const place = new URL(location.split("/").map(encodeURIComponent).join("/"), base);
    if (!place.href.startsWith(new URL(".", base).href)) throw refused(ALONE, `'${location.slice(0, 80)}'`);
    return await readFile(place.href, "weights");
  } catch (error) {
    if (!(error instanceof RnnxError)) throw missing(location, firstLine(error), error);
    throw error.code === "external-data-refused" ? error : missing(location, error.found, error);
  }
}

/**
 * The bytes at an address.
 * @param {string} address
 * @param {string} what what they should be, for the message: "a trace"
 * @returns {Promise<Uint8Array>} rejects with `file-missing` or `cannot-read`
 */
export async function readFile(address, what) {
  const expected = `${what} at ${address}`;
  let response;
  try {
    response = await fetch(address);
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new RnnxError(
      "cannot-read",
      expected,
      firstLine(error),
      "check the address, and that this page may ask its server",
      error,
    );
  }
  if (response.status === 404) throw new RnnxError("file-missing", expected, "no such file", "check the path");
  throw new RnnxError("cannot-read", expected, `an answer of status ${response.status}`, "name a readable file");
}
