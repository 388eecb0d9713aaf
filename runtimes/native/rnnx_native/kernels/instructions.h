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
#define RNNX_AVX2 __inline
#define RNNX_AVX512 __inline
#define RNNX_VNNI __inline
#define RNNX_AVX2_ALONE __declspec(noinline)
#define RNNX_AVX512_ALONE __declspec(noinline)
#define RNNX_VNNI_ALONE __declspec(noinline)
#define RNNX_AVX2_INTO __forceinline
#define RNNX_AVX512_INTO __forceinline
#define RNNX_VNNI_INTO __forceinline
#else
#define RNNX_AVX2_HAS target("avx2,fma,f16c")
#define RNNX_AVX512_HAS target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define RNNX_VNNI_HAS target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define RNNX_AVX2 __inline__ __attribute__((RNNX_AVX2_HAS))
#define RNNX_AVX512 __inline__ __attribute__((RNNX_AVX512_HAS))
#define RNNX_VNNI __inline__ __attribute__((RNNX_VNNI_HAS))
/* For functions that are not to become part of others. */
#define RNNX_AVX2_ALONE __attribute__((noinline, RNNX_AVX2_HAS))
#define RNNX_AVX512_ALONE __attribute__((noinline, RNNX_AVX512_HAS))
#define RNNX_VNNI_ALONE __attribute__((noinline, RNNX_VNNI_HAS))
/* For functions that are to become part of each that calls them. */
#define RNNX_AVX2_INTO __inline__ __attribute__((always_inline, RNNX_AVX2_HAS))
#define RNNX_AVX512_INTO __inline__ __attribute__((always_inline, RNNX_AVX512_HAS))
#define RNNX_VNNI_INTO __inline__ __attribute__((always_inline, RNNX_VNNI_HAS))
#endif
#elif !defined(RNNX_PORTABLE) && defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define RNNX_ARM64 1
#define RNNX_NEON __inline__
#define RNNX_NEON_ALONE __attribute__((noinline))
#define RNNX_NEON_INTO __inline__ __attribute__((always_inline))
#endif

/* The highest level that model_init chooses: 0 portable, 1 AVX2 or NEON, 2 AVX-512, 3 its VNNI. */
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
