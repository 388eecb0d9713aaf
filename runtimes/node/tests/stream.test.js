import assert from "node:assert/strict";
import test from "node:test";
import { Engine } from "../src/engine.js";
import { RnnxError, Stream, Tensor, open } from "../src/node.js";
import { float32, frame, openGolden, readGolden, refuses, stepOf } from "./golden.js";

test("a model opens from its bytes, and streams outlive their session", async () => {
  const session = await open(await readGolden("gru.onnx"));
  const stream = session.stream();
  await session.close();
  await session.close();
  assert.notDeepEqual(await stepOf(stream, 0), await stepOf(stream, 0));
  assert.equal(stream.position, 2);
  await refuses("session-closed", () => session.stream());
  await stream.close();
  await stream.close();
  await refuses("stream-closed", () => stream.step({}));
  await refuses("stream-closed", () => stream.snapshot());
});

test("outputs are the caller's, and inputs are read when step is called", async () => {
  const session = await openGolden("gru.onnx");
  const [one, other] = [session.stream(), session.stream()];
  const x = frame([1, 4], 0);
  const first = one.step({ x });
  x.data.fill(/** @type {never} */ (9));
  const { y } = await first;
  const kept = y.data.slice();
  assert.deepEqual(kept, await stepOf(other, 0));
  await stepOf(one, 1);
  assert.deepEqual(y.data, kept);
});

test("reset goes back to the start, of rows alone too", async () => {
  const stream = (await openGolden("gru.onnx")).stream({ batch: 3 });
  const first = await stepOf(stream, 0);
  stream.reset([1, 1]);
  const { data } = stream.state("state.h"); // [1, 3, 6]
  assert.deepEqual(data.slice(6, 12), new Float32Array(6));
  assert.notDeepEqual(data.slice(0, 6), new Float32Array(6));
  assert.notDeepEqual(data.slice(12), new Float32Array(6));
  assert.equal(stream.position, 1);
  stream.reset();
  assert.equal(stream.position, 0);
  assert.deepEqual(await stepOf(stream, 0), first);
  await refuses("row-range", () => stream.reset([3]));
  await refuses("row-range", () => stream.reset([-1]));
});

