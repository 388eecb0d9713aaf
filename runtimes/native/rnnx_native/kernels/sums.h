/* Tiles times columns: what every layer is made of. Layouts as README.md says. Rows are taken four at a time, so that
 * each weight is read once for four of them. */

/* Copy the lanes that are units; nearly always all 16, which compilers turn into a few moves. */
static TARGET void NAME(lanes)(REAL *to, const REAL *from, int valid) {
#if defined(V)
  int i;
  if (valid == 16) {
    RNNX_UNROLL
    for (i = 0; i < 16; i += LANES) STORE(to + i, LOAD(from + i));
  } else {
    memcpy(to, from, (size_t)valid * sizeof *to);
  }
#else
  if (valid == 16) memcpy(to, from, 16 * sizeof *to);
  else memcpy(to, from, (size_t)valid * sizeof *to);
#endif
}

/* acc[rows][width] = start, where row r of them all is number places[r], or r if places is NULL; they lie stride
 * apart. */
static TARGET void NAME(begin)(REAL *acc, const REAL *start, size_t stride, const int64_t *places, int first, int width,
                               int rows) {
  int r;
  for (r = 0; r < rows; r++, acc += width) {
    const REAL *const from = start + (places ? (size_t)places[first + r] : (size_t)(first + r)) * stride;
#if defined(V)
    int i;
    for (i = 0; i < width; i += LANES) STORE(acc + i, LOAD(from + i));
#else
    memcpy(acc, from, (size_t)width * sizeof *acc);
#endif
  }
}

#if defined(V)
/* The sums of so many gates and rows, such as rnnx_sums_4x1_f32_avx2. A column has VECTORS registers, of which PASS are
 * summed in one pass, and TIMES columns are summed apart. */
#define RNNX_PASTE_SUMS(gates, rows, kind, isa) rnnx_sums_##gates##x##rows##kind##isa
#define RNNX_NAME_SUMS(gates, rows, kind, isa) RNNX_PASTE_SUMS(gates, rows, kind, isa)
#define SUMS(gates, rows) RNNX_NAME_SUMS(gates, rows, KIND, ISA)
#define VECTORS (16 * GATES / LANES)
#define PASS (ROWS == 1 ? VECTORS : PART(GATES))
#define TIMES (ROWS == 1 ? APART(GATES) : 1)

/* Sums of several rows stay out of larger functions, where they would run out of registers. */
#if !defined(ROW_BY_ROW)
#define ROWS 4
#define MAKE ALONE
#include "gates.h"
#undef ROWS
#undef MAKE
#endif

#define ROWS 1
#define MAKE TARGET
#if defined(NARROW_ROWS)
#include "registers256.h"
#undef APART
#define APART(gates) ((gates) == 1 ? 4 : 2)
#endif
#include "gates.h"
#if defined(NARROW_ROWS)
#include "registers512.h"
#endif
#undef ROWS
#undef MAKE

/* acc[rows][gates * 16] += one block of tiles times x[rows][stride], for up to 4 rows. */
static TARGET void NAME(accumulate)(REAL *acc, const WEIGHT *tile, const INPUT *x, size_t stride, int columns,
                                    int gates, int rows) {
  int r;
#if !defined(ROW_BY_ROW)
  if (rows == 4) {
    if (gates == 4) SUMS(4, 4)(acc, tile, x, stride, columns);
    else if (gates == 3) SUMS(3, 4)(acc, tile, x, stride, columns);
    else SUMS(1, 4)(acc, tile, x, stride, columns);
    return;
  }
#endif
  for (r = 0; r < rows; r++, acc += 16 * gates, x += stride) {
    if (gates == 4) SUMS(4, 1)(acc, tile, x, stride, columns);
    else if (gates == 3) SUMS(3, 1)(acc, tile, x, stride, columns);
    else SUMS(1, 1)(acc, tile, x, stride, columns);
  }
}

#undef RNNX_PASTE_SUMS
#undef RNNX_NAME_SUMS
#undef SUMS
#undef VECTORS
#undef PASS
#undef TIMES

#else
#include COLUMNS
#endif

/* acc[rows][gates * 16] += block b of tiles times rows r and on of x[][columns]; nothing if there are no columns. */
static INTO void NAME(multiply)(REAL *acc, const WEIGHT *tiles, int b, const INPUT *x, int r, int columns, int gates,
                                int rows) {
  const size_t length = (size_t)columns, width = 16u * (size_t)gates;
  if (columns > 0) {
    NAME(accumulate)(acc, tiles + (size_t)b * length * width, x + (size_t)r * length, length, columns, gates, rows);
  }
}
