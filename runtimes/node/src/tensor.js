import { RnnxError } from "./error.js";

/**
 * @typedef {Uint16Array | Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array
 *   | Uint8Array | Uint32Array | BigUint64Array} Entries
 * @typedef {{code: string, onnx: number, array: new (length: number) => Entries, size: number, least: number, end: number}} DTypeFacts
 * @typedef {"float16" | "float32" | "float64" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16"
 *   | "uint32" | "uint64" | "bool"} DType
 */

/**
 * @param {string} code
 * @param {number} onnx
 * @param {{new (length: number): Entries, BYTES_PER_ELEMENT: number}} array
 * @param {number} [least]
 * @param {number} [end]
 * @returns {DTypeFacts}
 */
const facts = (code, onnx, array, least = -Infinity, end = Infinity) => ({
  code,
  onnx,
  array,
  size: array.BYTES_PER_ELEMENT,
  least,
  end,
});

/**
 * Of each dtype: its name in safetensors, its number in ONNX's TensorProto.DataType, the array of its entries, their
 * bytes, and of integers the least and the end of their values. A half float is held as its bits, since not every
 * engine has Float16Array; a truth value is 0 or 1.
 * @type {Readonly<Record<DType, DTypeFacts>>}
 */
export const DTYPES = {
  float16: facts("F16", 10, Uint16Array),
  float32: facts("F32", 1, Float32Array),
  float64: facts("F64", 11, Float64Array),
  int8: facts("I8", 3, Int8Array, -(2 ** 7), 2 ** 7),
  int16: facts("I16", 5, Int16Array, -(2 ** 15), 2 ** 15),
  int32: facts("I32", 6, Int32Array, -(2 ** 31), 2 ** 31),
  int64: facts("I64", 7, BigInt64Array, -(2 ** 63), 2 ** 63),
  uint8: facts("U8", 2, Uint8Array, 0, 2 ** 8),
  uint16: facts("U16", 4, Uint16Array, 0, 2 ** 16),
  uint32: facts("U32", 12, Uint32Array, 0, 2 ** 32),
  uint64: facts("U64", 13, BigUint64Array, 0, 2 ** 64),
  bool: facts("BOOL", 9, Uint8Array, 0, 2),
};

/**
 * Whether it has NaN and infinity.
 * @param {DType} dtype
 */
export const isFloat = (dtype) => dtype.startsWith("float");

/** A dtype, a shape, and entries with the last axis running fastest. */
export class Tensor {
  /**
   * Shares the memory of `data`: what is written there later is what a later step reads. Whether shape and data fit is
   * checked where the tensor is used.
   * @param {DType} dtype
   * @param {number[]} shape
   * @param {Entries} data of the array that belongs to the dtype: BigInt64Array for int64, Uint16Array (the bits) for
   *   float16, Uint8Array for bool
   * @throws {RnnxError} `wrong-dtype` for another array
   */
  constructor(dtype, shape, data) {
    const wanted = Object.hasOwn(DTYPES, dtype) ? DTYPES[dtype].array : null;
    if (wanted === null || !(data instanceof wanted)) {
      const kind = Object(data).constructor?.name ?? String(data);
      throw new RnnxError(
        "wrong-dtype",
        wanted ? `entries of ${dtype} in a ${wanted.name}` : "a dtype of the contract",
        wanted ? kind : `'${dtype}'`,
        "convert it",
      );
    }
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
  }

  /**
   * A tensor of one number throughout, rounded to the dtype.
   * @param {DType} dtype
   * @param {number[]} shape
   * @param {number} [number]
   */
  static full(dtype, shape, number = 0) {
    const tensor = new Tensor(dtype, shape, new DTYPES[dtype].array(count(shape)));
    for (let index = 0; number !== 0 && index < tensor.data.length; index++) setNumber(tensor, index, number);
    return tensor;
  }

  /**
   * Entry `index` of the flattened values as a number.
   * @param {number} index
   */
  number(index) {
    const entry = this.data[index];
    return this.dtype === "float16" ? fromFloat16(Number(entry)) : Number(entry);
  }

  /**
   * A tensor with memory of its own, from the bytes of its entries, the lowest first.
   * @param {DType} dtype
   * @param {number[]} shape
   * @param {Uint8Array} bytes as many as the entries take
   */
  static fromBytes(dtype, shape, bytes) {
    const tensor = Tensor.full(dtype, shape);
    tensor.bytes.set(bytes);
    return tensor;
  }

  /** The memory of the entries. */
  get bytes() {
    return new Uint8Array(this.data.buffer, this.data.byteOffset, this.data.byteLength);
  }

  /** A copy with memory of its own. */
  clone() {
    return new Tensor(this.dtype, [...this.shape], this.data.slice());
  }
}

/**
 * Writes a number, rounded to the dtype, to entry `index`.
 * @param {Tensor} tensor
 * @param {number} index
 * @param {number} number
 */
export function setNumber(tensor, index, number) {
  const { dtype, data } = tensor;
  if (dtype === "float16") data[index] = toFloat16(number);
  else if (isFloat(dtype)) data[index] = number;
  else if (data instanceof BigInt64Array || data instanceof BigUint64Array) data[index] = BigInt(roundToEven(number));
  else data[index] = roundToEven(number);
}

/**
 * The number that is nearest and whole, of two the even one.
 * @param {number} number
 */
export function roundToEven(number) {
  const low = Math.floor(number);
  if (number - low === 0.5) return low % 2 === 0 ? low : low + 1;
  return number - low > 0.5 ? low + 1 : low;
}

const scratch = new DataView(new ArrayBuffer(8));

/**
 * The bits of the half float nearest to a number, ties to even.
 * @param {number} number
 */
export function toFloat16(number) {
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (Number.isNaN(number)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00; // halfway to the number behind the largest
  if (size < 2 ** -14) return sign | roundToEven(size * 2 ** 24); // 1024 steps of 2^-24 are the smallest normal number
  scratch.setFloat64(0, size);
  const exponent = (scratch.getUint16(0) >> 4) - 1023;
  // A fraction that rounds up to 2048 carries into the exponent, as it should.
  return sign | (((exponent + 14) << 10) + roundToEven(size * 2 ** (10 - exponent)));
}

/**
 * The value of a half float.
 * @param {number} bits
 */
export function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

/**
 * How many entries a shape has.
 * @param {readonly number[]} shape
 */
export const count = (shape) => shape.reduce((product, size) => product * size, 1);

/**
 * @param {readonly number[]} one
 * @param {readonly number[]} other
 */
export function isSame(one, other) {
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) {
    if (one[index] !== other[index]) return false;
  }
  return true;
}
