/* Traces: recorded inputs, outputs and states, read and checked against a contract (docs/trace.md). */
#ifndef RNNX_TRACE_H
#define RNNX_TRACE_H

#include "internal.h"

typedef struct bound {
    double atol, rtol;
} bound;

typedef struct recording {
    tensor_file file;
    int64_t steps;
    int64_t *sizes;              /* by dimension of the contract; 0 where nothing in the trace has it */
    int64_t *before;             /* the same, before the tensor at hand */
    const rnnx_tensor **inputs;  /* by input: [step, ...], or once for those without time; NULL for none */
    const rnnx_tensor **outputs; /* by output: [step, ...] */
    const rnnx_tensor **states;  /* by state: [step+1, ...] */
    bound *output_bounds, *state_bounds;
} recording;

bool rx_trace_read(recording *made, const char *path, const rnnx_contract *contract, rnnx_error *error);
void rx_trace_free(recording *trace);

/* Whether each step of a chunk has its own value of an input or output; else one holds for all. */
bool rx_has_steps(const rnnx_contract *contract, const rnnx_spec *spec);

#endif
