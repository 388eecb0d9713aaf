/* What all kernels of a vector instruction set have: its activations. */
#include "activations.h"
#include "names.h"

#undef NUMBERS
#define NUMBERS _f32

/* As rnnx_beyond_f32, on a register. */
static TARGET V REAL_NAME(beyondv)(V y, V *k) {
  const V shifted = FMA(y, SET(1.44269504f), SET(12582912.0f));
  V r, q;
  *k = SUB(shifted, SET(12582912.0f));
  r = FMA(*k, SET(2.12194440e-4f), FMA(*k, SET(-0.693359375f), y));
  q = FMA(SET(0.0013882394f), r, SET(0.008367186f));
  q = FMA(q, r, SET(0.041667223f));
  q = FMA(q, r, SET(0.16666539f));
  q = FMA(q, r, SET(0.49999997f));
  return FMA(MUL(r, r), q, r);
}

/* exp(x) for x from -104 on, up to `most`. Minimum and maximum stand in the order in which NaN stays NaN. */
static TARGET V REAL_NAME(expv)(V x, V most) {
  V k;
  const V p = REAL_NAME(beyondv)(MIN(most, MAX(SET(-104.0f), x)), &k);
  return SCALE(ADD(SET(1.0f), p), k);
}

/* e / (1 + e) with e = exp(x); from 30 on it is 1, and e must not become infinite. */
static TARGET V REAL_NAME(sigmoidv)(V x) {
  const V e = REAL_NAME(expv)(x, SET(30.0f));
  return DIV(e, ADD(SET(1.0f), e));
}

static TARGET V REAL_NAME(tanhv)(V x) {
  V k;
  const V p = REAL_NAME(beyondv)(MAX(SET(-20.0f), MINUS(ADD(x, x))), &k);
  const V power = POWER(k), beyond = MUL(power, p);
  return SIGN(x, DIV(SUB(SUB(SET(1.0f), power), beyond), ADD(ADD(SET(1.0f), power), beyond)));
}

static TARGET void REAL_NAME(exp)(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, REAL_NAME(expv)(LOAD(x + i), SET(89.0f)));
  rnnx_exp_f32(y + i, x + i, n - i);
}

static TARGET void REAL_NAME(sigmoid)(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, REAL_NAME(sigmoidv)(LOAD(x + i)));
  rnnx_sigmoid_f32(y + i, x + i, n - i);
}

static TARGET void REAL_NAME(tanh)(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, REAL_NAME(tanhv)(LOAD(x + i)));
  rnnx_tanh_f32(y + i, x + i, n - i);
}
