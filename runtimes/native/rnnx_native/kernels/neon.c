static RNNX_NEON float32x4_t rnnx_fma_neon(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }

/* p * 2^k in two factors, so that results below the smallest normal number are right too. */
static RNNX_NEON float32x4_t rnnx_scale_neon(float32x4_t p, float32x4_t k) {
  const int32x4_t whole = vcvtnq_s32_f32(k), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t rest = vsubq_s32(whole, half);
  const int32x4_t one = vshlq_n_s32(vaddq_s32(half, bias), 23), two = vshlq_n_s32(vaddq_s32(rest, bias), 23);
  return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(one)), vreinterpretq_f32_s32(two));
}

static RNNX_NEON float32x4_t rnnx_power_neon(float32x4_t k) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(k), vdupq_n_s32(127)), 23));
}

/* -|x| */
static RNNX_NEON float32x4_t rnnx_minus_neon(float32x4_t x) { return vnegq_f32(vabsq_f32(x)); }

/* y, which has no sign, with the sign of x. */
static RNNX_NEON float32x4_t rnnx_sign_neon(float32x4_t x, float32x4_t y) {
  return vbslq_f32(vdupq_n_u32(UINT32_C(0x80000000)), x, y);
}

static RNNX_NEON float32x4_t rnnx_half_neon(const uint16_t *x) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x)));
}

/* Four sums, each with the products of four bytes added. */
static RNNX_NEON int32x4_t rnnx_dot_neon(int32x4_t sum, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, a, b);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  return vaddq_s32(sum, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
#endif
}
