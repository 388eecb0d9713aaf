/* p * 2^k, also where the result is below the smallest normal number. */
static RNNX_AVX512 __m512 rnnx_scale_avx512(__m512 p, __m512 k) {
  return _mm512_scalef_ps(p, k);
}

static RNNX_AVX512 __m512 rnnx_power_avx512(__m512 k) {
  return _mm512_scalef_ps(_mm512_set1_ps(1.0f), k);
}

/* -|x| */
static RNNX_AVX512 __m512 rnnx_minus_avx512(__m512 x) {
  return _mm512_or_ps(x, _mm512_set1_ps(-0.0f));
}

/* y, which has no sign, with the sign of x. */
static RNNX_AVX512 __m512 rnnx_sign_avx512(__m512 x, __m512 y) {
  return _mm512_or_ps(y, _mm512_and_ps(x, _mm512_set1_ps(-0.0f)));
}

static RNNX_AVX512 __m512 rnnx_half_avx512(const uint16_t *x) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}

static RNNX_AVX512 __m256 rnnx_half8_avx512(const uint16_t *x) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x));
}
