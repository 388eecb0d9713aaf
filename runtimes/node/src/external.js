import { RnnxError } from "./error.js";
import { Malformed, entryOf, fieldsOf, readVarint, wellFormed } from "./model-file.js";

/**
 * Tensors of a model whose values lie in other files: found wherever a tensor may stand, and read from the model's own
 * folder alone. Field numbers are those of onnx.proto.
 *
 * @typedef {{location: string, offset: bigint, bytes: bigint}} External
 */

/** Messages in messages, as protobuf reads them. */
const DEEPEST = 100;
/** How many tensors may share values, on average. */
const SHARED = 4n;
/** Bits of an entry by TensorProto.DataType; 0 for types without a size. */
const BITS = [0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8];
/**
 * Which messages hold which, by the number of the field, as far as they lead to tensors.
 * @type {Record<string, Record<number, string>>}
 */
const INSIDE = {
  model: { 7: "graph", 20: "training", 25: "function" },
  training: { 1: "graph", 2: "graph" },
  function: { 7: "node", 11: "attribute" },
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
};

/**
 * Holds the external tensors of a model against their files.
 * @param {Uint8Array} data
 * @param {string} label
 * @param {((location: string) => Promise<number>) | null} sizeOf the size of a file in the model's folder, asked once
 *   for each; it rejects with an error of `missing` or `refused`. null for a model that is bytes alone
 * @returns {Promise<boolean>} whether there are any; rejects with `not-onnx`, `external-data-missing` or
 *   `external-data-refused`
 */
export async function checkExternal(data, label, sizeOf) {
  const tensors = wellFormed(() => [...externalTensors(data, "model", DEEPEST)], data, label);
  /** @type {Map<string, bigint>} */
  const files = new Map();
  let wanted = 0n;
  for (const { location, offset, bytes } of tensors) {
    if (sizeOf === null) throw missing(location, "bytes without a folder");
    if (!files.has(location)) {
      if (leadsOut(location)) throw refused(ALONE, `'${location.slice(0, 80)}'`);
      files.set(location, BigInt(await sizeOf(location)));
    }
    const size = files.get(location) ?? 0n;
    if (offset + bytes > size) {
      throw refused(`${bytes} bytes from ${offset} on in '${location.slice(0, 80)}'`, `a file of ${size}`);
    }
    wanted += bytes;
  }
  const held = [...files.values()].reduce((sum, size) => sum + size, 0n);
  if (wanted > SHARED * held) {
    throw refused(`at most ${SHARED} times the ${held} bytes of the files that hold it`, String(wanted));
  }
  return tensors.length > 0;
}

/**
 * @param {Uint8Array} message
 * @param {string} kind
 * @param {number} left how many messages deeper it may go
 * @returns {Generator<External>}
 */
function* externalTensors(message, kind, left) {
  if (left < 0) throw new Malformed();
  if (kind === "tensor") {
    const tensor = tensorOf(message);
    if (tensor !== null) yield tensor;
    return;
  }
  for (const { number, isBytes, bytes } of fieldsOf(message)) {
    const inside = INSIDE[kind][number];
    if (inside !== undefined && isBytes) yield* externalTensors(bytes, inside, left - 1);
  }
}

/**
 * @param {Uint8Array} message
 * @returns {External | null} null for a tensor that holds its values itself
 */
function tensorOf(message) {
  let [isExternal, bits] = [false, 0];
  /** @type {number[]} */
  const sizes = [];
  /** @type {Map<string, string>} */
  const said = new Map();
  for (const { number, isBytes, value, bytes } of fieldsOf(message)) {
    if (number === 13 || (number === 14 && value === 1)) isExternal = true;
    if (number === 13 && isBytes) {
      const [key, text] = entryOf(bytes);
      said.set(key, text);
    } else if (number === 2 && !isBytes) bits = BITS[value] ?? 0;
    else if (number === 1 && !isBytes) sizes.push(value);
    else if (number === 1) {
      for (let place = 0; place < bytes.length; ) {
        const size = readVarint(bytes, place);
        sizes.push(size.value);
        place = size.end;
      }
    }
  }
  if (!isExternal) return null;
  if (bits === 0) throw refused("an external tensor of a dtype with a size", "one of another");
  const bytes = (entriesOf(sizes) * BigInt(bits) + 7n) / 8n;
  const [offset, length] = [sizeOf("offset", said, 0n), sizeOf("length", said, bytes)];
  if (length !== bytes) throw refused(`an external tensor of ${bytes} bytes, as its shape has`, `length ${length}`);
  return { location: said.get("location") ?? "", offset, bytes };
}

/**
 * The product of sizes; one beyond 64 bits, which no file has, is some number beyond them.
 * @param {number[]} sizes
 */
function entriesOf(sizes) {
  let entries = 1n;
  if (sizes.includes(0)) return 0n;
  for (const size of sizes) if (entries < 1n << 64n) entries *= BigInt(size);
  return entries;
}

/**
 * @param {string} name
 * @param {Map<string, string>} said
 * @param {bigint} otherwise
 */
function sizeOf(name, said, otherwise) {
  const text = said.get(name);
  if (text === undefined) return otherwise;
  if (!/^[0-9]{1,19}$/.test(text)) {
    throw refused(`a whole number of bytes as ${name} of an external tensor`, `'${text.slice(0, 40)}'`);
  }
  return BigInt(text);
}

/**
 * Whether a location leads out of a folder by its words alone, in the ways of any system.
 * @param {string} location
 */
function leadsOut(location) {
  const parts = location.split(/[/\\]/);
  return parts[0] === "" || location[1] === ":" || location.includes("\0") || parts.includes("..");
}

/** What is expected of a location. */
export const ALONE = "external data in a file of the model's folder";

/**
 * @param {string} location
 * @param {string} found
 * @param {unknown} [cause]
 */
export function missing(location, found, cause) {
  return new RnnxError(
    "external-data-missing",
    `the model's weights in '${location.slice(0, 80)}' beside it`,
    found,
    "keep both files together and load the model by its path",
    cause,
  );
}

/**
 * @param {string} expected
 * @param {string} found
 */
export function refused(expected, found) {
  return new RnnxError("external-data-refused", expected, found, "export the model again, or ask whoever made it");
}
