/**
 * Runs networks with memory, exported by rnnx, one time step at a time.
 *
 * A model is a function (inputs, states) -> (outputs, next states). The contract inside the ONNX file says which graph
 * input is which state, what it starts as, and which axis is the batch and which is time. A Session is a loaded model;
 * a Stream is a sequence being run, and owns the states.
 *
 * What node.js and web.js have in common; each adds `open` over its own package of ONNX Runtime.
 */
export { Contract, Input, Spec, State } from "./contract.js";
export { RnnxError } from "./error.js";
export { Pool } from "./pool.js";
export { replay } from "./replay.js";
export { Sampler } from "./sampling.js";
export { Session } from "./session.js";
export { Stream } from "./stream.js";
export { Tensor, fromFloat16, toFloat16 } from "./tensor.js";
export { readTensors } from "./tensor-file.js";
export { TextStream } from "./text.js";
export { Vocabulary } from "./vocabulary.js";

/** The version of this package, which is rnnx's. */
export const VERSION = "0.1.0";
