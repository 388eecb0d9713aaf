// What a step costs over onnxruntime-node called by hand: node replay/cost.js MODEL [STEPS].
//
// For a model with one float32 input. Blocks of steps take turns, and the best block of each counts. It prints
// microseconds a step as JSON.
import { Tensor, open } from "../src/node.js";

const BLOCK = 1000;

/** @param {() => Promise<unknown>} step */
async function microseconds(step) {
  const start = performance.now();
  for (let index = 0; index < BLOCK; index++) await step();
  return ((performance.now() - start) * 1000) / BLOCK;
}

/**
 * The binding as one would write it for one model: the input's tensor made once, the states that come out fed back.
 * @param {string} path
 * @param {import("../src/contract.js").Contract} contract
 */
async function openByHand(path, { inputs: [input], states }) {
  const ort = await import("onnxruntime-node");
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const tensor = (/** @type {import("../src/contract.js").Spec} */ spec) => {
    const shape = spec.chunkShape(1);
    return new ort.Tensor("float32", new Float32Array(shape.reduce((product, size) => product * size, 1)), shape);
  };
  const x = tensor(input);
  /** @type {Record<string, import("onnxruntime-common").Tensor>} */
  const feeds = { [input.name]: x };
  for (const state of states) feeds[state.input] = tensor(state);
  return async (/** @type {Float32Array} */ frame) => {
    /** @type {Float32Array} */ (x.data).set(frame);
    const results = await session.run(feeds);
    for (const state of states) feeds[state.input] = results[state.output];
    return results;
  };
}

const [path, steps = "20000"] = process.argv.slice(2);
const session = await open(path);
const stream = session.stream();
const [input] = session.contract.inputs;
const x = Tensor.full("float32", input.stepShape());
const frame = /** @type {Float32Array} */ (x.data);
const byHand = await openByHand(path, session.contract);
let [best, bestByHand] = [Infinity, Infinity];
for (let turn = 0; turn < Math.max(Number(steps) / BLOCK, 2); turn++) {
  frame[0] = turn / 100;
  best = Math.min(best, await microseconds(() => stream.step({ [input.name]: x })));
  bestByHand = Math.min(bestByHand, await microseconds(() => byHand(frame)));
}
console.log(JSON.stringify({ step_us: Number(best.toFixed(3)), by_hand_us: Number(bestByHand.toFixed(3)) }));
