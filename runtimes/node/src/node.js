import { existsSync } from "node:fs";
import * as fs from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { getSystemErrorMap } from "node:util";
import { RnnxError, firstLine } from "./error.js";
import { sizeBeside } from "./external-files.js";
import { checkExternal } from "./external.js";
import { openSession } from "./session.js";

export * from "./rnnx.js";

const BACKENDS = { cpu: "cpu", cuda: "cuda" };

/**
 * Loads a model. Weights in other files are read from its own folder alone.
 * @param {string | URL | Uint8Array} source its path, or its bytes; one with weights in another file needs the path
 * @param {{provider?: string, threads?: number}} [options] provider: what computes a step, "cpu" or "cuda"; one that does
 *   not work is an error, never another one. threads: those inside one operator; one, the default, is the fastest for a
 *   step of a small network
 * @returns {Promise<import("./session.js").Session>} rejects with `file-missing`, `cannot-read`, `not-onnx`,
 *   `external-data-missing`, `external-data-refused`, `no-contract`, `contract-invalid`, `contract-newer`,
 *   `contract-requires`, `contract-graph`, `onnxruntime-missing`, `provider-unknown`, `provider-unavailable` or
 *   `engine-refused`
 */
export async function open(source, { provider = "cpu", threads = 1 } = {}) {
  const path = source instanceof Uint8Array ? null : source instanceof URL ? fileURLToPath(source) : source;
  const data = path === null ? /** @type {Uint8Array} */ (source) : await readFile(path, "an ONNX model");
  const label = path ?? "the model";
  const isExternal = await checkExternal(data, label, path === null ? null : (location) => sizeBeside(path, location));
  // With weights beside the file, ONNX Runtime has to find them by the file's place.
  const model = isExternal && path !== null ? path : data;
  return openSession(loadOnnxRuntime, data, { model, label, provider, threads, whyNoCuda }, BACKENDS);
}

/** @returns {Promise<import("./engine.js").Ort>} */
async function loadOnnxRuntime() {
  // Official builds report their use over the network unless this says otherwise before they are loaded.
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  try {
    const ort = await importOnnxRuntime();
    // What goes wrong is thrown; nothing is printed beside it.
    if (ort.env.logLevel === "warning") ort.env.logLevel = "fatal";
    return ort;
  } catch (error) {
    throw new RnnxError(
      "onnxruntime-missing",
      "the package onnxruntime-node",
      `none that can be loaded (${firstLine(error)})`,
      "npm install --ignore-scripts onnxruntime-node",
      error,
    );
  }
}

/**
 * The package, from where this one lies, else from where the program does: `npm install FOLDER` makes a link, and
 * what lies beside the link is not beside its folder.
 */
async function importOnnxRuntime() {
  try {
    return await import("onnxruntime-node");
  } catch (error) {
    const place = resolved("onnxruntime-node", program());
    if (place === null) throw error;
    return import(pathToFileURL(place).href);
  }
}

/** The file that was started, or what would be one in its folder. */
const program = () => process.argv[1] ?? join(process.cwd(), "program.js");

/**
 * Where a module is found from a file, or null.
 * @param {string} name
 * @param {string} from
 */
function resolved(name, from) {
  try {
    return createRequire(from).resolve(name);
  } catch {
    return null;
  }
}

/**
 * What was found instead of a CUDA that works. The binding says the same of a library that is not there and of one
 * that cannot be loaded.
 * @param {string} reason
 */
function whyNoCuda(reason) {
  const manifest = "onnxruntime-node/package.json";
  const binding = resolved(manifest, import.meta.url) ?? resolved(manifest, program()) ?? "";
  const name = process.platform === "win32" ? "onnxruntime_providers_cuda.dll" : "libonnxruntime_providers_cuda.so";
  const library = join(dirname(binding), "bin", "napi-v6", process.platform, process.arch, name);
  return existsSync(library) ? reason : "an ONNX Runtime built without CUDA";
}

/**
 * The bytes of a file.
 * @param {string} path
 * @param {string} what what it should be, for the message: "a trace"
 * @returns {Promise<Uint8Array>} rejects with `file-missing` or `cannot-read`
 */
export async function readFile(path, what) {
  const expected = `${what} at ${path}`;
  try {
    return await fs.readFile(path);
  } catch (error) {
    const { code, errno = 0 } = /** @type {NodeJS.ErrnoException} */ (error);
    if (code === "ENOENT") throw new RnnxError("file-missing", expected, "no such file", "check the path", error);
    const reason = code === "EISDIR" ? "a folder" : (getSystemErrorMap().get(errno)?.[1] ?? firstLine(error));
    throw new RnnxError("cannot-read", expected, reason, "name a readable file", error);
  }
}
