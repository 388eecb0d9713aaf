/* Weights in float. */
#include "kind.h"

#define KIND _f32
#define NUMBERS _f32
#define REAL float
#define WEIGHT float
#define INPUT float
#define WIDE LOAD
#define COLUMNS "columns.h"
#include "sums.h"
