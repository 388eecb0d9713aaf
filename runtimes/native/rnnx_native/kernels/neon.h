/* NEON of 64-bit ARM. */
#undef ISA
#define ISA _neon
#include "registers.h"

#define V float32x4_t
#define LANES 4
#define LOAD vld1q_f32
#define STORE vst1q_f32
#define SET vdupq_n_f32
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define ADD vaddq_f32
#define SUB vsubq_f32
#define MUL vmulq_f32
#define DIV vdivq_f32
#define MIN vminq_f32
#define MAX vmaxq_f32
#define SCALE rnnx_scale_neon
#define POWER(k) vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(k), vdupq_n_s32(127)), 23))
#define MINUS(x) vnegq_f32(vabsq_f32(x))
#define SIGN(x, y) vbslq_f32(vdupq_n_u32(UINT32_C(0x80000000)), x, y)
#define HALVES(p) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))
#define APART(gates) ((gates) == 1 ? 4 : 1)
#define PART(gates) 4

/* p * 2^k in two factors, so that results below the smallest normal number are right too. */
static TARGET float32x4_t rnnx_scale_neon(float32x4_t p, float32x4_t k) {
  const int32x4_t whole = vcvtnq_s32_f32(k), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t rest = vsubq_s32(whole, half);
  const int32x4_t one = vshlq_n_s32(vaddq_s32(half, bias), 23), two = vshlq_n_s32(vaddq_s32(rest, bias), 23);
  return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(one)), vreinterpretq_f32_s32(two));
}

/* Four sums, each with the products of four bytes added. */
static TARGET int32x4_t rnnx_dot_neon(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, a, b);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
#endif
}

#include "vector.h"
