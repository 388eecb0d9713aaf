/* Numbers as C99 has them, whatever the flags: -ffast-math and -Ofast let a compiler reorder the sums that activations
 * are exact by, and take NaN and infinities for impossible. Without such flags nothing here changes the code. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(_M_FP_FAST)
#define RNNX_FAST_MATH 1
#endif
#if defined(__clang__)
#if __clang_major__ >= 13
#pragma clang fp reassociate(off)
#endif
#pragma clang diagnostic push
#if defined(RNNX_FAST_MATH)
#pragma clang diagnostic error "-Wignored-pragmas"
#pragma clang diagnostic error "-Wunknown-pragmas"
#else
#pragma clang diagnostic ignored "-Wignored-pragmas"
#pragma clang diagnostic ignored "-Wunknown-pragmas"
#endif
#pragma float_control(precise, on) /* An error here: this target needs -fno-finite-math-only behind -ffast-math. */
#pragma clang diagnostic pop
#elif defined(_MSC_VER) || defined(__INTEL_COMPILER)
#pragma float_control(precise, on)
#elif defined(RNNX_FAST_MATH) && (!defined(__GNUC__) || defined(__x86_64__) || defined(__i386__))
/* GCC on x86 forgets now and then that it was told to respect NaN again. */
#error "NaN and infinities would be lost: compile this file with -fno-finite-math-only behind -ffast-math or -Ofast"
#elif defined(RNNX_FAST_MATH) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__)
#pragma GCC optimize("no-fast-math")
#endif
