/* IEEE 754 binary16 at the boundary: models in float16 take, give and carry it, and compute in float. */
#ifndef RNNX_HALF_H
#define RNNX_HALF_H
#include "unused.h"

static RNNX_UNUSED float rnnx_from_half(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = (uint32_t)(half & 0x7fffu) << 13;
  const uint32_t normal = rest + (112u << 23) + (rest >= 31u << 23 ? 112u << 23 : 0u); /* infinity stays infinity */
  const float tiny = (float)(int32_t)(half & 0x3ffu) * 5.9604644775390625e-8f; /* fraction * 2^-24 */
  uint32_t bits;
  float value;
  memcpy(&bits, &tiny, sizeof bits);
  bits = sign | (rest < 1u << 23 ? bits : normal);
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Round to nearest, ties to even; beyond 65504 to infinity. */
static RNNX_UNUSED uint16_t rnnx_to_half(float value) {
  uint32_t bits, sign, rest, shift, kept, half;
  int exponent;
  memcpy(&bits, &value, sizeof bits);
  sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  exponent = (int)(bits >> 23) - 112;
  if (exponent >= 31) return (uint16_t)(sign | 0x7c00u);
  if (exponent < -10) return (uint16_t)sign;
  rest = (bits & 0x7fffffu) | 0x800000u;
  shift = exponent > 0 ? 13u : (uint32_t)(14 - exponent);
  kept = rest >> shift;
  half = exponent > 0 ? ((uint32_t)(exponent - 1) << 10) + kept : kept;
  rest &= (1u << shift) - 1u;
  if (rest > 1u << (shift - 1u) || (rest == 1u << (shift - 1u) && (kept & 1u))) half++;
  return (uint16_t)(sign | half);
}

static RNNX_UNUSED void rnnx_widen(float *y, const uint16_t *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_from_half(x[i]);
}

static RNNX_UNUSED void rnnx_narrow(uint16_t *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_to_half(x[i]);
}

#endif
