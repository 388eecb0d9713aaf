/* The mask of the first lanes, at most 16 of them. */
static TARGET __mmask16 NAME(first)(int lanes) {
  return (__mmask16)(lanes < 16 ? (1u << lanes) - 1u : 0xffffu);
}

/* As in quantize.h, 16 columns at a time; those past the end count as zeros, which become the 128 that rows are filled
 * up with. */
static TARGET void NAME(quantize)(uint8_t *y, const float *x, int columns, int rows) {
  const int padded = (columns + 3) / 4 * 4;
  int r, k;
  for (r = 0; r < rows; r++, x += columns, y += 8 + padded) {
    __m512 sizes = _mm512_setzero_ps();
    float largest, scale, inverse;
    for (k = 0; k < columns; k += 16) {
      sizes = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(NAME(first)(columns - k), x + k)), sizes);
    }
    largest = _mm512_reduce_max_ps(sizes);
    scale = largest / 127.0f;
    inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    memset(y, 0, 8);
    memcpy(y, &scale, sizeof scale);
    for (k = 0; k < columns; k += 16) {
      const __m512 values = _mm512_maskz_loadu_ps(NAME(first)(columns - k), x + k);
      const __m512 scaled = _mm512_mul_ps(values, _mm512_set1_ps(inverse));
      const __m512i whole = _mm512_cvttps_epi32(_mm512_add_ps(scaled, _mm512_set1_ps(128.5f)));
      _mm_mask_storeu_epi8(y + 8 + k, NAME(first)(padded - k), _mm512_cvtepi32_epi8(whole));
    }
  }
}
