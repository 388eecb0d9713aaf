/* One step of an LSTM (Hochreiter and Schmidhuber 1997, with forget gate), all four gates in one pass.
 * Gates of a block stand as i, o, f, c. c' = f * c + i * c~;  h' = o * tanh(c'). */
#define LSTM_PARAMETERS                                                                                         \
  REAL *h_new, REAL *c_new, const REAL *c, const REAL *start, size_t stride, const int64_t *places,             \
      const WEIGHT *wx, const INPUT *x, int nx, const WEIGHT *wh, const INPUT *h, int nh, int units, int rows,  \
      int back
typedef void NAME(lstm_kernel)(LSTM_PARAMETERS);

/* What cells make of their gates[rows][64], which they overwrite, and c[rows][16]. First all gates, then all else:
 * rows that are at the same place do not wait for one another. */
#if defined(V)
static TARGET void NAME(lstm_cells)(float *h_new, float *c, float *gates, int rows) {
  int i, j;
  for (i = 0; i < 64 * rows; i += 64) {
    RNNX_UNROLL
    for (j = i; j < i + 48; j += LANES) STORE(gates + j, REAL_NAME(sigmoidv)(LOAD(gates + j)));
    RNNX_UNROLL
    for (; j < i + 64; j += LANES) STORE(gates + j, REAL_NAME(tanhv)(LOAD(gates + j)));
  }
  for (i = 0; i < rows; i++, gates += 64, c += 16, h_new += 16) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += LANES) {
      const V cell = FMA(LOAD(gates + 32 + j), LOAD(c + j), MUL(LOAD(gates + j), LOAD(gates + 48 + j)));
      STORE(c + j, cell);
      STORE(h_new + j, MUL(LOAD(gates + 16 + j), REAL_NAME(tanhv)(cell)));
    }
  }
}
#else
static TARGET void NAME(lstm_cells)(REAL *h_new, REAL *c, REAL *gates, int rows) {
  int r, j;
  for (r = 0; r < rows; r++) {
    REAL_NAME(sigmoid)(gates + r * 64, gates + r * 64, 48);
    REAL_NAME(tanh)(gates + r * 64 + 48, gates + r * 64 + 48, 16);
  }
  for (r = 0; r < rows; r++, gates += 64, c += 16, h_new += 16) {
    for (j = 0; j < 16; j++) c[j] = gates[32 + j] * c[j] + gates[j] * gates[48 + j];
    REAL_NAME(tanh)(h_new, c, 16);
    for (j = 0; j < 16; j++) h_new[j] *= gates[16 + j];
  }
}
#endif

static INTO void NAME(lstm_rows)(LSTM_PARAMETERS) {
  const int blocks = (units + 15) / 16;
  int n, r, i;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      REAL acc[4 * 64], cell[4 * 16], out[4 * 16];
      NAME(begin)(acc, start + (size_t)b * 64u, stride, places, r, 64, some);
      NAME(multiply)(acc, wx, b, x, r, nx, 4, some);
      NAME(multiply)(acc, wh, b, h, r, nh, 4, some);
      if (valid < 16) memset(cell, 0, sizeof cell);
      for (i = 0; i < some; i++) NAME(lanes)(cell + i * 16, c + (size_t)(r + i) * (size_t)units + b * 16, valid);
      NAME(lstm_cells)(out, cell, acc, some);
      for (i = 0; i < some; i++) {
        const size_t place = (size_t)(r + i) * (size_t)units + (size_t)b * 16u;
        NAME(lanes)(c_new + place, cell + i * 16, valid);
        NAME(lanes)(h_new + place, out + i * 16, valid);
      }
    }
  }
}

static TARGET void NAME(lstm)(LSTM_PARAMETERS) {
  if (rows == 1) NAME(lstm_rows)(h_new, c_new, c, start, stride, places, wx, x, nx, wh, h, nh, units, 1, back);
  else NAME(lstm_rows)(h_new, c_new, c, start, stride, places, wx, x, nx, wh, h, nh, units, rows, back);
}
