/* p * 2^k, also where the result is below the smallest normal number. */
static RNNX_AVX512 __m512 rnnx_scale_avx512(__m512 p, __m512 k) {
  return _mm512_scalef_ps(p, k);
}

/* yes where a < b, else no. */
static RNNX_AVX512 __m512 rnnx_pick_avx512(__m512 a, __m512 b, __m512 yes, __m512 no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}

static RNNX_AVX512 __m512 rnnx_half_avx512(const uint16_t *x) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}

static RNNX_AVX512 __m256 rnnx_half8_avx512(const uint16_t *x) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x));
}
