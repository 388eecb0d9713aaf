import { DTYPES, Tensor, count, isFloat, roundToEven, setNumber } from "./tensor.js";

/** @typedef {import("./tensor.js").DType} DType */

/** A number, or nested lists of numbers that broadcast to a shape: `initial` and `default` of a contract. */
export class Constant {
  /**
   * @param {readonly number[]} shape
   * @param {readonly number[]} numbers
   */
  constructor(shape, numbers) {
    this.shape = shape;
    this.numbers = numbers;
  }

  /**
   * The constant that JSON means, or null if it means none.
   * @param {unknown} value
   * @returns {Constant | null}
   */
  static parse(value) {
    if (Array.isArray(value)) {
      const parts = value.map(Constant.parse);
      const inner = parts[0]?.shape ?? [];
      if (parts.some((part) => part === null || String(part.shape) !== String(inner))) return null;
      return new Constant(
        [value.length, ...inner],
        parts.flatMap((part) => part?.numbers ?? []),
      );
    }
    const words = new Map([
      ["inf", Infinity],
      ["-inf", -Infinity],
      ["nan", NaN],
    ]);
    const number = typeof value === "boolean" ? Number(value) : typeof value === "string" ? words.get(value) : value;
    return typeof number === "number" ? new Constant([], [number]) : null;
  }

  /**
   * Whether it broadcasts to a shape, varies along no named axis, and has a counterpart in the dtype.
   * @param {DType} dtype
   * @param {readonly import("./shape.js").Axis[]} shape
   */
  fits(dtype, shape) {
    const behind = shape.length - this.shape.length;
    const broadcasts = this.shape.every((size, index) => {
      const axis = shape[behind + index];
      return axis !== undefined && (size === 1 || (axis.name === "" && size === axis.factor));
    });
    return behind >= 0 && broadcasts && this.numbers.every((number) => isHeld(dtype, number));
  }

  /**
   * The numbers broadcast to a shape, as numpy does: aligned at the last axis.
   * @param {DType} dtype
   * @param {number[]} shape
   */
  fill(dtype, shape) {
    if (this.numbers.length === 1) return Tensor.full(dtype, shape, this.numbers[0]);
    const tensor = Tensor.full(dtype, shape);
    const behind = shape.length - this.shape.length;
    for (let flat = 0; flat < count(shape); flat++) {
      let [rest, index, stride] = [flat, 0, 1];
      for (let axis = shape.length - 1; axis >= 0; axis--) {
        const size = this.shape[axis - behind] ?? 1;
        if (size !== 1) index += (rest % shape[axis]) * stride;
        stride *= size;
        rest = Math.floor(rest / shape[axis]);
      }
      setNumber(tensor, flat, this.numbers[index]);
    }
    return tensor;
  }
}

/**
 * Whether a number has a counterpart in a dtype: integers once rounded, bool as 0 and 1.
 * @param {DType} dtype
 * @param {number} number
 */
export function isHeld(dtype, number) {
  if (isFloat(dtype)) return true;
  const { least, end } = DTYPES[dtype];
  const whole = roundToEven(number);
  return least <= whole && whole < end && (dtype !== "bool" || whole === number);
}
