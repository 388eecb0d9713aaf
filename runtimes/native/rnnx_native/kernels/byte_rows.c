/* Sums of products of bytes for several rows, one after the other. */
static TARGET void rnnx_accumulate_i8_ISA(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns,
                                          int gates, int rows) {
  int r;
  for (r = 0; r < rows; r++, acc += 16 * gates, x += stride) {
    if (gates == 4) rnnx_dots_4x1_ISA(acc, tile, x, columns);
    else if (gates == 3) rnnx_dots_3x1_ISA(acc, tile, x, columns);
    else rnnx_dots_1x1_ISA(acc, tile, x, columns);
  }
}
