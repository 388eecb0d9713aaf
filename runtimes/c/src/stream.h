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
    rnnx_tensor
        *waiting;       /* by input: entries that no step has taken, in the shape of a chunk; no data: none */
    rnnx_tensor *empty; /* by output: the outputs of no steps */
    rnnx_tensor *ended; /* by output: those of the latest flush of a model whose outputs come late */
    int now;            /* the side that is current */
    uint64_t position;
    atomic_flag busy;
    bool closed;
};

/* matching.c: what a caller gives, held against the contract before the engine sees it. */
bool rx_match_inputs(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, bool whole,
                     rnnx_error *error);
bool rx_check_values(const rnnx_stream *stream, rnnx_error *error);
/* Puts each input into stream->given; whatever a model needs must be there. */
bool rx_name_inputs(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error);
bool rx_wrong_dtype(const rnnx_spec *spec, const rnnx_tensor *given, rnnx_error *error);
/* Says how an input does not fit `shape`, where the sizes in stream->before are known. */
bool rx_misfit(const rnnx_stream *stream, const rnnx_spec *spec, int rank, const rnnx_dim *shape,
               const rnnx_tensor *given, bool whole, rnnx_error *error);
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
bool rx_run_chunk(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error);
bool rx_whole_only(const rnnx_stream *stream, const char *found, rnnx_error *error);

/* feed.c */
bool rx_none_waits(const rnnx_stream *stream, rnnx_error *error); /* or entries-waiting */
void rx_drop_waiting(rnnx_stream *stream);
void rx_drop_ended(rnnx_stream *stream);
/* Where time stands in a chunk of an input or output, or -1, and how many entries a step has there. */
int rx_time_of(const rnnx_contract *contract, const rnnx_spec *spec, int64_t *factor);
/* Copies entries begin..end-1 along an axis; where there are fewer, `filling` stands for them. The caller frees
 * the data. */
bool rx_entries(const rnnx_tensor *from, int axis, int64_t begin, int64_t end, double filling,
                rnnx_tensor *made, rnnx_error *error);

#endif
