/* Sums over columns with vector registers, made for each instruction set by instruction_sets.py: V is its register of
 * LANES floats, ROWS the rows at once, a column has VECTORS registers of which PART are summed in one pass, and
 * APART columns are summed apart, so that no sum waits for itself. Weights are of the type W, which WEIGHT widens.
 * ALONE keeps sums of several rows out of larger functions, where they would run out of registers. */

/* columns */
static ALONE void NAME(float *acc, const W *tile, const float *x, size_t stride, int columns) {
  int part, k, r, u, i;
  (void)stride;
  for (part = 0; part < VECTORS; part += PART) {
    const W *column = tile + part * LANES;
    V sum[ROWS][APART][PART];
    RNNX_UNROLL
    for (r = 0; r < ROWS; r++) {
      RNNX_UNROLL
      for (i = 0; i < PART; i++) sum[r][0][i] = LOAD(acc + (r * VECTORS + part + i) * LANES);
      RNNX_UNROLL
      for (u = 1; u < APART; u++) {
        RNNX_UNROLL
        for (i = 0; i < PART; i++) sum[r][u][i] = SET(0.0f);
      }
    }
    for (k = 0; k + APART <= columns; k += APART) {
      RNNX_UNROLL
      for (u = 0; u < APART; u++) {
        RNNX_UNROLL
        for (r = 0; r < ROWS; r++) {
          const V value = SET(x[(size_t)r * stride + (size_t)(k + u)]);
          RNNX_UNROLL
          for (i = 0; i < PART; i++) sum[r][u][i] = FMA(value, WEIGHT(column + (u * VECTORS + i) * LANES), sum[r][u][i]);
        }
      }
      column += APART * VECTORS * LANES;
    }
    for (; k < columns; k++) {
      RNNX_UNROLL
      for (r = 0; r < ROWS; r++) {
        const V value = SET(x[(size_t)r * stride + (size_t)k]);
        RNNX_UNROLL
        for (i = 0; i < PART; i++) sum[r][0][i] = FMA(value, WEIGHT(column + i * LANES), sum[r][0][i]);
      }
      column += VECTORS * LANES;
    }
    RNNX_UNROLL
    for (r = 0; r < ROWS; r++) {
      RNNX_UNROLL
      for (u = 1; u < APART; u++) {
        RNNX_UNROLL
        for (i = 0; i < PART; i++) sum[r][0][i] = ADD(sum[r][0][i], sum[r][u][i]);
      }
      RNNX_UNROLL
      for (i = 0; i < PART; i++) STORE(acc + (r * VECTORS + part + i) * LANES, sum[r][0][i]);
    }
  }
}
/* accumulate */
static TARGET void rnnx_accumulate_KIND_ISA(float *acc, const W *tile, const float *x, size_t stride, int columns,
                                           int gates, int rows) {
  int r;
  if (rows == 4) {
    if (gates == 4) rnnx_columns_4x4_KIND_ISA(acc, tile, x, stride, columns);
    else if (gates == 3) rnnx_columns_3x4_KIND_ISA(acc, tile, x, stride, columns);
    else rnnx_columns_1x4_KIND_ISA(acc, tile, x, stride, columns);
    return;
  }
  for (r = 0; r < rows; r++, acc += 16 * gates, x += stride) {
    if (gates == 4) rnnx_columns_4x1_KIND_ISA(acc, tile, x, stride, columns);
    else if (gates == 3) rnnx_columns_3x1_KIND_ISA(acc, tile, x, stride, columns);
    else rnnx_columns_1x1_KIND_ISA(acc, tile, x, stride, columns);
  }
}
/* copies */
static TARGET void rnnx_begin_f32_ISA(float *acc, const float *start, size_t stride, const int64_t *places, int first,
                                      int width, int rows) {
  int r, i;
  for (r = 0; r < rows; r++, acc += width) {
    const float *const from = start + (places ? (size_t)places[first + r] : (size_t)(first + r)) * stride;
    for (i = 0; i < width; i += LANES) STORE(acc + i, LOAD(from + i));
  }
}

