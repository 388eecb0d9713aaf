import { parseContract } from "./contract-json.js";
import { RnnxError } from "./error.js";
import { axisText, describe } from "./shape.js";
import { DTYPES } from "./tensor.js";

/**
 * Reading an ONNX file as far as a contract goes: metadata, and the signature of its graph.
 * Field numbers are those of onnx.proto; the encoding is protobuf's.
 *
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./contract.js").Spec} Spec
 *
 * A graph input or output as the file declares it; a dimension of "" is left open.
 * @typedef {{dtype: string, shape: string[]}} GraphValue
 *
 * @typedef {object} ModelFile
 * @property {string | null} contract the JSON
 * @property {Map<string, GraphValue>} inputs
 * @property {Map<string, GraphValue>} outputs
 */

/** Bytes that are no protobuf message. */
export class Malformed extends Error {}

/**
 * The contract inside a model, checked against its graph.
 * @param {Uint8Array} data
 * @param {string} label what the model is called in messages
 * @returns {Contract}
 * @throws {RnnxError} `not-onnx`, `no-contract`, `contract-invalid`, `contract-newer`, `contract-requires` or
 *   `contract-graph`
 */
export function contractOf(data, label) {
  const file = wellFormed(() => parseModel(data), data, label);
  if (file.contract === null) {
    throw new RnnxError(
      "no-contract",
      `an rnnx contract in ${label}`,
      "an ONNX model without one",
      "export it with 'rnnx export'",
    );
  }
  const contract = parseContract(file.contract);
  const { inputs, outputs, states } = contract;
  const named = (/** @type {Spec} */ spec) => /** @type {const} */ ([spec.name, spec]);
  const given = new Map([...inputs.map(named), ...states.map((state) => /** @type {const} */ ([state.input, state]))]);
  const taken = new Map([
    ...outputs.map(named),
    ...states.map((state) => /** @type {const} */ ([state.output, state])),
  ]);
  agree(label, "input", given, file.inputs);
  agree(label, "output", taken, file.outputs);
  return contract;
}

/**
 * What `parse` makes of a model.
 * @template T
 * @param {() => T} parse
 * @param {Uint8Array} data
 * @param {string} label
 * @throws {RnnxError} `not-onnx`
 */
export function wellFormed(parse, data, label) {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new RnnxError(
      "not-onnx",
      `an ONNX model in ${label}`,
      `${data.length} bytes that are none, or are cut short`,
      "name a file that 'rnnx export' wrote, or export it again",
    );
  }
}

/**
 * @param {string} label
 * @param {string} kind
 * @param {Map<string, Spec>} specs
 * @param {Map<string, GraphValue>} values
 */
function agree(label, kind, specs, values) {
  const fail = (/** @type {string} */ what, /** @type {string} */ ours, /** @type {string} */ theirs) =>
    new RnnxError(
      "contract-graph",
      `contract and graph of ${label} to agree on ${what}`,
      `${ours} in the contract, ${theirs} in the graph`,
      "export the model again with 'rnnx export'",
    );
  const [ours, theirs] = [specs, values].map((map) => [...map.keys()].sort().join(", ") || "none");
  if (ours !== theirs) throw fail(`the ${kind}s`, ours, theirs);
  for (const [name, { dtype, shape }] of [...specs].sort()) {
    const value = /** @type {GraphValue} */ (values.get(name));
    const fits =
      dtype === value.dtype &&
      shape.length === value.shape.length &&
      value.shape.every((size, axis) => size === "" || size === axisText(shape[axis]));
    if (!fits) throw fail(`${kind} '${name}'`, describe(dtype, shape), describe(value.dtype, value.shape));
  }
}

/**
 * @param {Uint8Array} data
 * @returns {ModelFile}
 */
