import assert from "node:assert/strict";
import test from "node:test";
import { Constant } from "../src/constant.js";
import { parseContract } from "../src/contract-json.js";
import { RnnxError, Tensor, fromFloat16, open, readTensors, toFloat16 } from "../src/node.js";
import { encodeTensors } from "../src/tensor-file.js";
import { golden, openGolden, readGolden, refuses } from "./golden.js";

test("half floats round to nearest", async () => {
  for (let bits = 0; bits < 1 << 16; bits++) {
    const number = fromFloat16(bits);
    if (!Number.isNaN(number)) assert.equal(toFloat16(number), bits);
  }
  /** @type {[number, number][]} */
  const table = [
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [65519, 0x7bff],
    [65520, 0x7c00],
    [2 ** -25, 0],
    [1.5 * 2 ** -25, 1],
    [-2, 0xc000],
    [2047.9999, 0x6800],
    [-0, 0x8000],
    [NaN, 0x7e00],
  ];
  for (const [number, bits] of table) assert.equal(toFloat16(number), bits, String(number));
  const stream = (await openGolden("half.onnx")).stream();
  for (let step = 0; step < 3; step++) {
    const { y } = await stream.step({ x: Tensor.full("float16", [1, 3], 0.5) });
    assert.ok(y.data instanceof Uint16Array);
    assert.notEqual(y.number(0), 0);
  }
  assert.notEqual(stream.state("lstm.h").number(0), 0);
  await refuses("non-finite", () => stream.step({ x: Tensor.full("float16", [1, 3], Infinity) }));
});

test("a tensor holds the array of its dtype alone", async () => {
  await refuses("wrong-dtype", () => new Tensor("float32", [1], new Float64Array(1)));
  await refuses("wrong-dtype", () => new Tensor("int64", [1], new Int32Array(1)));
  await refuses("wrong-dtype", () => new Tensor("float32", [1], /** @type {any} */ ([1])));
  await refuses("wrong-dtype", () => new Tensor(/** @type {any} */ ("float8"), [1], new Uint8Array(1)));
  assert.deepEqual(Tensor.full("int64", [2], -2.5).data, BigInt64Array.of(-2n, -2n));
});

/**
 * @param {string} header
 * @param {number[]} body
 */
function fileOf(header, ...body) {
  const text = new TextEncoder().encode(header);
  const data = new Uint8Array(8 + text.length + body.length);
  new DataView(data.buffer).setBigUint64(0, BigInt(text.length), true);
  data.set(text, 8);
  data.set(body, 8 + text.length);
  return data;
}

test("tensor files are read with care", async () => {
  const read = (/** @type {string} */ header, /** @type {number[]} */ ...body) =>
    readTensors(fileOf(header, ...body), "a file");
  const header = '{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}';
  assert.deepEqual(read(header, 0, 1, 7).tensors.get("a")?.data, Uint8Array.of(0, 1, 1));
  await refuses("not-safetensors", () => read(header, 0, 1));
  await refuses("not-safetensors", () => read(header, 0, 1, 1, 1));
  for (const wrong of [
    "[]",
    "{",
    '{"__metadata__":{"a":1}}',
    '{"__metadata__":[]}',
    '{"a":{"dtype":"F8","shape":[3],"data_offsets":[0,3]}}',
    '{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,3]}}',
    '{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[3,0]}}',
    '{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3,3]}}',
    '{"a":{"dtype":"I64","shape":[4611686018427387904,4],"data_offsets":[0,3]}}',
    '{"a":{"dtype":"BOOL","shape":[-3],"data_offsets":[0,3]}}',
    '{"a":{"dtype":"BOOL","shape":[1.5,2],"data_offsets":[0,3]}}',
    '{"a":null}',
  ])
    await refuses("not-safetensors", () => read(wrong, 0, 1, 1));
  const data = await readGolden("gru.trace.safetensors");
  for (let size = 0; size < data.length; size += 61) {
    await refuses("not-safetensors", () => readTensors(data.subarray(0, size), "a file"));
  }
});

test("texts in headers have no needless escape, and data is aligned", () => {
  const data = encodeTensors(
    [
      ["b", Tensor.full("int8", [1], 1)],
      ["a", Tensor.full("float64", [1], 2)],
    ],
    [["<é😀>", 'a"b\\c\n\x01\u2028']],
  );
  const size = new DataView(data.buffer).getUint32(0, true);
  assert.equal(size % 8, 0);
  assert.equal(
    new TextDecoder().decode(data.subarray(8, 8 + size)).trimEnd(),
    '{"__metadata__":{"<é😀>":"a\\"b\\\\c\\n\\u0001\u2028"},"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[1],"data_offsets":[8,9]}}',
  );
  const file = readTensors(data, "a file");
  assert.deepEqual(
    [...file.tensors].map(([name, tensor]) => [name, tensor.number(0)]),
    [
      ["a", 2],
      ["b", 1],
    ],
  );
});

