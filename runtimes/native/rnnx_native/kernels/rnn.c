/* One step of an Elman RNN: h' = tanh(start + wx x + wh h), or relu of it. */
/* per type */
static void rnnx_rnn_f32(float *h_new, const float *h, const float *start, size_t stride, const int64_t *places,
                         const float *wx, const float *x, int nx, const float *wh, int units, int rows, int relu, int back) {
  const int blocks = (units + 15) / 16;
  int n, r, i, j;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float acc[4 * 16];
      rnnx_begin_f32(acc, start + (size_t)b * 16u, stride, places, r, 16, some);
      if (nx > 0) {
        rnnx_accumulate_f32(acc, wx + (size_t)b * (size_t)nx * 16u, x + (size_t)r * (size_t)nx, (size_t)nx, nx, 1,
                            some);
      }
      rnnx_accumulate_f32(acc, wh + (size_t)b * (size_t)units * 16u, h + (size_t)r * (size_t)units, (size_t)units,
                          units, 1, some);
      if (relu) {
        for (j = 0; j < 16 * some; j++) acc[j] = acc[j] < 0.0f ? 0.0f : acc[j];
      } else {
        rnnx_tanh_f32(acc, acc, 16 * some);
      }
      for (i = 0; i < some; i++) {
        rnnx_lanes_f32(h_new + (size_t)(r + i) * (size_t)units + (size_t)b * 16u, acc + i * 16, valid);
      }
    }
  }
}
/* end */
