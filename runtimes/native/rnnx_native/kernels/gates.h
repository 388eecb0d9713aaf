/* The sums over columns for each number of gates that layers have. */
#define GATES 1
#include COLUMNS
#undef GATES
#define GATES 3
#include COLUMNS
#undef GATES
#define GATES 4
#include COLUMNS
#undef GATES
