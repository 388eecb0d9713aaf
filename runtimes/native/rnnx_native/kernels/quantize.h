/* Scale rows of x so that their largest element becomes 127. */
static TARGET void NAME(quantize)(uint8_t *y, const float *x, int columns, int rows) {
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
