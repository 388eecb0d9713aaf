/* p * 2^k in two factors, so that results below the smallest normal number are right too. */
static RNNX_AVX2 __m256 rnnx_scale_avx2(__m256 p, __m256 k) {
  const __m256i whole = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i two = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two));
}

static RNNX_AVX2 __m256 rnnx_power_avx2(__m256 k) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127)), 23));
}

/* -|x| */
static RNNX_AVX2 __m256 rnnx_minus_avx2(__m256 x) {
  return _mm256_or_ps(x, _mm256_set1_ps(-0.0f));
}

/* y, which has no sign, with the sign of x. */
static RNNX_AVX2 __m256 rnnx_sign_avx2(__m256 x, __m256 y) {
  return _mm256_or_ps(y, _mm256_and_ps(x, _mm256_set1_ps(-0.0f)));
}

static RNNX_AVX2 __m256 rnnx_half_avx2(const uint16_t *x) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)x));
}
