/* RNNX_UNUSED stands before functions that a model need not call. */
#ifndef RNNX_UNUSED
#if defined(__GNUC__)
#define RNNX_UNUSED __attribute__((unused))
#else
#define RNNX_UNUSED
#endif
#endif
