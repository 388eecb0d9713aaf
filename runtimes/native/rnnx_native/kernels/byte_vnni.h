/* Sums of products of bytes with VNNI, four at once. */
static MAKE void SUMS(GATES, ROWS)(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns) {
  const int quads = (columns - 8) / 4;
  const int8_t *column = tile + GATES * 128;
  __m512i sum[ROWS][TIMES][GATES];
  int r, u, k, i;
  RNNX_UNROLL
  for (r = 0; r < ROWS; r++) {
    RNNX_UNROLL
    for (u = 0; u < TIMES; u++) {
      RNNX_UNROLL
      for (i = 0; i < GATES; i++) sum[r][u][i] = _mm512_setzero_si512();
    }
  }
  for (k = 0; k + TIMES <= quads; k += TIMES) {
    RNNX_UNROLL
    for (u = 0; u < TIMES; u++) {
      RNNX_UNROLL
      for (r = 0; r < ROWS; r++) {
        int32_t four;
        memcpy(&four, x + (size_t)r * stride + 8 + 4 * (k + u), sizeof four);
        RNNX_UNROLL
        for (i = 0; i < GATES; i++) {
          const void *const weights = column + (u * GATES + i) * 64;
          sum[r][u][i] = _mm512_dpbusd_epi32(sum[r][u][i], _mm512_set1_epi32(four), _mm512_loadu_si512(weights));
        }
      }
    }
    column += TIMES * GATES * 64;
  }
  for (; k < quads; k++, column += GATES * 64) {
    RNNX_UNROLL
    for (r = 0; r < ROWS; r++) {
      int32_t four;
      memcpy(&four, x + (size_t)r * stride + 8 + 4 * k, sizeof four);
      RNNX_UNROLL
      for (i = 0; i < GATES; i++) {
        const void *const weights = column + i * 64;
        sum[r][0][i] = _mm512_dpbusd_epi32(sum[r][0][i], _mm512_set1_epi32(four), _mm512_loadu_si512(weights));
      }
    }
  }
  RNNX_UNROLL
  for (r = 0; r < ROWS; r++) {
    float scale;
    memcpy(&scale, x + (size_t)r * stride, sizeof scale);
    RNNX_UNROLL
    for (i = 0; i < GATES; i++) {
      const __m512 scales = _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_loadu_ps((const void *)(tile + i * 64)));
      const __m512i shift = _mm512_slli_epi32(_mm512_loadu_si512((const void *)(tile + (GATES + i) * 64)), 7);
      __m512i total = sum[r][0][i];
      RNNX_UNROLL
      for (u = 1; u < TIMES; u++) total = _mm512_add_epi32(total, sum[r][u][i]);
      total = _mm512_sub_epi32(total, shift); /* the 128 that was added to each element of x */
      _mm512_storeu_ps(acc + (r * GATES + i) * 16,
                       _mm512_add_ps(_mm512_loadu_ps(acc + (r * GATES + i) * 16),
                                     _mm512_mul_ps(_mm512_cvtepi32_ps(total), scales)));
    }
  }
}
