/* A trace replayed through a stream, and compared (docs/trace.md). */
#ifndef RNNX_REPLAY_H
#define RNNX_REPLAY_H

#include "trace.h"

typedef struct replay {
    const rnnx_contract *contract;
    rnnx_stream *stream;
    recording *trace;
    const rnnx_tensor *lengths; /* valid steps of each row; NULL for all */
    rnnx_verdict verdict;
} replay;

/* Opens a stream with the sizes of the trace. The caller frees run->stream, also after a failure. */
bool rx_replay_begin(replay *run, rnnx_session *session, recording *trace, rnnx_error *error);

/* Sets the states to the start that was recorded. */
bool rx_replay_to_start(replay *run, rnnx_error *error);

/* Runs steps begin..end-1. */
bool rx_replay_call(replay *run, int64_t begin, int64_t end, bool stepped, rnnx_error *error);

/* Replays all of it in chunks of these lengths, "3,1,0"; stops where something disagrees. */
bool rx_replay_all(replay *run, const char *chunks, rnnx_error *error);

/* Replays all of it through rnnx_feed, in blocks of so many entries, and then rnnx_flush, which has to fill up
 * the last entries of each input that are left out. */
bool rx_replay_blocks(replay *run, const char *blocks, int64_t omitted, rnnx_error *error);

#endif
