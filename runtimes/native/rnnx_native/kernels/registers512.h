/* Registers of 512 bits. */
#include "registers.h"

#define V __m512
#define LANES 16
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define SET _mm512_set1_ps
#define FMA _mm512_fmadd_ps
#define ADD _mm512_add_ps
#define SUB _mm512_sub_ps
#define MUL _mm512_mul_ps
#define DIV _mm512_div_ps
#define MIN _mm512_min_ps
#define MAX _mm512_max_ps
#define SCALE _mm512_scalef_ps
#define POWER(k) _mm512_scalef_ps(_mm512_set1_ps(1.0f), k)
#define MINUS(x) _mm512_or_ps(x, _mm512_set1_ps(-0.0f))
#define SIGN(x, y) _mm512_or_ps(y, _mm512_and_ps(x, _mm512_set1_ps(-0.0f)))
#define HALVES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define APART(gates) ((gates) == 1 ? 8 : 4)
#define PART(gates) (gates)
