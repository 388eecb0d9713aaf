/* Comes first in each file that says what the words of vector code stand for: V is a register of LANES floats,
 * FMA(a, b, c) is a * b + c, SCALE(p, k) is p * 2^k also below the smallest normal number, POWER(k) is 2^k, MINUS(x) is
 * -|x|, SIGN(x, y) is y, which has none, with the sign of x, HALVES(p) reads a register of half floats. With one row,
 * APART(gates) columns are summed apart, so that no sum waits for itself; with four, PART(gates) registers of a column
 * are summed in one pass. */
#undef V
#undef LANES
#undef LOAD
#undef STORE
#undef SET
#undef FMA
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef MIN
#undef MAX
#undef SCALE
#undef POWER
#undef MINUS
#undef SIGN
#undef HALVES
#undef APART
#undef PART
/* TARGET stands before all functions, ALONE before those that are not to become part of others, INTO before those that
 * are to become part of each that calls them: of a layer for any rows and for exactly one. There the compiler drops the
 * loops over rows, and the processor gets far enough ahead to read the next block's weights while a cell's long chain
 * of operations waits for itself. */
#undef TARGET
#undef ALONE
#undef INTO
#define TARGET RNNX_VECTOR
#define ALONE RNNX_VECTOR_ALONE
#define INTO RNNX_VECTOR_INTO
