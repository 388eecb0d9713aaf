/* ONNX Runtime's C API as one would call it by hand, to see what a step of rnnx costs beside it: everything
 * bound once, two bindings that take turns. */
#ifndef BY_HAND_H
#define BY_HAND_H

#include "../src/internal.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct by_hand by_hand;

/* Opens a model with one float32 input, for steps of batch 1; ends the program where it cannot. */
by_hand *by_hand_open(const char *path, const rnnx_contract *contract);
void by_hand_step(by_hand *own, const float *frame);
void by_hand_close(by_hand *own);

/* Entries of one step. */
size_t by_hand_entries(const by_hand *own);

/* Microseconds since some moment. */
double by_hand_clock(void);

#ifdef __cplusplus
}
#endif

#endif
