/* AVX-512 with dot products of bytes: for weights of 8 bits. */
#undef ISA
#undef HAS
#define ISA _vnni
#define HAS "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#define VNNI
#include "registers512.h"
#include "vector.h"