static TARGET void rnnx_lanes_f32_ISA(float *to, const float *from, int valid) {
  int i;
  if (valid == 16) {
    RNNX_UNROLL
    for (i = 0; i < 16; i += LANES) STORE(to + i, LOAD(from + i));
  } else {
    memcpy(to, from, (size_t)valid * sizeof *to);
  }
}
/* activations */
/* As rnnx_beyond_f32, on a register. */
static TARGET V rnnx_beyondv_ISA(V y, V *k) {
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
static TARGET V rnnx_expv_ISA(V x, V most) {
  V k;
  const V p = rnnx_beyondv_ISA(MIN(most, MAX(SET(-104.0f), x)), &k);
  return SCALE(ADD(SET(1.0f), p), k);
}

/* e / (1 + e) with e = exp(x); from 30 on it is 1, and e must not become infinite. */
static TARGET V rnnx_sigmoidv_ISA(V x) {
  const V e = rnnx_expv_ISA(x, SET(30.0f));
  return DIV(e, ADD(SET(1.0f), e));
}

static TARGET V rnnx_tanhv_ISA(V x) {
  V k;
  const V p = rnnx_beyondv_ISA(MAX(SET(-20.0f), MINUS(ADD(x, x))), &k);
  const V power = POWER(k), beyond = MUL(power, p);
  return SIGN(x, DIV(SUB(SUB(SET(1.0f), power), beyond), ADD(ADD(SET(1.0f), power), beyond)));
}

static TARGET void rnnx_exp_f32_ISA(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, rnnx_expv_ISA(LOAD(x + i), SET(89.0f)));
  rnnx_exp_f32(y + i, x + i, n - i);
}

static TARGET void rnnx_sigmoid_f32_ISA(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, rnnx_sigmoidv_ISA(LOAD(x + i)));
  rnnx_sigmoid_f32(y + i, x + i, n - i);
}

static TARGET void rnnx_tanh_f32_ISA(float *y, const float *x, int n) {
  int i = 0;
  for (; i + LANES <= n; i += LANES) STORE(y + i, rnnx_tanhv_ISA(LOAD(x + i)));
  rnnx_tanh_f32(y + i, x + i, n - i);
}

static TARGET void rnnx_lstm_cells_f32_ISA(float *h_new, float *c, float *gates, int rows) {
  int i, j;
  for (i = 0; i < 64 * rows; i += 64) {
    RNNX_UNROLL
    for (j = i; j < i + 48; j += LANES) STORE(gates + j, rnnx_sigmoidv_ISA(LOAD(gates + j)));
    RNNX_UNROLL
    for (; j < i + 64; j += LANES) STORE(gates + j, rnnx_tanhv_ISA(LOAD(gates + j)));
  }
  for (i = 0; i < rows; i++, gates += 64, c += 16, h_new += 16) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += LANES) {
      const V cell = FMA(LOAD(gates + 32 + j), LOAD(c + j), MUL(LOAD(gates + j), LOAD(gates + 48 + j)));
      STORE(c + j, cell);
      STORE(h_new + j, MUL(LOAD(gates + 16 + j), rnnx_tanhv_ISA(cell)));
    }
  }
}

static TARGET void rnnx_gru_cells_f32_ISA(float *h, float *from_x, const float *from_h, int rows) {
  int i, j;
  for (i = 0; i < 48 * rows; i += 48) {
    RNNX_UNROLL
    for (j = i; j < i + 32; j += LANES) {
      STORE(from_x + j, rnnx_sigmoidv_ISA(ADD(LOAD(from_x + j), LOAD(from_h + j))));
    }
  }
  for (i = 0; i < rows; i++, from_x += 48, from_h += 48, h += 16) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += LANES) {
      const V n = rnnx_tanhv_ISA(FMA(LOAD(from_x + 16 + j), LOAD(from_h + 32 + j), LOAD(from_x + 32 + j)));
      STORE(h + j, FMA(LOAD(from_x + j), SUB(LOAD(h + j), n), n));
    }
  }
}
/* end */
