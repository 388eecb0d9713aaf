/* One step of an LSTM (Hochreiter and Schmidhuber 1997, with forget gate), all four gates in one pass.
 * Gates of a block stand as i, o, f, c. c' = f * c + i * c~;  h' = o * tanh(c'). */
/* per type */
/* What cells make of their gates[rows][64], which they overwrite, and c[rows][16]. First all gates, then all else:
 * rows that are at the same place do not wait for one another. */
static void rnnx_lstm_cells_f32(float *h_new, float *c, float *gates, int rows) {
  int r, j;
  for (r = 0; r < rows; r++) {
    rnnx_sigmoid_f32(gates + r * 64, gates + r * 64, 48);
    rnnx_tanh_f32(gates + r * 64 + 48, gates + r * 64 + 48, 16);
  }
  for (r = 0; r < rows; r++, gates += 64, c += 16, h_new += 16) {
    for (j = 0; j < 16; j++) c[j] = gates[32 + j] * c[j] + gates[j] * gates[48 + j];
    rnnx_tanh_f32(h_new, c, 16);
    for (j = 0; j < 16; j++) h_new[j] *= gates[16 + j];
  }
}

static void rnnx_lstm_f32(float *h_new, float *c_new, const float *h, const float *c, const float *start,
                          size_t stride, const int64_t *places, const float *wx, const float *x, int nx,
                          const float *wh, int units, int rows, int back) {
  const int blocks = (units + 15) / 16;
  int n, r, i;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float acc[4 * 64], cell[4 * 16], out[4 * 16];
      rnnx_begin_f32(acc, start + (size_t)b * 64u, stride, places, r, 64, some);
      if (nx > 0) {
        rnnx_accumulate_f32(acc, wx + (size_t)b * (size_t)nx * 64u, x + (size_t)r * (size_t)nx, (size_t)nx, nx, 4,
                            some);
      }
      rnnx_accumulate_f32(acc, wh + (size_t)b * (size_t)units * 64u, h + (size_t)r * (size_t)units, (size_t)units,
                          units, 4, some);
      if (valid < 16) memset(cell, 0, sizeof cell);
      for (i = 0; i < some; i++) rnnx_lanes_f32(cell + i * 16, c + (size_t)(r + i) * (size_t)units + b * 16, valid);
      rnnx_lstm_cells_f32(out, cell, acc, some);
      for (i = 0; i < some; i++) {
        const size_t place = (size_t)(r + i) * (size_t)units + (size_t)b * 16u;
        rnnx_lanes_f32(c_new + place, cell + i * 16, valid);
        rnnx_lanes_f32(h_new + place, out + i * 16, valid);
      }
    }
  }
}
/* end */
