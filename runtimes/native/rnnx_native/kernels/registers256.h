/* Registers of 256 bits. */
#include "registers.h"

#define V __m256
#define LANES 8
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define SET _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#define ADD _mm256_add_ps
#define SUB _mm256_sub_ps
#define MUL _mm256_mul_ps
#define DIV _mm256_div_ps
#define MIN _mm256_min_ps
#define MAX _mm256_max_ps
#define SCALE rnnx_scale_avx2
#define POWER(k) \
  _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127)), 23))
#define MINUS(x) _mm256_or_ps(x, _mm256_set1_ps(-0.0f))
#define SIGN(x, y) _mm256_or_ps(y, _mm256_and_ps(x, _mm256_set1_ps(-0.0f)))
#define HALVES(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define APART(gates) ((gates) == 1 ? 4 : (gates) == 3 ? 2 : 1)
#define PART(gates) 2
