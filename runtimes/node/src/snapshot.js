import { nanIn } from "./checks.js";
import { RnnxError } from "./error.js";
import { axisText, describe, fit } from "./shape.js";
import { Tensor, isSame } from "./tensor.js";
import { encodeTensors, readTensors } from "./tensor-file.js";

/**
 * @typedef {import("./contract.js").Contract} Contract
 * @typedef {import("./shape.js").Sizes} Sizes
 *
 * Where sampling stopped: generator uint64 [batch], temperature float64 [batch], scores [batch, symbols] in the dtype of
 * the vocabulary's output.
 * @typedef {{generator: Tensor, temperature: Tensor, scores: Tensor}} Sampling
 *
 * All that is needed to continue a stream elsewhere, in one layout for all languages. States are in the order of the
 * contract.
 * @typedef {{position: number, states: Tensor[], sampling: Sampling | null}} Snapshot
 */

/**
 * @param {Contract} contract
 * @param {Snapshot} snapshot
 */
export function encodeSnapshot(contract, { position, states, sampling }) {
  /** @type {[string, Tensor][]} */
  const tensors = contract.states.map(({ name }, index) => [`state.${name}`, states[index]]);
  for (const [name, tensor] of Object.entries(sampling ?? {})) tensors.push([`sampling.${name}`, tensor]);
  return encodeTensors(tensors, [
    ["format", "rnnx-snapshot"],
    ["version", "1"],
    ["model", contract.id],
    ["position", String(position)],
  ]);
}

/**
 * Reads a snapshot and checks it against the model and the sizes of the stream it is for.
 * @param {Uint8Array} data
 * @param {Contract} contract
 * @param {Sizes} opened
 * @returns {Snapshot}
 */
export function decodeSnapshot(data, contract, opened) {
  const file = readTensors(data, "a snapshot");
  file.check("snapshot", contract.id);
  const text = file.metadata.get("position") ?? "";
  const position = Number(text);
  if (!/^[0-9]+$/.test(text) || !Number.isSafeInteger(position)) throw invalid("a position in decimal", `'${text}'`);
  let known = opened;
  const states = contract.states.map(({ name, dtype, shape, initial }) => {
    const tensor = file.tensors.get(`state.${name}`);
    if (tensor === undefined) throw invalid(`a tensor 'state.${name}'`, file.names);
    const fitted = fit(shape, tensor.shape, known);
    if (fitted === null || tensor.dtype !== dtype) {
      const wanted = shape.map((axis) => known.get(axis.name) ?? axisText(axis));
      throw invalid(`state '${name}' as ${describe(dtype, wanted)}`, describe(tensor.dtype, tensor.shape));
    }
    const place = nanIn(tensor); // one engine keeps it, another takes it for a number
    if (place !== null && !initial.numbers.some(Number.isNaN)) {
      throw new RnnxError(
        "snapshot-invalid",
        `a snapshot with state '${name}' without NaN`,
        place,
        "take an earlier snapshot: when this one was written, the network had overflowed already",
      );
    }
    known = fitted;
    return tensor;
  });
  return { position, states, sampling: samplingOf(file, contract, known.get("batch") ?? 1) };
}

/**
 * The three sampling tensors, which are there together or not at all.
 * @param {import("./tensor-file.js").TensorFile} file
 * @param {Contract} contract
 * @param {number} batch
 * @returns {Sampling | null}
 */
function samplingOf(file, { vocabulary, outputs }, batch) {
  if (!file.tensors.has("sampling.generator") || vocabulary === null) return null;
  const take = (/** @type {string} */ name, /** @type {string | undefined} */ dtype, /** @type {number[]} */ shape) => {
    const tensor = file.tensors.get(name);
    if (tensor !== undefined && tensor.dtype === dtype && isSame(tensor.shape, shape)) return tensor;
    throw invalid(
      `a tensor '${name}' of shape [${shape.join(", ")}]`,
      tensor === undefined ? "none" : describe(tensor.dtype, tensor.shape),
    );
  };
  const scores = outputs.find(({ name }) => name === vocabulary.output);
  return {
    generator: take("sampling.generator", "uint64", [batch]),
    temperature: take("sampling.temperature", "float64", [batch]),
    scores: take("sampling.scores", scores?.dtype, [batch, vocabulary.symbols.length]),
  };
}

/**
 * @param {string} expected
 * @param {string} found
 */
function invalid(expected, found) {
  return new RnnxError(
    "snapshot-invalid",
    `a snapshot with ${expected}`,
    found,
    "open the stream with the batch and dims that the snapshot was made with",
  );
}
