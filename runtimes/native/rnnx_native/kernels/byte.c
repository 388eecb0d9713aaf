/* Weights of 8 bits. A weight is q * s with q in -127..127 and a scale s for each gate of each unit; an input row is
 * scaled as a whole when it comes. Sums are exact, in whole numbers, so all instruction sets agree to the bit.
 *
 *   block of a tile:   float scale[gates][16]; int32_t sum[gates][16]; int8_t q[columns / 4][gates][16][4]
 *   row of an input:    float scale; 4 bytes unused; uint8_t q + 128 [columns], filled up with 128 to a multiple of 4
 *
 * `columns` counts bytes throughout: the 8 in front, and the columns filled up. */

/* Scale rows of x so that their largest element becomes 127. */
static void rnnx_quantize_i8(uint8_t *y, const float *x, int columns, int rows) {
  const int padded = (columns + 3) / 4 * 4;
  int r, k, j;
  for (r = 0; r < rows; r++, x += columns, y += 8 + padded) {
    float lanes[16] = {0}, largest = 0.0f, scale, inverse;
    for (k = 0; k + 16 <= columns; k += 16) { /* sixteen maxima side by side, which compilers vectorise */
      for (j = 0; j < 16; j++) {
        const float size = x[k + j] < 0.0f ? -x[k + j] : x[k + j];
        lanes[j] = size > lanes[j] ? size : lanes[j];
      }
    }
    for (; k < columns; k++) {
      const float size = x[k] < 0.0f ? -x[k] : x[k];
      largest = size > largest ? size : largest;
    }
    for (j = 0; j < 16; j++) largest = lanes[j] > largest ? lanes[j] : largest;
    scale = largest / 127.0f;
    inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    memset(y, 0, 8);
    memcpy(y, &scale, sizeof scale);
    for (k = 0; k < columns; k++) y[8 + k] = (uint8_t)(int)(x[k] * inverse + 128.5f); /* 1..255: rounds to nearest */
    for (; k < padded; k++) y[8 + k] = 128;
  }
}

/* acc[rows][gates * 16] += one block of tiles times x[rows][stride], for up to 4 rows. */
static void rnnx_accumulate_i8(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns,
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
