/* Sums of products of bytes with AVX2: bytes widen to 16 bits, so that products and their sums in pairs are exact. A
 * gate has four registers of sums, two sums for every lane. */
static MAKE void SUMS(GATES, ROWS)(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns) {
  const int quads = (columns - 8) / 4;
  const int8_t *column = tile + GATES * 128;
  __m256i sum[GATES][4];
  float scale;
  int i, j, k;
  (void)stride;
  memcpy(&scale, x, sizeof scale);
  RNNX_UNROLL
  for (i = 0; i < GATES; i++) {
    RNNX_UNROLL
    for (j = 0; j < 4; j++) sum[i][j] = _mm256_setzero_si256();
  }
  for (k = 0; k < quads; k++, column += GATES * 64) {
    int32_t four;
    __m128i wide;
    __m256i value;
    memcpy(&four, x + 8 + 4 * k, sizeof four);
    wide = _mm_sub_epi16(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)), _mm_set1_epi16(128));
    value = _mm256_broadcastq_epi64(wide);
    RNNX_UNROLL
    for (i = 0; i < GATES; i++) {
      RNNX_UNROLL
      for (j = 0; j < 4; j++) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(column + i * 64 + j * 16));
        sum[i][j] = _mm256_add_epi32(sum[i][j], _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), value));
      }
    }
  }
  RNNX_UNROLL
  for (i = 0; i < GATES; i++) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += 8) { /* eight lanes: both sums of a lane added, lanes put in order */
      const __m256i pairs = _mm256_hadd_epi32(sum[i][j / 4], sum[i][j / 4 + 1]);
      const __m256 total = _mm256_cvtepi32_ps(_mm256_permute4x64_epi64(pairs, 0xd8));
      const float *const scales = (const float *)(const void *)tile + i * 16 + j;
      float *const to = acc + i * 16 + j;
      const __m256 own = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(scales));
      _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), _mm256_mul_ps(total, own)));
    }
  }
}
