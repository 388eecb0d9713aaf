#ifndef RNNX_ROW_H
#define RNNX_ROW_H
#include "unused.h"

/* The row of a table that a token stands for; the row behind the last for one that there is not. */
static RNNX_UNUSED size_t rnnx_row(int64_t token, int64_t count) {
  return (size_t)(token < 0 || token > count ? count : token);
}

#endif
