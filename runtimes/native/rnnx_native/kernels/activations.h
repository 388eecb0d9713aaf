/* Activations of float arrays, written so that compilers vectorise them (GCC with -O3): exp and tanh are at most
 * 2 ulp from the exact value, sigmoid at most 2.5.
 *
 * exp(y) = 2^k (1 + p): y = k ln 2 + r with |r| <= ln(2)/2 and p = exp(r) - 1 = r + r^2 q(r), with q fitted for the
 * least error relative to p. exp multiplies by 2^k in two factors, so that results below the smallest normal number
 * are right too. tanh: (1 - exp(y)) / (1 + exp(y)) with y = -2|x|, where both 2^k - 1 and 2^k p keep all their
 * digits. sigmoid: 1 / (1 + e) with e = exp(-|x|), or e / (1 + e) for negative x, which keeps small results precise.
 */
#ifndef RNNX_ACTIVATIONS_H
#define RNNX_ACTIVATIONS_H
#include "unused.h"

typedef void rnnx_exp_kernel_f32(float *y, const float *x, int n);
typedef void rnnx_sigmoid_kernel_f32(float *y, const float *x, int n);
typedef void rnnx_tanh_kernel_f32(float *y, const float *x, int n);

static RNNX_UNUSED float rnnx_power_f32(int32_t k) {
  const uint32_t bits = (uint32_t)(k + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

/* p and k of y, which lies in -128..128 times ln 2. */
static RNNX_UNUSED float rnnx_beyond_f32(float y, int32_t *k) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers */
  const float shifted = y * 1.44269504f + magic, whole = shifted - magic;
  const float r = (y - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float q = 0.49999997f + r * (0.16666539f + r * (0.041667223f + r * (0.008367186f + r * 0.0013882394f)));
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  *k = (int32_t)(bits & 0x3ffu) - ((bits & 0x200u) ? 0x400 : 0); /* a number of 10 bits */
  return r + r * r * q;
}

/* x in low..high; NaN stays NaN. */
static RNNX_UNUSED float rnnx_within_f32(float x, float low, float high) {
  const float top = x > high ? high : x;
  return top < low ? low : top;
}

/* The same functions of x within -104..89, -104..104 and -10..10: beyond, they no longer change. */
static RNNX_UNUSED float rnnx_inner_exp_f32(float x) {
  int32_t k, half;
  const float p = 1.0f + rnnx_beyond_f32(x, &k);
  half = k / 2;
  return p * rnnx_power_f32(half) * rnnx_power_f32(k - half);
}

static RNNX_UNUSED float rnnx_inner_sigmoid_f32(float x) {
  const float e = rnnx_inner_exp_f32(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static RNNX_UNUSED float rnnx_inner_tanh_f32(float x) {
  int32_t k;
  const float p = rnnx_beyond_f32(-2.0f * fabsf(x), &k), power = rnnx_power_f32(k), beyond = power * p;
  return copysignf((1.0f - power - beyond) / (1.0f + power + beyond), x);
}

static RNNX_UNUSED float rnnx_exp1_f32(float x) { return rnnx_inner_exp_f32(rnnx_within_f32(x, -104.0f, 89.0f)); }
static RNNX_UNUSED float rnnx_sigmoid1_f32(float x) {
  return rnnx_inner_sigmoid_f32(rnnx_within_f32(x, -104.0f, 104.0f));
}
static RNNX_UNUSED float rnnx_tanh1_f32(float x) { return rnnx_inner_tanh_f32(rnnx_within_f32(x, -10.0f, 10.0f)); }

/* Arrays are limited in a loop of their own: what is known of a limit would make compilers branch in the other. */
static RNNX_UNUSED void rnnx_exp_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_within_f32(x[i], -104.0f, 89.0f);
  for (i = 0; i < n; i++) y[i] = rnnx_inner_exp_f32(y[i]);
}

static RNNX_UNUSED void rnnx_sigmoid_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_within_f32(x[i], -104.0f, 104.0f);
  for (i = 0; i < n; i++) y[i] = rnnx_inner_sigmoid_f32(y[i]);
}

static RNNX_UNUSED void rnnx_tanh_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_within_f32(x[i], -10.0f, 10.0f);
  for (i = 0; i < n; i++) y[i] = rnnx_inner_tanh_f32(y[i]);
}

#endif
