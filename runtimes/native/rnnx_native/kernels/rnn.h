/* One step of an Elman RNN: h' = tanh(start + wx x + wh h), or relu of it. */
#define RNN_PARAMETERS                                                                                          \
  REAL *h_new, const REAL *start, size_t stride, const int64_t *places, const WEIGHT *wx, const INPUT *x,       \
      int nx, const WEIGHT *wh, const INPUT *h, int nh, int units, int rows, int relu, int back
typedef void NAME(rnn_kernel)(RNN_PARAMETERS);

static INTO void NAME(rnn_rows)(RNN_PARAMETERS) {
  const int blocks = (units + 15) / 16;
  int n, r, i, j;
  for (n = 0; n < blocks; n++) {
    const int b = back ? blocks - 1 - n : n;
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      REAL acc[4 * 16];
      NAME(begin)(acc, start + (size_t)b * 16u, stride, places, r, 16, some);
      NAME(multiply)(acc, wx, b, x, r, nx, 1, some);
      NAME(multiply)(acc, wh, b, h, r, nh, 1, some);
      if (relu) {
        for (j = 0; j < 16 * some; j++) acc[j] = acc[j] < 0 ? 0 : acc[j];
      } else {
        REAL_NAME(tanh)(acc, acc, 16 * some);
      }
      for (i = 0; i < some; i++) {
        NAME(lanes)(h_new + (size_t)(r + i) * (size_t)units + (size_t)b * 16u, acc + i * 16, valid);
      }
    }
  }
}

static TARGET void NAME(rnn)(RNN_PARAMETERS) {
  if (rows == 1) NAME(rnn_rows)(h_new, start, stride, places, wx, x, nx, wh, h, nh, units, 1, relu, back);
  else NAME(rnn_rows)(h_new, start, stride, places, wx, x, nx, wh, h, nh, units, rows, relu, back);
}
