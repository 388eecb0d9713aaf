import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Tensor, RnnxError, open } from "../src/node.js";

export const golden = (/** @type {string} */ name) => new URL(`../../../parity_tests/golden/${name}`, import.meta.url);
export const openGolden = (/** @type {string} */ name) => open(golden(name));
export const readGolden = (/** @type {string} */ name) => readFile(golden(name));

/**
 * @param {string} code
 * @param {() => unknown} call which throws or rejects
 */
export async function refuses(code, call) {
  await assert.rejects(
    async () => call(),
    (error) => {
      assert.ok(error instanceof RnnxError, String(error));
      assert.equal(error.code, code);
      return true;
    },
  );
}

/**
 * float32 values that differ from step to step.
 * @param {number[]} shape
 * @param {number} step
 */
export function frame(shape, step) {
  const tensor = Tensor.full("float32", shape);
  for (let index = 0; index < tensor.data.length; index++)
    tensor.data[index] = ((step * 31 + index * 7) % 19) / 9.5 - 1;
  return tensor;
}

/**
 * @param {number[]} shape
 * @param {number[]} values
 */
export const float32 = (shape, values) => new Tensor("float32", shape, Float32Array.from(values));

/**
 * The output y of one step of the models with 4 inputs.
 * @param {import("../src/stream.js").Stream} stream
 * @param {number} step
 */
export async function stepOf(stream, step) {
  const { y } = await stream.step({ x: frame([stream.batch, 4], step) });
  return y.data;
}
