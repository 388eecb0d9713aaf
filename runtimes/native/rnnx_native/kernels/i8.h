/* Weights of 8 bits. A weight is q * s with q in -127..127 and a scale s for each gate of each unit; an input row is
 * scaled as a whole when it comes. Sums are exact, in whole numbers, so all instruction sets agree to the bit.
 *
 *   block of a tile:   float scale[gates][16]; int32_t sum[gates][16]; int8_t q[columns / 4][gates][16][4]
 *   row of an input:    float scale; 4 bytes unused; uint8_t q + 128 [columns], filled up with 128 to a multiple of 4
 *
 * `columns` counts bytes throughout: the 8 in front, and the columns filled up. */
#include "kind.h"

#define KIND _i8
#define NUMBERS _f32
#define REAL float
#define WEIGHT int8_t
#define INPUT uint8_t
#if defined(VNNI)
#define COLUMNS "byte_vnni.h"
#elif defined(V) && LANES == 4
#define COLUMNS "byte_neon.h"
#define ROW_BY_ROW
#elif defined(V)
#define COLUMNS "byte_avx2.h"
#define ROW_BY_ROW
#else
#define COLUMNS "byte.h"
#endif
#include "sums.h"

typedef void NAME(quantize_kernel)(uint8_t *y, const float *x, int columns, int rows);
#if defined(VNNI)
#include "quantize_vnni.h"
#else
#include "quantize.h"
#endif
