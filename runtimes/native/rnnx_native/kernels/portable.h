/* Plain C, for any processor. */
#include "names.h"
#include "unused.h"

#define ISA
#define TARGET RNNX_UNUSED
#if defined(__GNUC__)
#define INTO __inline__ __attribute__((always_inline))
#else
#define INTO
#endif
#define LOAD(p) (*(p))
#define HALVES(p) rnnx_from_half(*(p))
