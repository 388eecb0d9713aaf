/* acc[rows][gates * 16] += one block of tiles times x[rows][stride], for up to 4 rows. */
static TARGET void NAME(accumulate)(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns,
                                    int gates, int rows) {
  const int width = 16 * gates, quads = (columns - 8) / 4;
  float scales[64];
  int r, k, j;
  memcpy(scales, tile, (size_t)width * sizeof *scales);
  for (r = 0; r < rows; r++, x += stride, acc += width) {
    const int8_t *column = tile + 8 * width;
    int32_t total[64] = {0};
    float scale;
    memcpy(&scale, x, sizeof scale);
    for (k = 0; k < quads; k++, column += 4 * width) {
      const int a = x[8 + 4 * k] - 128, b = x[9 + 4 * k] - 128, c = x[10 + 4 * k] - 128, d = x[11 + 4 * k] - 128;
      for (j = 0; j < width; j++) {
        total[j] += a * column[4 * j] + b * column[4 * j + 1] + c * column[4 * j + 2] + d * column[4 * j + 3];
      }
    }
    for (j = 0; j < width; j++) acc[j] += (float)total[j] * (scale * scales[j]);
  }
}
