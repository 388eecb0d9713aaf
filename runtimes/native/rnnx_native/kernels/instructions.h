/* Which vector instructions this file may use. Leave them all out with -DRNNX_PORTABLE: nothing needs them. */
#if !defined(RNNX_PORTABLE) && (defined(__x86_64__) || defined(_M_X64))
#if defined(__GNUC__) && !defined(__clang__)
/* GCC warns of variables in its own header, which initialises them with themselves. */
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#define RNNX_X86 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define RNNX_VECTOR __inline
#define RNNX_VECTOR_ALONE __declspec(noinline)
#define RNNX_VECTOR_INTO __forceinline
#else
/* HAS is what a set of instructions is made of. */
#define RNNX_VECTOR __inline__ __attribute__((target(HAS)))
#define RNNX_VECTOR_ALONE __attribute__((noinline, target(HAS)))
#define RNNX_VECTOR_INTO __inline__ __attribute__((always_inline, target(HAS)))
#endif
#elif !defined(RNNX_PORTABLE) && defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define RNNX_ARM64 1
#define RNNX_VECTOR __inline__
#define RNNX_VECTOR_ALONE __attribute__((noinline))
#define RNNX_VECTOR_INTO __inline__ __attribute__((always_inline))
#endif

/* The highest level that model_init chooses. */
#if !defined(RNNX_LEVEL)
#define RNNX_LEVEL 3
#endif

#if defined(__clang__)
#define RNNX_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define RNNX_UNROLL _Pragma("GCC unroll 16")
#else
#define RNNX_UNROLL
#endif

/* The level of this processor, as it and the system say: 0 portable, 1 AVX2 with FMA or NEON, 2 AVX-512, 3 its VNNI. */
#if defined(RNNX_X86)
static int rnnx_level(void) {
#if defined(_MSC_VER) && !defined(__clang__)
  int one[4], seven[4];
  unsigned long long saved;
  __cpuid(one, 1);
  __cpuidex(seven, 7, 0);
  if (!(one[2] & 1 << 27) || !(one[2] & 1 << 12) || !(one[2] & 1 << 29) || !(seven[1] & 1 << 5)) return 0;
  saved = _xgetbv(0);
  if ((saved & 6) != 6) return 0;
  if ((saved & 0xe6) != 0xe6 || (seven[1] & 0xc0030000) != (int)0xc0030000) return 1;
  return seven[2] & 1 << 11 ? 3 : 2;
#else
  __builtin_cpu_init();
  /* Half floats (F16C) came before AVX2, and not all compilers can ask for them. */
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 1;
  if (!__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) return 1;
  return __builtin_cpu_supports("avx512vnni") ? 3 : 2;
#endif
}
#elif defined(RNNX_ARM64)
static int rnnx_level(void) { return 1; }
#endif
