import assert from "node:assert/strict";
import test from "node:test";
import { frame, openGolden, refuses } from "./golden.js";

test("a refused step of a pool moves no stream", async () => {
  const [session, other] = [await openGolden("gru.onnx"), await openGolden("gru.onnx")];
  const [pool, first, second] = [session.pool(), session.stream(), session.stream()];
  const x = frame([1, 4], 0);
  const step = (/** @type {any[]} */ ...rows) => pool.step(new Map(rows));
  await refuses("streams-disagree", () => step([first, { x }], [other.stream(), { x }]));
  await refuses("streams-disagree", () => step([first, { x }], [session.stream({ batch: 2 }), { x }]));
  await refuses("unknown-input", () => step([first, { x }], [second, { z: x }]));
  assert.equal(first.position, 0);
  const outputs = await step([first, { x }], [second, { x }]);
  assert.deepEqual(outputs.get(first)?.y.data, outputs.get(second)?.y.data);
  assert.equal(first.position, 1);
  assert.equal((await step()).size, 0);
  const [one, two] = [step([first, { x }]), step([second, { x }])];
  await refuses("stream-busy", () => two);
  await one;
  await second.close();
  await refuses("stream-closed", () => step([first, { x }], [second, { x }]));
  await first.step({ x });
  await pool.close();
  await pool.close();
  await refuses("stream-closed", () => step([first, { x }]));
});