test("an initial state is the start, and what reset goes back to", async () => {
  const start = float32([1, 1, 6], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
  const stream = (await openGolden("gru.onnx")).stream({ initial: { "state.h": start } });
  const kept = start.clone();
  start.data.fill(/** @type {never} */ (9));
  for (let turn = 0; turn < 2; turn++) {
    assert.deepEqual(stream.state("state.h"), kept);
    await stepOf(stream, 0);
    stream.reset();
  }
});

test("what a stream cannot be opened with is refused", async () => {
  const sessions = { gru: await openGolden("gru.onnx"), free: await openGolden("free_dimension.onnx") };
  const start = (/** @type {number[]} */ shape, /** @type {number[]} */ values) => ({
    initial: { "state.h": float32(shape, values) },
  });
  const zeros = [0, 0, 0, 0, 0, 0];
  await refuses("unknown-state", () => sessions.gru.stream({ initial: { h: float32([1, 1, 6], zeros) } }));
  await refuses("wrong-shape", () => sessions.gru.stream(start([6], zeros)));
  await refuses("wrong-shape", () => sessions.gru.stream(start([1, 1, 6], [0])));
  await refuses("non-finite", () => sessions.gru.stream(start([1, 1, 6], [0, NaN, 0, 0, 0, 0])));
  await refuses("wrong-dtype", () =>
    sessions.gru.stream({ initial: { "state.h": Tensor.full("float64", [1, 1, 6]) } }),
  );
  await refuses("empty-batch", () => sessions.gru.stream({ batch: 0 }));
  await refuses("empty-batch", () => sessions.gru.stream({ batch: 1.5 }));
  await refuses("unknown-dimension", () => sessions.gru.stream({ dims: { memory: 3 } }));
  await refuses("missing-dimension", () => sessions.free.stream());
  await refuses("wrong-dimension", () => sessions.free.stream({ dims: { memory: 0 } }));
  await refuses("out-of-memory", () => sessions.free.stream({ batch: 3, dims: { memory: 2 ** 52 } }));
  await refuses("no-batch", async () => (await openGolden("no_batch.onnx")).stream({ batch: 2 }));
});

test("states are read and written, and may be infinite", async () => {
  const stream = (await openGolden("minus_infinity.onnx")).stream();
  assert.equal(stream.state("best").number(5), -Infinity);
  const value = float32([1, 6], [Infinity, 0, 0, 0, 0, 0]);
  stream.setState("best", value);
  value.data[0] = 3;
  assert.deepEqual([stream.state("best").number(0), stream.state("best").number(1)], [Infinity, 0]);
  stream.state("best").data[0] = 3;
  assert.equal(stream.state("best").number(0), Infinity);
  await refuses("non-finite", () => stream.setState("best", float32([1, 6], [NaN, 0, 0, 0, 0, 0])));
  await refuses("unknown-state", () => stream.setState("worst", value));
  await refuses("unknown-state", () => stream.state("worst"));
});

test("an error leaves the states as they were", async () => {
  const stream = (await openGolden("gru.onnx")).stream();
  await stepOf(stream, 0);
  const before = stream.snapshot();
  const bad = float32([1, 4], [0, 0, NaN, 0]);
  await refuses("non-finite", () => stream.step({ x: bad }));
  await refuses("wrong-shape", () => stream.step({ x: float32([1, 4], [0, 0, 0]) }));
  await refuses("wrong-dtype", () => stream.step({ x: Tensor.full("int32", [1, 4]) }));
  await refuses("missing-input", () => stream.step({}));
  await refuses("missing-input", () => stream.step({ x: undefined }));
  await refuses("unknown-input", () => stream.step({ x: frame([1, 4], 0), toString: bad }));
  await refuses("empty-time", () => stream.run({ x: float32([1, 0, 4], []) }));
  await refuses("wrong-shape", () => stream.run({ x: bad }));
  const raw = /** @type {any} */ (new Float32Array(4));
  await assert.rejects(stream.step({ x: raw }), /^TypeError: 'x' must be a Tensor, not Float32Array$/);
  assert.deepEqual(stream.snapshot(), before);
  await stepOf(stream, 1); // and the stream goes on
});

test("a chunk of a step model has time behind the batch", async () => {
  const session = await openGolden("step_only.onnx"); // x float32[batch, 6] -> y float32[batch, 3]
  const chunk = frame([2, 3, 6], 1);
  const { y: joined } = await session.stream({ batch: 2 }).run({ x: chunk }); // [2, 3, 3]
  assert.deepEqual(joined.shape, [2, 3, 3]);
  const stream = session.stream({ batch: 2 });
  for (let step = 0; step < 3; step++) {
    const rows = [0, 1].flatMap((row) =>
      Array.from(/** @type {Float32Array} */ (chunk.data).subarray(row * 18 + step * 6).subarray(0, 6)),
    );
    const { y } = await stream.step({ x: float32([2, 6], rows) });
    assert.deepEqual(y.data.slice(0, 3), joined.data.slice(step * 3, step * 3 + 3));
    assert.deepEqual(y.data.slice(3), joined.data.slice(9 + step * 3, 12 + step * 3));
  }
});

test("a chunk of a step model that fails leaves the states of its start", async () => {
  const stream = (await openGolden("step_only.onnx")).stream();
  await stream.run({ x: frame([1, 2, 6], 0) });
  const before = stream.snapshot();
  const chunk = frame([1, 3, 6], 0);
  chunk.data[15] = NaN;
  await refuses("non-finite", () => stream.run({ x: chunk }));
  assert.deepEqual(stream.snapshot(), before);
});

/** An engine that fails, or gives another shape, at one call. */
class Faulty extends Engine {
  /** @type {(results: Record<string, any>) => void} */
  fault = () => {};
  calls = 0;
  at = Infinity;

  /** @param {Record<string, any>} feeds */
  async run(feeds) {
    const results = { ...(await super.run(feeds)) };
    if (++this.calls === this.at) this.fault(results);
    return results;
  }
}

test("an engine that fails, or gives what the contract does not say, leaves the states of the start of the call", async () => {
  const ort = await import("onnxruntime-node");
  const session = await openGolden("step_only.onnx");
  const engine = new Faulty(ort, await ort.InferenceSession.create(await readGolden("step_only.onnx")));
  const stream = new Stream(session, engine, {}, async () => {});
  await stream.run({ x: frame([1, 2, 6], 0) });
  const before = stream.snapshot();
  const [{ output }] = session.contract.states;
  const wider = new ort.Tensor("float32", new Float32Array(99), [1, 99]);
  for (const fault of [
    () => {
      throw new RnnxError("engine-failed", "", "", "");
    },
    (/** @type {Record<string, any>} */ results) => {
      results.y = wider;
    },
    (/** @type {Record<string, any>} */ results) => {
      results[output] = wider;
    },
  ]) {
    engine.fault = fault;
    for (const [at, call] of /** @type {const} */ ([
      [2, () => stream.run({ x: frame([1, 3, 6], 0) })],
      [1, () => stream.step({ x: frame([1, 6], 0) })],
    ])) {
      engine.at = engine.calls + at;
      await refuses("engine-failed", call);
      assert.deepEqual(stream.snapshot(), before);
    }
  }
  await stream.step({ x: frame([1, 6], 0) });
  assert.equal(stream.position, 3);
});

test("a restored stream goes on bit for bit", async () => {
  const session = await openGolden("lstm.onnx");
  const stream = session.stream();
  for (let step = 0; step < 5; step++) await stepOf(stream, step);
  const saved = stream.snapshot();
  const other = session.stream();
  other.restore(saved);
  assert.equal(other.position, 5);
  for (let step = 5; step < 9; step++) assert.deepEqual(await stepOf(stream, step), await stepOf(other, step));
  await refuses("snapshot-of-another-model", async () => (await openGolden("gru.onnx")).stream().restore(saved));
  await refuses("not-safetensors", () => other.restore(saved.subarray(0, -1)));
  await refuses("snapshot-invalid", () => session.stream({ batch: 2 }).restore(saved));
  assert.equal(other.position, 9);
});

test("defaults and lengths may be left out", async () => {
  const session = await openGolden("default_and_length.onnx"); // x float32[batch, time, 3], gain = 1, lengths
  const total = async (/** @type {Record<string, Tensor>} */ more) => {
    const stream = session.stream({ batch: 2 });
    await stream.run({ x: Tensor.full("float32", [2, 2, 3], 1), ...more });
    return stream.state("total").data;
  };
  const lengths = (/** @type {bigint[]} */ ...values) => ({
    lengths: new Tensor("int64", [2], BigInt64Array.from(values)),
  });
  const plain = await total({});
  assert.deepEqual(await total({ gain: Tensor.full("float32", [2], 1), ...lengths(2n, 2n) }), plain);
  assert.notDeepEqual(await total({ gain: Tensor.full("float32", [2], 2) }), plain);
  assert.deepEqual((await total(lengths(0n, 2n))).slice(0, 3), new Float32Array(3));
  await refuses("length-range", () => total(lengths(0n, 3n)));
  await refuses("length-range", () => total(lengths(-1n, 2n)));
});

test("a whole-only model runs once and never steps", async () => {
  const stream = (await openGolden("whole_only.onnx")).stream();
  const whole = () => stream.run({ x: float32([1, 3], [1, 2, 3]) });
  await refuses("whole-only", () => stream.step({ x: float32([1], [1]) }));
  await whole();
  await refuses("whole-only", whole);
  stream.reset();
  await whole();
});

test("integers are held to their range exactly, and told as they are", async () => {
  const stream = (await openGolden("ids.onnx")).stream();
  const given = (/** @type {bigint} */ id) => ({
    token: new Tensor("int64", [1], BigInt64Array.of(id)),
    shift: Tensor.full("int8", [1]),
    level: Tensor.full("float32", [1]),
  });
  await stream.step(given(36n));
  await refuses("value-range", () => stream.step(given(37n)));
  await assert.rejects(stream.step(given(2n ** 63n - 1n)), /found 9223372036854775807 at index \[0\]/);
});

test("streams share a session", async () => {
  const session = await openGolden("gru.onnx");
  const run = async (/** @type {number} */ offset) => {
    const stream = session.stream();
    const all = [];
    for (let step = 0; step < 50; step++) all.push(await stepOf(stream, offset + step));
    return all;
  };
  const alone = [await run(0), await run(1), await run(2)];
  assert.deepEqual(await Promise.all([run(0), run(1), run(2)]), alone);
});

test("no call gets at a stream while another is running", async () => {
  const stream = (await openGolden("gru.onnx")).stream();
  const calls = [
    () => stepOf(stream, 0),
    () => stream.run({}),
    () => stream.reset(),
    () => stream.state("state.h"),
    () => stream.setState("state.h", Tensor.full("float32", [1, 1, 6])),
    () => stream.snapshot(),
    () => stream.restore(new Uint8Array()),
    () => stream.close(),
  ];
  for (const [index, call] of calls.entries()) {
    const running = stepOf(stream, 0);
    const refused = refuses("stream-busy", call);
    await running;
    await refused;
    assert.equal(stream.position, index + 1);
  }
});
