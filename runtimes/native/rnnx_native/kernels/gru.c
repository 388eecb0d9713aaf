/* One step of a GRU (Cho et al. 2014) with the reset gate applied after the product, as PyTorch and cuDNN do.
 * Gates of a block stand as z, r, n. n = tanh(from_x_n + r * from_h_n);  h' = (1 - z) * n + z * h. */
/* per type */
/* What cells make of their gates[rows][48], summed over the input and over the hidden state apart, and of h[rows][16],
 * which they overwrite. */
static void rnnx_gru_cells_f32(float *h, float *from_x, const float *from_h, int rows) {
  int r, j;
  for (r = 0; r < rows; r++) {
    for (j = 0; j < 32; j++) from_x[r * 48 + j] += from_h[r * 48 + j];
    rnnx_sigmoid_f32(from_x + r * 48, from_x + r * 48, 32);
  }
  for (r = 0; r < rows; r++, from_x += 48, from_h += 48, h += 16) {
    float *const n = from_x + 32;
    for (j = 0; j < 16; j++) n[j] += from_x[16 + j] * from_h[32 + j];
    rnnx_tanh_f32(n, n, 16);
    for (j = 0; j < 16; j++) h[j] = n[j] + from_x[j] * (h[j] - n[j]);
  }
}

static void rnnx_gru_f32(float *h_new, const float *h, const float *start, size_t stride, const int64_t *places,
                         const float *hidden, const float *wx, const float *x, int nx, const float *wh, int units,
                         int rows, int back) {
  const int blocks = (units + 15) / 16;
  int n, r, i;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float from_x[4 * 48], from_h[4 * 48], own[4 * 16];
      rnnx_begin_f32(from_x, start + (size_t)b * 48u, stride, places, r, 48, some);
      rnnx_begin_f32(from_h, hidden + (size_t)b * 48u, 0, NULL, 0, 48, some);
      if (nx > 0) {
        rnnx_accumulate_f32(from_x, wx + (size_t)b * (size_t)nx * 48u, x + (size_t)r * (size_t)nx, (size_t)nx, nx, 3,
                            some);
      }
      rnnx_accumulate_f32(from_h, wh + (size_t)b * (size_t)units * 48u, h + (size_t)r * (size_t)units,
                          (size_t)units, units, 3, some);
      if (valid < 16) memset(own, 0, sizeof own);
      for (i = 0; i < some; i++) rnnx_lanes_f32(own + i * 16, h + (size_t)(r + i) * (size_t)units + b * 16, valid);
      rnnx_gru_cells_f32(own, from_x, from_h, some);
      for (i = 0; i < some; i++) {
        rnnx_lanes_f32(h_new + (size_t)(r + i) * (size_t)units + b * 16, own + i * 16, valid);
      }
    }
  }
}
/* end */
