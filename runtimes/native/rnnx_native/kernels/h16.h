/* Weights in half floats, all else in float. */
#include "half.h"
#include "kind.h"

#define KIND _h16
#define NUMBERS _f32
#define REAL float
#define WEIGHT uint16_t
#define INPUT float
#define WIDE HALVES
#define COLUMNS "columns.h"
#if defined(V) && LANES == 16
#define NARROW_ROWS /* some processors widen 16 halves much slower than 8 */
#endif
#include "sums.h"
