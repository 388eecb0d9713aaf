/* Tiles times columns: what every layer is made of. Layouts as README.md says; L = 16 lanes. Rows are taken
 * four at a time, so that each weight is read once for four of them. */
/* per type */
/* Copy the lanes that are units; nearly always all 16, which compilers turn into a few moves. */
static void rnnx_lanes_f32(float *to, const float *from, int valid) {
  if (valid == 16) memcpy(to, from, 16 * sizeof *to);
  else memcpy(to, from, (size_t)valid * sizeof *to);
}

/* acc[rows][width] = start, where row r of them all is number places[r], or r if places is NULL; rows lie stride apart. */
static void rnnx_begin_f32(float *acc, const float *start, size_t stride, const int64_t *places, int first, int width,
                           int rows) {
  int r;
  for (r = 0; r < rows; r++) {
    const size_t place = places ? (size_t)places[first + r] : (size_t)(first + r);
    memcpy(acc + r * width, start + place * stride, (size_t)width * sizeof *acc);
  }
}

/* acc[rows][gates * 16] += one block of tiles times x[rows][stride], for up to 4 rows. */
static void rnnx_accumulate_f32(float *acc, const float *tile, const float *x, size_t stride, int columns,
                                int gates, int rows) {
  const int width = 16 * gates;
  int k, j, r;
  for (r = 0; r < rows; r++) {
    float *const sum = acc + r * width;
    for (k = 0; k < columns; k++) {
      const float value = x[(size_t)r * stride + (size_t)k];
      const float *const column = tile + (size_t)k * (size_t)width;
      for (j = 0; j < width; j++) sum[j] += column[j] * value;
    }
  }
}

/* out[rows][blocks][gates][16] = start + tile * x[rows][columns] */
static void rnnx_project_f32(float *out, const float *x, const float *tile, const float *start, int columns,
                             int gates, int blocks, int rows) {
  const size_t width = 16u * (size_t)gates;
  int b, r, i;
  for (b = 0; b < blocks; b++) {
    const float *const block = tile + (size_t)b * (size_t)columns * width;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float acc[4 * 64];
      rnnx_begin_f32(acc, start + (size_t)b * width, 0, NULL, 0, 16 * gates, some);
      rnnx_accumulate_f32(acc, block, x + (size_t)r * (size_t)columns, (size_t)columns, columns, gates, some);
      for (i = 0; i < some; i++) {
        memcpy(out + ((size_t)(r + i) * (size_t)blocks + (size_t)b) * width, acc + (size_t)i * width,
               width * sizeof *acc);
      }
    }
  }
}

/* y[rows][units] = start + tile * x[rows][columns] */
static void rnnx_dense_f32(float *y, const float *x, const float *tile, const float *start, int columns,
                           int units, int rows) {
  int b, r, i;
  for (b = 0; b * 16 < units; b++) {
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    const float *const block = tile + (size_t)b * (size_t)columns * 16u;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      float acc[4 * 16];
      rnnx_begin_f32(acc, start + b * 16, 0, NULL, 0, 16, some);
      rnnx_accumulate_f32(acc, block, x + (size_t)r * (size_t)columns, (size_t)columns, columns, 1, some);
      for (i = 0; i < some; i++) {
        rnnx_lanes_f32(y + (size_t)(r + i) * (size_t)units + b * 16, acc + i * 16, valid);
      }
    }
  }
}
/* end */

/* The row of a table that a token stands for; the row behind the last for one that there is not. */
static size_t rnnx_row(int64_t token, int64_t count) { return (size_t)(token < 0 || token > count ? count : token); }
