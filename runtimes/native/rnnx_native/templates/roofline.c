/* The least that a step costs on this machine: reading its weights, and multiplying by each of them once. Built
 * for this very machine, with all that its compiler knows. */

/* Read `count` numbers, so many times, and do nothing else with them. */
float rnnx_read(const float *weights, long count, int times) {
  float sum[128] = {0}, all = 0;
  long i, j;
  while (times-- > 0) {
    for (i = 0; i + 128 <= count; i += 128) {
      for (j = 0; j < 128; j++) sum[j] += weights[i + j];
    }
  }
  for (j = 0; j < 128; j++) all += sum[j];
  return all;
}

/* Do `count` multiply-adds on numbers that are in registers. */
float rnnx_multiply(long count, float factor) {
  float sum[256], all = 0;
  long i, j;
  for (j = 0; j < 256; j++) sum[j] = (float)j;
  for (i = 0; i < count; i += 256) {
    for (j = 0; j < 256; j++) sum[j] = sum[j] * factor + 1.0f;
  }
  for (j = 0; j < 256; j++) all += sum[j];
  return all;
}
