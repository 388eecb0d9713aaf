/* All in double: without vector instructions, since no network in double is in a hurry. */
#include "activations_f64.h"
#include "kind.h"

#define KIND _f64
#define NUMBERS _f64
#define REAL double
#define WEIGHT double
#define INPUT double
#define WIDE LOAD
#define COLUMNS "columns.h"
#include "sums.h"
