/* 0 without vector instructions, 1 with AVX2 and FMA, 2 with AVX-512, 3 with its VNNI too; from what processor and system say. */
static int rnnx_x86_level(void) {
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
