/* Comes first in each file of a kind of weights, which says: KIND ends the names of its kernels, NUMBERS those of what
 * is computed in, REAL; WEIGHT and INPUT are the types of what products multiply, WIDE(p) reads weights as REAL.
 * COLUMNS is the file with the sums over columns, ROW_BY_ROW if it has them for one row only, NARROW_ROWS if a single row wants
 * registers of half the size. */
#include "names.h"

#undef KIND
#undef NUMBERS
#undef REAL
#undef WEIGHT
#undef INPUT
#undef WIDE
#undef COLUMNS
#undef ROW_BY_ROW
#undef NARROW_ROWS
