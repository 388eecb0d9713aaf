/* y[rows][units] = start + tile * x[rows][columns] */
#define DENSE_PARAMETERS \
  REAL *y, const INPUT *x, const WEIGHT *tile, const REAL *start, int columns, int units, int rows
typedef void NAME(dense_kernel)(DENSE_PARAMETERS);

static INTO void NAME(dense_rows)(DENSE_PARAMETERS) {
  int b, r, i;
  for (b = 0; b * 16 < units; b++) {
    const int valid = units - b * 16 < 16 ? units - b * 16 : 16;
    for (r = 0; r < rows; r += 4) {
      const int some = rows - r < 4 ? rows - r : 4;
      REAL acc[4 * 16];
      NAME(begin)(acc, start + b * 16, 0, NULL, 0, 16, some);
      NAME(multiply)(acc, tile, b, x, r, columns, 1, some);
      for (i = 0; i < some; i++) {
        NAME(lanes)(y + (size_t)(r + i) * (size_t)units + b * 16, acc + i * 16, valid);
      }
    }
  }
}

static TARGET void NAME(dense)(DENSE_PARAMETERS) {
  if (rows == 1) NAME(dense_rows)(y, x, tile, start, columns, units, 1);
  else NAME(dense_rows)(y, x, tile, start, columns, units, rows);
}
