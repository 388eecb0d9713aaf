/* Sums over columns of weights that are floats or halves. */
#if defined(V)
static MAKE void SUMS(GATES, ROWS)(float *acc, const WEIGHT *tile, const float *x, size_t stride, int columns) {
  int part, k, r, u, i;
  (void)stride;
  for (part = 0; part < VECTORS; part += PASS) {
    const WEIGHT *column = tile + part * LANES;
    V sum[ROWS][TIMES][PASS];
    RNNX_UNROLL
    for (r = 0; r < ROWS; r++) {
      RNNX_UNROLL
      for (i = 0; i < PASS; i++) sum[r][0][i] = LOAD(acc + (r * VECTORS + part + i) * LANES);
      RNNX_UNROLL
      for (u = 1; u < TIMES; u++) {
        RNNX_UNROLL
        for (i = 0; i < PASS; i++) sum[r][u][i] = SET(0.0f);
      }
    }
    for (k = 0; k + TIMES <= columns; k += TIMES) {
      RNNX_UNROLL
      for (u = 0; u < TIMES; u++) {
        RNNX_UNROLL
        for (r = 0; r < ROWS; r++) {
          const V value = SET(x[(size_t)r * stride + (size_t)(k + u)]);
          RNNX_UNROLL
          for (i = 0; i < PASS; i++) sum[r][u][i] = FMA(value, WIDE(column + (u * VECTORS + i) * LANES), sum[r][u][i]);
        }
      }
      column += TIMES * VECTORS * LANES;
    }
    for (; k < columns; k++) {
      RNNX_UNROLL
      for (r = 0; r < ROWS; r++) {
        const V value = SET(x[(size_t)r * stride + (size_t)k]);
        RNNX_UNROLL
        for (i = 0; i < PASS; i++) sum[r][0][i] = FMA(value, WIDE(column + i * LANES), sum[r][0][i]);
      }
      column += VECTORS * LANES;
    }
    RNNX_UNROLL
    for (r = 0; r < ROWS; r++) {
      RNNX_UNROLL
      for (u = 1; u < TIMES; u++) {
        RNNX_UNROLL
        for (i = 0; i < PASS; i++) sum[r][0][i] = ADD(sum[r][0][i], sum[r][u][i]);
      }
      RNNX_UNROLL
      for (i = 0; i < PASS; i++) STORE(acc + (r * VECTORS + part + i) * LANES, sum[r][0][i]);
    }
  }
}
#else
/* acc[rows][gates * 16] += one block of tiles times x[rows][stride], for up to 4 rows. */
static TARGET void NAME(accumulate)(REAL *acc, const WEIGHT *tile, const INPUT *x, size_t stride, int columns,
                                    int gates, int rows) {
  const int width = 16 * gates;
  int k, j, r;
  for (r = 0; r < rows; r++) {
    REAL *const sum = acc + r * width;
    for (k = 0; k < columns; k++) {
      const REAL value = x[(size_t)r * stride + (size_t)k];
      const WEIGHT *const column = tile + (size_t)k * (size_t)width;
      for (j = 0; j < width; j++) sum[j] += WIDE(column + j) * value;
    }
  }
}
#endif
