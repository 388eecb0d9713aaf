import assert from "node:assert/strict";
import test from "node:test";
import { Sampler, Tensor } from "../src/node.js";
import { float32, openGolden, refuses } from "./golden.js";

test("draws are those of the contract document", () => {
  const sampler = new Sampler(7);
  const numbers = [0x63cbe1e459320dd7n, 0x044c3cd7f43c661cn, 0xe6984080bab12a02n];
  assert.deepEqual(
    numbers.map(() => sampler.nextUint64()),
    numbers,
  );
  sampler.state = 7n;
  assert.equal(sampler.uniform(), 0.3898297483912715);
  sampler.state = 7n;
  const draws = [2, 0, 3, 2, 2, 1, 2, 2];
  assert.deepEqual(
    draws.map(() => sampler.sampleWeights([1, 2, 3, 4])),
    draws,
  );
  // The seed whose first number is 0: u = 0 must not draw a weight of zero.
  assert.equal(new Sampler(0x61c8864680b583ebn).sampleWeights([0, 1]), 1);
});

test("seeds, temperatures, weights and scores that mean nothing are refused", async () => {
  for (const seed of [-1, 1.5, 2 ** 53, 2n ** 64n, -1n, NaN]) await refuses("seed-invalid", () => new Sampler(seed));
  for (const temperature of [-1, NaN, Infinity])
    await refuses("temperature-invalid", () => new Sampler(7, temperature));
  const sampler = new Sampler(2n ** 64n - 1n, 0);
  for (const weights of [[], [0, 0], [1, -1], [NaN], [Number.MAX_VALUE, Number.MAX_VALUE], [1e-310]]) {
    await refuses("weights-invalid", () => sampler.sampleWeights(weights));
  }
  for (const scores of [[], [NaN, 0], [Infinity, 0], [-Infinity, -Infinity]]) {
    await refuses("scores-invalid", () => sampler.sample(float32([scores.length], scores)));
  }
  assert.equal(sampler.sample(float32([4], [1, 3, 3, -Infinity])), 1);
  assert.equal(sampler.state, 2n ** 64n - 1n, "a number was taken");
});

test("a text goes on from its snapshot", async () => {
  const session = await openGolden("characters.onnx");
  const { vocabulary } = session.contract;
  assert.ok(vocabulary);
  assert.equal(vocabulary.decode(vocabulary.encode("é😀")), "é😀");
  await refuses("id-outside-vocabulary", () => vocabulary.decode([37]));
  await refuses("character-outside-vocabulary", () => session.text().read("ä"));
  const text = session.text({ seed: 3, temperature: 0.8 });
  await refuses("prompt-empty", () => text.writeOne());
  await text.read("");
  await refuses("prompt-empty", () => text.writeOne());
  await text.read("abc");
  const take = async (/** @type {import("../src/node.js").TextStream} */ from) => {
    let symbols = "";
    for await (const symbol of from.write(20)) symbols += symbol;
    return symbols;
  };
  await take(text);
  const saved = text.snapshot();
  const other = session.text({ seed: 99, temperature: 0 });
  other.restore(saved);
  const symbols = await take(text);
  assert.equal([...symbols].length, 20);
  assert.equal(await take(other), symbols);
  await text.close();
  await refuses("stream-closed", () => text.writeOne());
});

test("a symbol that could not be run is not drawn", async () => {
  const session = await openGolden("characters.onnx");
  const [text, other] = [session.text({ seed: 3 }), session.text({ seed: 3 })];
  for (const each of [text, other]) await each.read("abc");
  const drawn = await other.writeOne();
  const running = text.read("a");
  await refuses("stream-busy", () => text.writeOne());
  await running;
  // The prompt went on by a symbol, the generator did not.
  await other.close();
  const third = session.text({ seed: 3 });
  await third.read("abca");
  assert.equal(await text.writeOne(), await third.writeOne());
  assert.equal(typeof drawn, "string");
});

test("models without vocabulary make no text", async () => {
  const session = await openGolden("gru.onnx");
  await refuses("not-symbols", () => session.text());
});

test("scores of every float dtype are drawn from", () => {
  for (const dtype of /** @type {const} */ (["float16", "float32", "float64"])) {
    const scores = Tensor.full(dtype, [3], -60);
    scores.data[2] = 0;
    assert.equal(new Sampler(5).sample(scores), 2);
  }
});
