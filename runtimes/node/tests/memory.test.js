import assert from "node:assert/strict";
import test from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Tensor, open } from "../src/node.js";
import { readGolden } from "./golden.js";

/** @type {WebAssembly.Memory[]} what onnxruntime-web computes in, which runs in Node too */
const heaps = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  /** @param {WebAssembly.MemoryDescriptor} descriptor */
  constructor(descriptor) {
    super(descriptor);
    heaps.push(this);
  }
};

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");

/**
 * Megabytes in use after so many steps: of objects, of the process, and of the heaps of WebAssembly.
 * @param {import("../src/stream.js").Stream} stream
 * @param {number} steps
 */
async function megabytesAfter(stream, steps) {
  const x = Tensor.full("float32", [1, 4]);
  for (let step = 0; step < steps; step++) {
    x.data[0] = step % 2;
    await stream.step({ x });
  }
  collect();
  const { rss, heapUsed, external } = process.memoryUsage();
  const heap = heaps.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
  return { objects: (heapUsed + external) / 2 ** 20, process: rss / 2 ** 20, heap: heap / 2 ** 20 };
}

test("100,000 steps take no more memory in Node", async () => {
  const stream = (await open(await readGolden("gru.onnx"))).stream();
  const before = await megabytesAfter(stream, 20_000);
  const after = await megabytesAfter(stream, 100_000);
  assert.equal(stream.position, 120_000);
  assert.ok(after.objects - before.objects < 1, `${after.objects - before.objects} MB more of objects`);
  assert.ok(after.process - before.process < 16, `${after.process - before.process} MB more in all`);
});

test("100,000 steps take no more memory in WebAssembly", async () => {
  const { open } = await import("../src/web.js");
  const stream = (await open(await readGolden("gru.onnx"))).stream();
  const before = await megabytesAfter(stream, 20_000);
  const after = await megabytesAfter(stream, 100_000);
  assert.ok(before.heap > 0);
  assert.ok(after.objects - before.objects < 1, `${after.objects - before.objects} MB more of objects`);
  assert.equal(after.heap, before.heap);
});
