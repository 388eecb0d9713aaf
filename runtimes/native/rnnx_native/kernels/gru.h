/* One step of a GRU (Cho et al. 2014) with the reset gate applied after the product, as PyTorch and cuDNN do.
 * Gates of a block stand as z, r, n. n = tanh(from_x_n + r * from_h_n);  h' = (1 - z) * n + z * h.
 * h_old and h are the same state: h as the product takes it. */
#define GRU_PARAMETERS                                                                                          \
  REAL *h_new, const REAL *h_old, const REAL *start, size_t stride, const int64_t *places, const REAL *hidden,  \
      const WEIGHT *wx, const INPUT *x, int nx, const WEIGHT *wh, const INPUT *h, int nh, int units, int rows,  \
      int back
typedef void NAME(gru_kernel)(GRU_PARAMETERS);

/* What cells make of their gates[rows][48], summed over the input and over the hidden state apart, and of h[rows][16],
 * which they overwrite. */
#if defined(V)
static TARGET void NAME(gru_cells)(float *h, float *from_x, const float *from_h, int rows) {
  int i, j;
  for (i = 0; i < 48 * rows; i += 48) {
    RNNX_UNROLL
    for (j = i; j < i + 32; j += LANES) {
      STORE(from_x + j, REAL_NAME(sigmoidv)(ADD(LOAD(from_x + j), LOAD(from_h + j))));
    }
  }
  for (i = 0; i < rows; i++, from_x += 48, from_h += 48, h += 16) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += LANES) {
      const V n = REAL_NAME(tanhv)(FMA(LOAD(from_x + 16 + j), LOAD(from_h + 32 + j), LOAD(from_x + 32 + j)));
      STORE(h + j, FMA(LOAD(from_x + j), SUB(LOAD(h + j), n), n));
    }
  }
}
#else
static TARGET void NAME(gru_cells)(REAL *h, REAL *from_x, const REAL *from_h, int rows) {
  int r, j;
  for (r = 0; r < rows; r++) {
    for (j = 0; j < 32; j++) from_x[r * 48 + j] += from_h[r * 48 + j];
    REAL_NAME(sigmoid)(from_x + r * 48, from_x + r * 48, 32);
  }
  for (r = 0; r < rows; r++, from_x += 48, from_h += 48, h += 16) {
    REAL *const n = from_x + 32;
    for (j = 0; j < 16; j++) n[j] += from_x[16 + j] * from_h[32 + j];
    REAL_NAME(tanh)(n, n, 16);
    for (j = 0; j < 16; j++) h[j] = n[j] + from_x[j] * (h[j] - n[j]);
  }
}
#endif

static INTO void NAME(gru_rows)(GRU_PARAMETERS) {
  const int blocks = (units + 15) / 16;
  int n, r, i;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      REAL from_x[4 * 48], from_h[4 * 48], own[4 * 16];
      NAME(begin)(from_x, start + (size_t)b * 48u, stride, places, r, 48, some);
      NAME(begin)(from_h, hidden + (size_t)b * 48u, 0, NULL, 0, 48, some);
      NAME(multiply)(from_x, wx, b, x, r, nx, 3, some);
      NAME(multiply)(from_h, wh, b, h, r, nh, 3, some);
      if (valid < 16) memset(own, 0, sizeof own);
      for (i = 0; i < some; i++) NAME(lanes)(own + i * 16, h_old + (size_t)(r + i) * (size_t)units + b * 16, valid);
      NAME(gru_cells)(own, from_x, from_h, some);
      for (i = 0; i < some; i++) {
        NAME(lanes)(h_new + (size_t)(r + i) * (size_t)units + b * 16, own + i * 16, valid);
      }
    }
  }
}

static TARGET void NAME(gru)(GRU_PARAMETERS) {
  if (rows == 1) NAME(gru_rows)(h_new, h_old, start, stride, places, hidden, wx, x, nx, wh, h, nh, units, 1, back);
  else NAME(gru_rows)(h_new, h_old, start, stride, places, hidden, wx, x, nx, wh, h, nh, units, rows, back);
}
