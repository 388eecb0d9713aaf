/* One step of an LSTM (Hochreiter and Schmidhuber 1997, with forget gate), all four gates in one pass.
 * Gates of a block stand as i, o, f, c. c' = f * c + i * c~;  h' = o * tanh(c'). */
/* per type */
/* What a cell makes of its gates, for 16 units. */
static void rnnx_lstm_cell_f32(float *h_new, float *c_new, const float *gates, const float *c) {
  float sigmoid[48], cell[16], out[16];
  int j;
  rnnx_sigmoid_f32(sigmoid, gates, 48);
  rnnx_tanh_f32(out, gates + 48, 16);
  for (j = 0; j < 16; j++) cell[j] = sigmoid[32 + j] * c[j] + sigmoid[j] * out[j];
  rnnx_tanh_f32(out, cell, 16);
  for (j = 0; j < 16; j++) h_new[j] = out[j] * sigmoid[16 + j];
  memcpy(c_new, cell, sizeof cell);
}

static void rnnx_lstm_f32(float *h_new, float *c_new, const float *h, const float *c, const float *start,
                          size_t stride, const float *wx, const float *x, int nx, const float *wh, int units,
                          int rows) {
  int b, r, i;
  for (b = 0; b * 16 < units; b++) {
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float acc[4 * 64];
      rnnx_begin_f32(acc, start + (size_t)r * stride + (size_t)b * 64u, stride, 64, some);
      if (nx > 0) {
        rnnx_accumulate_f32(acc, wx + (size_t)b * (size_t)nx * 64u, x + (size_t)r * (size_t)nx, (size_t)nx, nx, 4,
                            some);
      }
      rnnx_accumulate_f32(acc, wh + (size_t)b * (size_t)units * 64u, h + (size_t)r * (size_t)units, (size_t)units,
                          units, 4, some);
      for (i = 0; i < some; i++) {
        const size_t place = (size_t)(r + i) * (size_t)units + (size_t)b * 16u;
        float old[16] = {0}, cell[16], out[16];
        rnnx_lanes_f32(old, c + place, valid);
        rnnx_lstm_cell_f32(out, cell, acc + i * 64, old);
        rnnx_lanes_f32(c_new + place, cell, valid);
        rnnx_lanes_f32(h_new + place, out, valid);
      }
    }
  }
}
/* end */
