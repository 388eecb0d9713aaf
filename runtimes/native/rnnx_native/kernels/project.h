/* out[rows][blocks][gates][16] = start + tile * x[rows][columns] */
#define PROJECT_PARAMETERS \
  REAL *out, const INPUT *x, const WEIGHT *tile, const REAL *start, int columns, int gates, int blocks, int rows
typedef void NAME(project_kernel)(PROJECT_PARAMETERS);

static TARGET void NAME(project)(PROJECT_PARAMETERS) {
  const size_t width = 16u * (size_t)gates;
  int b, r, i;
  for (b = 0; b < blocks; b++) {
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      REAL acc[4 * 64];
      NAME(begin)(acc, start + (size_t)b * width, 0, NULL, 0, 16 * gates, some);
      NAME(multiply)(acc, tile, b, x, r, columns, gates, some);
      for (i = 0; i < some; i++) {
        memcpy(out + ((size_t)(r + i) * (size_t)blocks + (size_t)b) * width, acc + (size_t)i * width,
               width * sizeof *acc);
      }
    }
  }
}
