/* A trace replayed through a stream, and compared (docs/trace.md). */
#ifndef RUN_H
#define RUN_H

#include "trace.h"

typedef struct replay {
    const rnnx_contract *contract;
    rnnx_stream *stream;
    recording *trace;
    const rnnx_tensor *lengths; /* valid steps of each row; NULL for all */
    int64_t steps, calls;
    double max_error;
    bool failed;
    char tensor[256];
    int64_t step, index[RNNX_MAX_RANK];
    int rank;
    rnnx_dtype dtype;
    const void *expected, *got;
    size_t expected_at, got_at;
} replay;

/* Opens a stream with the sizes of the trace. The caller frees run->stream, also after a failure. */
bool replay_begin(replay *run, rnnx_session *session, recording *trace, rnnx_error *error);

/* Sets the states to the start that was recorded. */
bool replay_to_start(replay *run, rnnx_error *error);

/* Runs steps begin..end-1. */
bool replay_call(replay *run, int64_t begin, int64_t end, bool stepped, rnnx_error *error);

/* Replays all of it in chunks of these lengths, "3,1,0"; stops where something disagrees. */
bool replay_all(replay *run, const char *chunks, rnnx_error *error);

#endif
