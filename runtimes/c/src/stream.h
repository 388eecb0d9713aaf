/* What the files about streams share: sessions, streams, and one shape of call, prepared. */
#ifndef RNNX_STREAM_H
#define RNNX_STREAM_H

#include "internal.h"

#include <stdatomic.h>

struct rnnx_session {
    atomic_int owners; /* the caller, and each stream */
    ort_engine engine;
    arena memory;
    rnnx_contract contract;
};

/* A step, or a chunk of one length, with everything allocated and bound that it needs. */
typedef struct call_plan {
    bool made, whole;
    int64_t *sizes;     /* of every dimension; a call of other sizes needs another plan */
    ort_buffer *inputs; /* in the graph's shape, which is the caller's up to axes of one */
    ort_buffer *outputs;
    rnnx_tensor *results;     /* the outputs as the caller sees them */
    OrtIoBinding *binding[2]; /* from the states of one side into those of the other, and back */
    OrtValue **loose;         /* all outputs of the latest run, where the shape of one is known only then */
    size_t loose_count;
} call_plan;

struct rnnx_stream {
    rnnx_session *session;
    arena memory;
    int64_t *sizes;            /* of the dimensions that were settled when it was opened; 0 for others */
    int64_t *wanted, *before;  /* sizes of the call being made; the same before the input at hand */
    const rnnx_tensor **given; /* by input: what the caller gives for it, NULL for nothing */
    ort_buffer *sides[2];      /* by state: two sets of buffers, which swap roles at each step */
    void **starts;             /* by state: what reset goes back to */
    rnnx_tensor *states;
    call_plan step, chunk;
    ort_buffer *rows; /* by output: a chunk of a step model, put together from its steps */
    rnnx_tensor *joined;
    void **kept;               /* by state: before a chunk of a step model */
    const rnnx_tensor *latest; /* results of the latest call */
    tensor_file restored;      /* what its latest snapshot says of sampling lies in here */
    int now;                   /* the side that is current */
    uint64_t position;
    atomic_flag busy;
    bool closed;
};

/* matching.c: what a caller gives, held against the contract before the engine sees it. */
bool rx_match_inputs(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, bool whole,
                     rnnx_error *error);
bool rx_check_values(const rnnx_stream *stream, rnnx_error *error);
bool rx_match_state(const rnnx_stream *stream, const rnnx_tensor *given, size_t *index, rnnx_error *error);
bool rx_find_nan(const rnnx_tensor *tensor, line *place); /* the first, in words */

/* plan.c */
bool rx_plan_make(rnnx_stream *stream, call_plan *made, bool whole, rnnx_error *error);
void rx_plan_free(ort_engine *engine, const rnnx_contract *contract, call_plan *plan);
void rx_plan_defaults(rnnx_stream *stream, call_plan *plan); /* fills in the inputs that are not given */
void rx_plan_fill(rnnx_stream *stream, call_plan *plan);     /* fills in all of them */
bool rx_plan_run(rnnx_stream *stream, call_plan *plan, rnnx_error *error);

/* stream.c */
bool rx_enter(rnnx_stream *stream, rnnx_error *error);
void rx_to_start(rnnx_stream *stream);
bool rx_leave(rnnx_stream *stream, bool good);

#endif
