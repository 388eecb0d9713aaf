/* Activations of float arrays, written so that compilers vectorise them: exp and tanh are at most 2 ulp from
 * the exact value, sigmoid at most 2.5.
 *
 * exp: x = k ln 2 + r with |r| <= ln(2)/2, exp(r) = 1 + r + r^2 q(r) with q fitted for the least relative
 * error, times 2^k in two factors, so that results below the smallest normal number are right too.
 * tanh: x + x^3 q(x^2) up to 0.625, above it 1 - 2 / (exp(2|x|) + 1). sigmoid: 1 / (1 + e) with
 * e = exp(-|x|), or e / (1 + e) for negative x, which keeps small results precise.
 */
static float rnnx_power_f32(int32_t k) {
  const uint32_t bits = (uint32_t)(k + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

static float rnnx_exp1_f32(float x) {
  const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to whole numbers */
  const float top = x > 89.0f ? 89.0f : x;
  const float low = top < -104.0f ? -104.0f : top;
  const float shifted = low * 1.44269504f + magic;
  const float k = shifted - magic;
  const float r = (low - k * 0.693359375f) + k * 2.12194440e-4f;
  const float q = 0.49999993f + r * (0.1666652f + r * (0.04166839f + r * (0.00836878f + r * 0.00138145f)));
  const float p = 1.0f + (r + r * r * q);
  uint32_t bits;
  int32_t whole, half;
  memcpy(&bits, &shifted, sizeof bits);
  whole = (int32_t)(bits & 0x3ffu) - ((bits & 0x200u) ? 0x400 : 0); /* k, a number of 10 bits */
  half = whole / 2;
  return p * rnnx_power_f32(half) * rnnx_power_f32(whole - half);
}

static float rnnx_sigmoid1_f32(float x) {
  const float e = rnnx_exp1_f32(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static float rnnx_tanh1_f32(float x) {
  const float s = x * x;
  const float near =
      x + x * s * (-0.33333276f + s * (0.13331274f + s * (-0.05372512f + s * (0.02058982f + s * -0.00564831f))));
  const float size = x < 0.0f ? -x : x;
  const float far = 1.0f - 2.0f / (rnnx_exp1_f32(2.0f * size) + 1.0f);
  return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

/* The same for double: the C library's functions are precise, and no network in double is in a hurry. */
static double rnnx_exp1_f64(double x) { return exp(x); }
static double rnnx_sigmoid1_f64(double x) { return 1.0 / (1.0 + exp(-x)); }
static double rnnx_tanh1_f64(double x) { return tanh(x); }

/* per type */
static void rnnx_exp_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_exp1_f32(x[i]);
}

static void rnnx_sigmoid_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_sigmoid1_f32(x[i]);
}

static void rnnx_tanh_f32(float *y, const float *x, int n) {
  int i;
  for (i = 0; i < n; i++) y[i] = rnnx_tanh1_f32(x[i]);
}
/* end */
