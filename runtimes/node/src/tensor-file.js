import { RnnxError } from "./error.js";
import { DTYPES, Tensor } from "./tensor.js";

/** @typedef {import("./tensor.js").DType} DType */

const LARGEST_HEADER = 100_000_000; // the format's own limit
const DTYPE_OF = new Map(Object.entries(DTYPES).map(([dtype, { code }]) => [code, /** @type {DType} */ (dtype)]));
const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Tensors and metadata by name: what a safetensors file holds. */
export class TensorFile {
  /**
   * @param {ReadonlyMap<string, Tensor>} tensors in the order of their data
   * @param {ReadonlyMap<string, string>} metadata
   */
  constructor(tensors, metadata) {
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /** The names of all tensors, for a message. */
  get names() {
    return this.tensors.size === 0 ? "no tensors" : [...this.tensors.keys()].join(", ");
  }

  /**
   * Checks that the file is of a kind ("trace") in version 1, and belongs to the model at hand.
   * @param {string} kind
   * @param {string} modelId
   * @throws {RnnxError} `not-a-KIND`, `KIND-newer` or `KIND-of-another-model`
   */
  check(kind, modelId) {
    const version = this.metadata.get("version") ?? "";
    if (this.metadata.get("format") !== `rnnx-${kind}` || !/^[0-9]+$/.test(version)) {
      throw new RnnxError(
        `not-a-${kind}`,
        `a ${kind} (metadata format 'rnnx-${kind}' and a version)`,
        `safetensors of format '${this.metadata.get("format") ?? ""}'`,
        `name a ${kind} that rnnx wrote`,
      );
    }
    if (Number(version) > 1) {
      throw new RnnxError(
        `${kind}-newer`,
        `a ${kind} of version 1 at most`,
        `version ${version}`,
        "install a newer rnnx",
      );
    }
    const model = this.metadata.get("model");
    if (model !== modelId) {
      throw new RnnxError(
        `${kind}-of-another-model`,
        `a ${kind} of the model ${modelId}`,
        `one of ${model ?? "no model"}`,
        "use the model file that it was made with",
      );
    }
  }
}

/**
 * Reads safetensors bytes.
 * @param {Uint8Array} data
 * @param {string} what what they should be, for the message: "a trace"
 * @throws {RnnxError} `not-safetensors` for anything that is not whole and well formed
 */
export function readTensors(data, what) {
  const found = decode(data);
  if (found instanceof TensorFile) return found;
  throw new RnnxError(
    "not-safetensors",
    `${what}, in safetensors format`,
    `${data.length} bytes that are not: ${found}`,
    "check the path; if the file was copied, copy it again whole",
  );
}

/**
 * The file, or what is wrong with it.
 * @param {Uint8Array} data
 * @returns {TensorFile | string}
 */
function decode(data) {
  if (data.length < 8) return "too short for a header";
  const size = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
  if (size > Math.min(data.length - 8, LARGEST_HEADER)) return "cut short in the header";
  const header = parseHeader(data.subarray(8, 8 + size));
  if (header === null) return "a malformed header";
  const { __metadata__: metadata = {}, ...entries } = header;
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    return "metadata that is not text";
  }
  const body = data.subarray(8 + size);
  const found = [];
  let [used, total] = [0, 0];
  for (const name of Object.keys(entries).sort()) {
    const entry = entries[name];
    if (!isEntry(entry)) return "a malformed header";
    const [start, end] = entry.data_offsets;
    const tensor = decodeTensor(name, entry, body);
    if (!(tensor instanceof Tensor)) return tensor;
    // Every byte belongs to one tensor, so that a file costs what it is long.
    total += end - start;
    if (total > body.length) return "tensors that share bytes";
    found.push({ name, tensor, start });
    used = Math.max(used, end);
  }
  if (body.length > used) return `${body.length - used} bytes behind the last tensor`;
  if (body.length > total) return "bytes between tensors";
  found.sort((one, other) => one.start - other.start);
  return new TensorFile(new Map(found.map(({ name, tensor }) => [name, tensor])), new Map(Object.entries(metadata)));
}

/** @param {Uint8Array} bytes */
function parseHeader(bytes) {
  try {
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    return isObject(header) ? header : null;
  } catch {
    return null;
  }
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * Whether an entry of the header has the right form. Numbers above 2^53 would not be exact; no file is that large.
 * @param {unknown} entry
 * @returns {entry is {dtype: string, shape: number[], data_offsets: [number, number]}}
 */
function isEntry(entry) {
  if (!isObject(entry) || !DTYPE_OF.has(entry.dtype)) return false;
  const areSizes = [entry.shape, entry.data_offsets].every(
    (numbers) => Array.isArray(numbers) && numbers.every((number) => Number.isSafeInteger(number) && number >= 0),
  );
  return areSizes && entry.data_offsets.length === 2;
}

/**
 * @param {string} name
 * @param {{dtype: string, shape: number[], data_offsets: [number, number]}} entry
 * @param {Uint8Array} body
 * @returns {Tensor | string}
 */
function decodeTensor(name, { dtype: code, shape, data_offsets: [start, end] }, body) {
  const dtype = /** @type {DType} */ (DTYPE_OF.get(code));
  const bytes = shape.reduce((product, size) => product * size, DTYPES[dtype].size);
  if (end - start !== bytes) return `tensor '${name}' of another size than its shape`;
  if (end > body.length) return `cut short in tensor '${name}'`;
  const tensor = Tensor.full(dtype, shape);
  bytesOf(tensor).set(body.subarray(start, end));
  swapBytes(tensor);
  // Any byte but 0 is true there; the engine wants 1.
  if (dtype === "bool") tensor.data.forEach((value, index) => (tensor.data[index] = Math.min(Number(value), 1)));
  return tensor;
}

/**
 * Safetensors bytes: tensors in the order given, those with larger entries first so that all are aligned.
 * @param {readonly [string, Tensor][]} tensors
 * @param {readonly [string, string][]} metadata
 */
export function encodeTensors(tensors, metadata) {
  const sorted = tensors.toSorted(([, one], [, other]) => DTYPES[other.dtype].size - DTYPES[one.dtype].size);
  const texts = metadata.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const entries = [`"__metadata__":{${texts.join(",")}}`];
  let end = 0;
  for (const [name, tensor] of sorted) {
    const start = end;
    end += tensor.data.byteLength;
    const entry = { dtype: DTYPES[tensor.dtype].code, shape: tensor.shape, data_offsets: [start, end] };
    entries.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
  }
  const header = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = Math.ceil(header.length / 8) * 8;
  const data = new Uint8Array(8 + padded + end).fill(0x20, 8, 8 + padded);
  new DataView(data.buffer).setBigUint64(0, BigInt(padded), true);
  data.set(header, 8);
  let place = 8 + padded;
  for (const [, tensor] of sorted) {
    const copy = tensor.clone();
    swapBytes(copy);
    data.set(bytesOf(copy), place);
    place += copy.data.byteLength;
  }
  return data;
}

/** @param {Tensor} tensor */
const bytesOf = ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/**
 * Turns entries around on machines that are not little-endian; it works both ways.
 * @param {Tensor} tensor
 */
function swapBytes(tensor) {
  const bytes = bytesOf(tensor);
  const { size } = DTYPES[tensor.dtype];
  for (let start = 0; !IS_LITTLE_ENDIAN && start < bytes.length; start += size) {
    bytes.subarray(start, start + size).reverse();
  }
}