function parseModel(data) {
  /** @type {ModelFile} */
  const file = { contract: null, inputs: new Map(), outputs: new Map() };
  let [graph, hasVersion, hasOperators] = [/** @type {Uint8Array | null} */ (null), false, false];
  for (const { number, value, bytes } of fieldsOf(data)) {
    if (number === 1) hasVersion = value !== 0;
    else if (number === 7) graph = bytes;
    else if (number === 8) hasOperators = true;
    else if (number === 14) {
      const [key, text] = entryOf(bytes);
      if (key === "rnnx.contract") file.contract = text;
    }
  }
  if (graph === null || !hasVersion || !hasOperators) throw new Malformed();
  const initializers = [];
  for (const { number, bytes } of fieldsOf(graph)) {
    if (number === 5) initializers.push(...fieldsOf(bytes).filter((field) => field.number === 8));
    else if (number === 11) file.inputs.set(...valueOf(bytes));
    else if (number === 12) file.outputs.set(...valueOf(bytes));
  }
  for (const { bytes } of initializers) file.inputs.delete(textOf(bytes));
  return file;
}

/**
 * Key and value of a StringStringEntryProto.
 * @param {Uint8Array} message
 */
export function entryOf(message) {
  const entry = ["", "", ""];
  for (const { number, bytes } of fieldsOf(message)) entry[Math.min(number, 3) - 1] = textOf(bytes);
  return entry;
}

/**
 * Name and declaration of a ValueInfoProto.
 * @param {Uint8Array} message
 * @returns {[string, GraphValue]}
 */
function valueOf(message) {
  let name = "";
  const value = { dtype: "", shape: /** @type {string[]} */ ([]) };
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === 1) name = textOf(bytes);
    if (number !== 2) continue;
    for (const type of fieldsOf(bytes)) {
      if (type.number === 1) readTensorType(type.bytes, value);
    }
  }
  return [name, value];
}

/**
 * @param {Uint8Array} message
 * @param {GraphValue} value
 */
function readTensorType(message, value) {
  for (const { number, value: code, bytes } of fieldsOf(message)) {
    if (number === 1) {
      value.dtype = Object.entries(DTYPES).find(([, { onnx }]) => onnx === code)?.[0] ?? "another type";
    } else if (number === 2) {
      value.shape = fieldsOf(bytes)
        .filter((field) => field.number === 1)
        .map((field) => dimensionOf(field.bytes));
    }
  }
}

/** @param {Uint8Array} message */
function dimensionOf(message) {
  let text = "";
  for (const { number, value, bytes } of fieldsOf(message)) {
    if (number === 1) text = String(value);
    else if (number === 2) text = textOf(bytes);
  }
  return text;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @param {Uint8Array} bytes */
function textOf(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Malformed();
  }
}

/**
 * The fields of a protobuf message: number, and the value of a varint or the bytes of anything else. `isBytes` where
 * the message says how many they are.
 * @param {Uint8Array} message
 */
export function fieldsOf(message) {
  const fields = [];
  for (let place = 0; place < message.length; ) {
    const tag = readVarint(message, place);
    place = tag.end;
    const number = Math.floor(tag.value / 8);
    const kind = tag.value % 8;
    let [value, length] = [0, 0];
    if (kind === 0 || kind === 2) {
      const varint = readVarint(message, place);
      place = varint.end;
      if (kind === 0) value = varint.value;
      else length = varint.value;
    } else if (kind === 1 || kind === 5) {
      length = kind === 1 ? 8 : 4;
    } else {
      throw new Malformed();
    }
    if (number === 0 || length > message.length - place) throw new Malformed();
    fields.push({ number, isBytes: kind === 2, value, bytes: message.subarray(place, place + length) });
    place += length;
  }
  return fields;
}

/**
 * An unsigned number in groups of 7 bits, at most 64 bits in all, and where it ends.
 * @param {Uint8Array} message
 * @param {number} place
 */
export function readVarint(message, place) {
  let value = 0;
  for (let group = 0; group < 10; group++) {
    const byte = message[place + group];
    if (byte === undefined || (group === 9 && byte > 1)) break;
    value += (byte & 127) * 2 ** (7 * group);
    if (byte < 128) return { value, end: place + group + 1 };
  }
  throw new Malformed();
}
