/* AVX-512. */
#undef ISA
#undef HAS
#define ISA _avx512
#define HAS "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#include "registers512.h"
#include "vector.h"
