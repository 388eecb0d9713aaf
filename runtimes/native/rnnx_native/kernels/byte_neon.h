/* Sums of products of bytes with NEON. */
static MAKE void SUMS(GATES, ROWS)(float *acc, const int8_t *tile, const uint8_t *x, size_t stride, int columns) {
  const int quads = (columns - 8) / 4;
  const int8_t *column = tile + GATES * 128;
  int32x4_t sum[GATES][4];
  float scale;
  int i, j, k;
  (void)stride;
  memcpy(&scale, x, sizeof scale);
  RNNX_UNROLL
  for (i = 0; i < GATES; i++) {
    RNNX_UNROLL
    for (j = 0; j < 4; j++) sum[i][j] = vdupq_n_s32(0);
  }
  for (k = 0; k < quads; k++, column += GATES * 64) {
    uint32_t four;
    int8x16_t value;
    memcpy(&four, x + 8 + 4 * k, sizeof four);
    value = vreinterpretq_s8_u32(vdupq_n_u32(four ^ UINT32_C(0x80808080))); /* less the 128 that was added */
    RNNX_UNROLL
    for (i = 0; i < GATES; i++) {
      RNNX_UNROLL
      for (j = 0; j < 4; j++) sum[i][j] = rnnx_dot_neon(sum[i][j], vld1q_s8(column + i * 64 + j * 16), value);
    }
  }
  RNNX_UNROLL
  for (i = 0; i < GATES; i++) {
    RNNX_UNROLL
    for (j = 0; j < 16; j += 4) {
      const float *const scales = (const float *)(const void *)tile + i * 16 + j;
      float *const to = acc + i * 16 + j;
      const float32x4_t own = vmulq_n_f32(vld1q_f32(scales), scale);
      vst1q_f32(to, vaddq_f32(vld1q_f32(to), vmulq_f32(vcvtq_f32_s32(sum[i][j / 4]), own)));
    }
  }
}
