/* Dot products of four bytes with VNNI, made by instruction_sets.py for each number of GATES and ROWS; APART as in vector.c. */
/* columns */
static ALONE void NAME(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns) {
  const int quads = (columns - 8) / 4;
  const int8_t *column = tile + GATES * 128;
  __m512i sum[ROWS][APART][GATES];
  int r, u, k, i;
  RNNX_UNROLL
  for (r = 0; r < ROWS; r++) {
    RNNX_UNROLL
    for (u = 0; u < APART; u++) {
      RNNX_UNROLL
      for (i = 0; i < GATES; i++) sum[r][u][i] = _mm512_setzero_si512();
    }
  }
  for (k = 0; k + APART <= quads; k += APART) {
    RNNX_UNROLL
    for (u = 0; u < APART; u++) {
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
    column += APART * GATES * 64;
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
      for (u = 1; u < APART; u++) total = _mm512_add_epi32(total, sum[r][u][i]);
      total = _mm512_sub_epi32(total, shift); /* the 128 that was added to each element of x */
      _mm512_storeu_ps(acc + (r * GATES + i) * 16,
                       _mm512_add_ps(_mm512_loadu_ps(acc + (r * GATES + i) * 16),
                                     _mm512_mul_ps(_mm512_cvtepi32_ps(total), scales)));
    }
  }
}
/* accumulate */
/* The mask of the first lanes, at most 16 of them. */
static TARGET __mmask16 rnnx_first_ISA(int lanes) {
  return (__mmask16)(lanes < 16 ? (1u << lanes) - 1u : 0xffffu);
}

/* As in byte.c, 16 columns at a time; those past the end count as zeros, which become the 128 that rows are filled up with. */
static TARGET void rnnx_quantize_i8_ISA(uint8_t *y, const float *x, int columns, int rows) {
  const int padded = (columns + 3) / 4 * 4;
  int r, k;
  for (r = 0; r < rows; r++, x += columns, y += 8 + padded) {
    __m512 sizes = _mm512_setzero_ps();
    float largest, scale, inverse;
    for (k = 0; k < columns; k += 16) {
      sizes = _mm512_max_ps(_mm512_abs_ps(_mm512_maskz_loadu_ps(rnnx_first_ISA(columns - k), x + k)), sizes);
    }
    largest = _mm512_reduce_max_ps(sizes);
    scale = largest / 127.0f;
    inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    memset(y, 0, 8);
    memcpy(y, &scale, sizeof scale);
    for (k = 0; k < columns; k += 16) {
      const __m512 values = _mm512_maskz_loadu_ps(rnnx_first_ISA(columns - k), x + k);
      const __m512 scaled = _mm512_mul_ps(values, _mm512_set1_ps(inverse));
      const __m512i whole = _mm512_cvttps_epi32(_mm512_add_ps(scaled, _mm512_set1_ps(128.5f)));
      _mm_mask_storeu_epi8(y + 8 + k, rnnx_first_ISA(padded - k), _mm512_cvtepi32_epi8(whole));
    }
  }
}

static TARGET void rnnx_accumulate_i8_ISA(float *acc, const int8_t *tile, const uint8_t *x, size_t stride,
                                              int columns, int gates, int rows) {
  int r;
  if (rows == 4) {
    if (gates == 4) rnnx_dots_4x4_ISA(acc, tile, x, stride, columns);
    else if (gates == 3) rnnx_dots_3x4_ISA(acc, tile, x, stride, columns);
    else rnnx_dots_1x4_ISA(acc, tile, x, stride, columns);
    return;
  }
  for (r = 0; r < rows; r++, acc += 16 * gates, x += stride) {
    if (gates == 4) rnnx_dots_4x1_ISA(acc, tile, x, stride, columns);
    else if (gates == 3) rnnx_dots_3x1_ISA(acc, tile, x, stride, columns);
    else rnnx_dots_1x1_ISA(acc, tile, x, stride, columns);
  }
}
/* end */
