/* AVX2, with FMA and half floats. */
#undef ISA
#undef HAS
#define ISA _avx2
#define HAS "avx2,fma,f16c"
#include "registers256.h"

/* p * 2^k in two factors, so that results below the smallest normal number are right too. */
static TARGET __m256 rnnx_scale_avx2(__m256 p, __m256 k) {
  const __m256i whole = _mm256_cvtps_epi32(k), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i two = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two));
}

#include "vector.h"
