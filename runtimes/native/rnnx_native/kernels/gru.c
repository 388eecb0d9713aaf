/* One step of a GRU (Cho et al. 2014) with the reset gate applied after the product, as PyTorch and cuDNN do.
 * Gates of a block stand as z, r, n. n = tanh(start_n + wx_n x + r * (hidden_bias + wh_n h)). */
/* per type */
static void rnnx_gru_f32(float *h_new, const float *h, const float *start, size_t stride,
                         const float *hidden_bias, const float *wx, const float *x, int nx, const float *wh,
                         int units, int rows) {
  int b, r, i, j;
  for (b = 0; b * 16 < units; b++) {
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float from_x[4 * 48], from_h[4 * 48] = {0};
      rnnx_begin_f32(from_x, start + (size_t)r * stride + (size_t)b * 48u, stride, 48, some);
      for (i = 0; i < some; i++) rnnx_lanes_f32(from_h + i * 48 + 32, hidden_bias + (size_t)b * 16u, 16);
      if (nx > 0) {
        rnnx_accumulate_f32(from_x, wx + (size_t)b * (size_t)nx * 48u, x + (size_t)r * (size_t)nx, (size_t)nx, nx, 3,
                            some);
      }
      rnnx_accumulate_f32(from_h, wh + (size_t)b * (size_t)units * 48u, h + (size_t)r * (size_t)units,
                          (size_t)units, units, 3, some);
      for (i = 0; i < some; i++) {
        float *const gates = from_x + i * 48, *const hidden = from_h + i * 48;
        const size_t place = (size_t)(r + i) * (size_t)units + (size_t)b * 16u;
        float old[16] = {0}, out[16];
        for (j = 0; j < 32; j++) gates[j] += hidden[j];
        rnnx_sigmoid_f32(gates, gates, 32);
        for (j = 0; j < 16; j++) gates[32 + j] += gates[16 + j] * hidden[32 + j];
        rnnx_tanh_f32(gates + 32, gates + 32, 16);
        rnnx_lanes_f32(old, h + place, valid);
        for (j = 0; j < 16; j++) out[j] = (1.0f - gates[j]) * gates[32 + j] + gates[j] * old[j];
        rnnx_lanes_f32(h_new + place, out, valid);
      }
    }
  }
}
/* end */