test("a contract that breaks a rule is refused", async () => {
  const contract = (/** @type {string} */ inputs, rest = "") =>
    parseContract(`{"format": "rnnx", "version": 1, "inputs": [${inputs}], "outputs": [], "states": []${rest}}`);
  const x = '{"name": "x", "dtype": "float32", "shape": ["batch", "time"]}';
  assert.equal(contract(x, ', "news": [1], "user": {"unit": "m"}').user.unit, "m"); // unknown fields are ignored
  for (const [text, code] of [
    ["[]", "contract-invalid"],
    ["{", "contract-invalid"],
    ['{"format": "rnnx"}', "contract-invalid"],
    ['{"format": "rnnx", "version": 2}', "contract-newer"],
    ['{"format": "rnnx", "version": 1, "requires": ["a"]}', "contract-requires"],
    ['{"format": "rnnx", "version": 0}', "contract-invalid"],
    ['{"format": "rnnx", "version": 1.5}', "contract-invalid"],
    ['{"format": "rnnx", "version": "1"}', "contract-invalid"],
    ['{"format": "onnx", "version": 1}', "contract-invalid"],
  ])
    await refuses(code, () => parseContract(text));
  for (const inputs of [
    '{"name": "x", "dtype": "float8", "shape": []}',
    '{"name": "x", "dtype": "toString", "shape": []}',
    '{"name": "x", "dtype": "float32", "shape": [0]}',
    '{"name": "x", "dtype": "float32", "shape": [1.5]}',
    '{"name": "x", "dtype": "float32", "shape": ["2*batch"]}',
    '{"name": "x", "dtype": "float32", "shape": ["batch", "batch"]}',
    '{"name": "x", "dtype": "float32", "shape": [2], "default": [1, 2, 3]}',
    '{"name": "x", "dtype": "float32", "shape": ["batch"], "default": [1, 2]}',
    '{"name": "x", "dtype": "float32", "shape": [2, 2], "default": [[1, 2], [3]]}',
    '{"name": "x", "dtype": "float32", "shape": [], "default": "big"}',
    '{"name": "x", "dtype": "float32", "shape": [], "default": {}}',
    '{"name": "x", "dtype": "int64", "shape": [3], "role": "length"}',
    '{"name": "x", "dtype": "int64", "shape": [], "role": "width"}',
    '{"name": "x", "dtype": "int64"}',
    '{"name": "", "dtype": "int64", "shape": []}',
    `${x},${x}`,
  ])
    await refuses("contract-invalid", () => contract(inputs));
  await refuses("contract-invalid", () => contract(x, ', "vocabulary": {"input": "x", "output": "y", "symbols": []}'));
  const half = ', "vocabulary": {"input": "x", "output": "y", "symbols": ["\\ud83d"]}';
  assert.throws(() => contract(x, half), /a symbol that is not one code point/);
});

test("constants broadcast to a shape as in numpy", () => {
  const axes = [2, "batch", 3].map((size) => {
    return typeof size === "string"
      ? { name: size, factor: 1, isMultiple: false }
      : { name: "", factor: size, isMultiple: false };
  });
  for (const [json, fits, filled] of /** @type {[unknown, boolean, number[]][]} */ ([
    [[[[1, 2, 3]], [[4, 5, 6]]], true, [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6]],
    [[[[1]], [[4]]], true, [1, 1, 1, 1, 1, 1, 4, 4, 4, 4, 4, 4]],
    [[1, 2, 3], true, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]],
    [0.5, true, Array(12).fill(0.5)],
    [
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      false,
      [],
    ], // varies along the batch
    [[[[[1]]]], false, []],
    [[], false, []],
  ])) {
    const constant = Constant.parse(json);
    assert.ok(constant);
    assert.equal(constant.fits("float32", axes), fits, JSON.stringify(json));
    if (fits) assert.deepEqual([...constant.fill("float64", [2, 2, 3]).data], filled);
  }
});

test("a damaged model is refused and never crashes", async () => {
  const data = await readGolden("gru.onnx");
  for (let size = 0; size < data.length; size += 97) {
    await assert.rejects(open(data.subarray(0, size)), RnnxError, `${size} of ${data.length} bytes`);
  }
  for (let place = 0; place < 2000; place += 7) {
    const damaged = Uint8Array.from(data);
    damaged[place] ^= 0xff;
    await open(damaged).then(
      (session) => session.close(),
      (error) => assert.ok(error instanceof RnnxError, String(error)),
    );
  }
  await refuses("file-missing", () => open(golden("none.onnx")));
  await refuses("cannot-read", () => open(golden("")));
});

// ONNX Runtime would read them where the program runs.
test("a model that is bytes has no weights beside it", async () => {
  for (const name of ["weights-missing", "weights-above", "weights-elsewhere"]) {
    const data = await readGolden(`faults/${name}.onnx`);
    await refuses("external-data-missing", () => open(data));
  }
});

test("nothing is reported over the network", async () => {
  await openGolden("gru.onnx");
  assert.equal(process.env.ORT_DISABLE_TELEMETRY, "1");
});
