import { RnnxError, firstLine } from "./error.js";
import { externalFiles } from "./model-file.js";
import { openSession } from "./session.js";

export * from "./rnnx.js";

const BACKENDS = { cpu: "wasm", cuda: "cuda" };

/**
 * Loads a model.
 * @param {string | URL | Uint8Array} source its address, relative to the page, or its bytes; one with weights in another
 *   file needs the address
 * @param {{provider?: string}} [options] provider: what computes a step; "cpu" alone works in a browser
 * @returns {Promise<import("./session.js").Session>} rejects with `file-missing`, `cannot-read`, `not-onnx`,
 *   `no-contract`, `contract-invalid`, `contract-newer`, `contract-requires`, `contract-graph`,
 *   `external-data-missing`, `onnxruntime-missing`, `provider-unknown`, `provider-unavailable` or `engine-refused`
 */
export async function open(source, { provider = "cpu" } = {}) {
  const address = source instanceof Uint8Array ? null : String(source);
  const data = address === null ? /** @type {Uint8Array} */ (source) : await readFile(address, "an ONNX model");
  const label = address ?? "the model";
  const externalData = address === null ? [] : await readWeights(data, address);
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
 * The weights that lie beside a model, and nowhere else.
 * @param {Uint8Array} data
 * @param {string} address of the model
 */
async function readWeights(data, address) {
  const base = new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href);
  return Promise.all(
    externalFiles(data, address).map(async (path) => {
      const place = new URL(path, base);
      try {
        if (!place.href.startsWith(new URL(".", base).href)) throw new Error("a place outside its folder");
        return { path, data: await readFile(place.href, "weights") };
      } catch (error) {
        throw new RnnxError(
          "external-data-missing",
          `the model's weights in ${path} beside it`,
          error instanceof RnnxError ? error.found : firstLine(error),
          "keep both files together and load the model by its path",
          error,
        );
      }
    }),
  );
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
