/* rnnx: networks with memory, run one time step at a time from C.
 *
 * A model exported by rnnx says in its contract what it takes, gives and carries. A session is a loaded
 * model; a stream of it is one sequence (or a fixed batch of them) being run, and owns the states.
 *
 *     rnnx_error error;
 *     float frame[257] = {0};
 *     rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 257}, frame}; // [batch, 257]: a step has no time axis
 *     rnnx_session *session = rnnx_open("denoiser.onnx", NULL, &error);
 *     rnnx_stream *stream = session ? rnnx_stream_open(session, NULL, &error) : NULL;
 *     if (stream && rnnx_step(stream, &x, 1, &error)) {
 *         const float *y = rnnx_output(stream, "y")->data; // float32 [1, 257], until the next call
 *         printf("%g\n", (double)y[0]);
 *     } else {
 *         printf("error[%s]: %s\n", error.code, error.text);
 *     }
 *     rnnx_stream_free(stream);
 *     rnnx_close(session);
 *
 * Errors: a function that can fail takes an rnnx_error and returns NULL or false; it then holds a code, the
 * same in every language, and a line that says what was expected, what was found, and how to mend it. What
 * fails changes nothing.
 *
 * Threads: a session may be used by any number of threads at once. A stream is used by one at a time; a call
 * while another is running is refused with `stream-busy`.
 *
 * Ownership stands with each function. What is returned as const belongs to the session or stream.
 */
#ifndef RNNX_H
#define RNNX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RNNX_VERSION "0.1.0"
#define RNNX_MAX_RANK 8

typedef enum rnnx_dtype {
    RNNX_FLOAT16, /* IEEE binary16, as uint16_t */
    RNNX_FLOAT32,
    RNNX_FLOAT64,
    RNNX_INT8,
    RNNX_INT16,
    RNNX_INT32,
    RNNX_INT64,
    RNNX_UINT8,
    RNNX_UINT16,
    RNNX_UINT32,
    RNNX_UINT64,
    RNNX_BOOL /* one byte, 0 or 1 */
} rnnx_dtype;

typedef struct rnnx_error {
    char code[40];   /* stable, in kebab-case: "wrong-shape" */
    char text[1600]; /* "expected ...; found ...; fix: ..."; a longer one is cut short */
} rnnx_error;

/* A view of an array: the last axis runs fastest, without gaps. It owns nothing. */
typedef struct rnnx_tensor {
    const char *name;
    rnnx_dtype dtype;
    int rank;
    int64_t shape[RNNX_MAX_RANK];
    void *data; /* only read where a tensor is given to a function */
} rnnx_tensor;

/* -- The contract -- */

/* One dimension: factor times the size of dims[index], or factor alone where index is -1. */
typedef struct rnnx_dim {
    int64_t factor;
    int index;
    const char *text; /* as in the contract: "257", "batch", "160*time" */
} rnnx_dim;

struct json;

typedef struct rnnx_spec {
    const char *name;
    const char *takes; /* the graph input; NULL for an output */
    const char *gives; /* the graph output; NULL for an input */
    rnnx_dtype dtype;
    int rank;
    rnnx_dim shape[RNNX_MAX_RANK];
    const struct json *value; /* what a state starts as, the default of an input; NULL for none */
    bool is_length;           /* an input that counts the valid steps of each row */
    bool is_end;              /* a state: 1 in it says that the sequence is over */
    int64_t delay;            /* of an output: how many steps late it comes */
    bool has_range;           /* an input made for values from least to largest; other integers are refused */
    double least, largest;
} rnnx_spec;

/* What docs/contract.md describes. */
typedef struct rnnx_contract {
    const char *json; /* the whole contract as it stands in the file */
    const char *id;
    const char *name;
    const char *whole_only;  /* NULL, or why the model takes only whole sequences */
    double steps_per_second; /* 0 where the steps have no rate */
    size_t input_count, output_count, state_count;
    const rnnx_spec *inputs, *outputs, *states;
    const char **dims; /* "batch", "time", then free dimensions, then names that only outputs have */
    size_t dim_count, free_count;
    bool has_batch, has_time;
    const uint32_t *symbols; /* code points; NULL without a vocabulary */
    size_t symbol_count;
    size_t vocabulary_input, vocabulary_output; /* indices into inputs and outputs */
} rnnx_contract;

/* -- Sessions -- */

typedef struct rnnx_session rnnx_session;

/* Set all of it to zero for the defaults. */
typedef struct rnnx_options {
    const char *provider;    /* "cpu" (the default) or "cuda"; one that does not work is an error */
    const char *onnxruntime; /* path of ONNX Runtime's shared library, 1.29 or newer; the default is the
                                environment variable RNNX_ONNXRUNTIME, else the system's usual names */
    int threads;             /* inside one operator; 0 means 1, the fastest for a step of a small network */
    int device;              /* index of the GPU */
} rnnx_options;

/* Load a model from a file, or from its bytes, which are not needed any more when it returns. `options` may
 * be NULL. The session belongs to the caller, who lets it go with rnnx_close. Codes: file-missing,
 * cannot-read, not-onnx, external-data-missing, external-data-refused, no-contract, contract-invalid,
 * contract-newer, contract-requires, contract-graph, engine-refused, provider-unknown, provider-unavailable,
 * onnxruntime-missing, out-of-memory. Weights in other files are read from the model's own folder alone; a
 * model that is bytes has none. */
rnnx_session *rnnx_open(const char *path, const rnnx_options *options, rnnx_error *error);
rnnx_session *rnnx_open_bytes(const void *data, size_t size, const rnnx_options *options, rnnx_error *error);

/* Let go of a session, or NULL. It stays in memory until the last of its streams is freed too. */
void rnnx_close(rnnx_session *session);

/* What the model takes, gives and carries. Belongs to the session. */
const rnnx_contract *rnnx_session_contract(const rnnx_session *session);

/* -- Streams -- */

typedef struct rnnx_stream rnnx_stream;

typedef struct rnnx_size {
    const char *name;
    int64_t size;
} rnnx_size;

/* Set all of it to zero for the defaults. */
typedef struct rnnx_stream_options {
    int64_t batch;         /* sequences side by side; 0 means 1 */
    const rnnx_size *dims; /* free dimensions: needed for those that a state has */
    size_t dim_count;
    const rnnx_tensor *initial; /* other starts than the contract's, in full shape; reset goes back to them */
    size_t initial_count;
} rnnx_stream_options;

/* Open a stream with the states at their start. `options` may be NULL, and is not needed any more when it
 * returns. The stream belongs to the caller, who lets it go with rnnx_stream_free; it keeps the session
 * alive. Codes: empty-batch, no-batch, unknown-dimension, missing-dimension, wrong-dimension, unknown-state,
 * wrong-dtype, wrong-shape, non-finite, out-of-memory. */
rnnx_stream *rnnx_stream_open(rnnx_session *session, const rnnx_stream_options *options, rnnx_error *error);

/* Let go of the buffers. What is called afterwards answers `stream-closed`; closing twice is fine. It waits
 * for no call that is running: false and `stream-busy` if there is one. */
bool rnnx_stream_close(rnnx_stream *stream, rnnx_error *error);

/* Close the stream, or NULL, and let go of the handle too. No call of it may be running. */
void rnnx_stream_free(rnnx_stream *stream);

/* Run one time step. Inputs are named tensors in the shape of one step, without the time axis (an N*time axis
 * has N entries); those with a default, and lengths, may be left out. They are copied. Nothing is allocated
 * as long as the sizes are those of the step before. Codes: unknown-input, missing-input, wrong-dtype,
 * wrong-shape, empty-batch, empty-time, missing-dimension, non-finite, symbol-range, length-range,
 * value-range, whole-only, stream-busy, stream-closed, engine-failed, out-of-memory. */
bool rnnx_step(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error);

/* Run a chunk of steps: the same with the time axis. Any chunks give together what one long one gives. */
bool rnnx_run(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error);

/* Run the steps that are whole, and keep what is over for the next call. Inputs are in the shape of a chunk, with
 * any number of entries along time, none too; each has a queue of its own, and as many steps run as the shortest
 * has. Of an input that was given before and is left out no entries come; one without time stays as it was. If no
 * step ran, outputs with time have 0 entries along it, and none has data. Codes: as rnnx_run, and feed-length for
 * lengths; nothing is kept then. */
bool rnnx_feed(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error);

/* Run what waits as whole steps, the last one filled up with zeros (or what is nearest to 0 in the range of an
 * input); then it is as if never fed. rnnx_waiting says before how many entries of the last step are real. Where
 * outputs come late, those of the last steps follow, as the network ends a sequence; then the stream is over, until
 * it is reset. Codes: no-end where nobody can say what those are, engine-failed, out-of-memory. */
bool rnnx_flush(rnnx_stream *stream, rnnx_error *error);

/* How many entries of an input wait for a whole step. While there are any, rnnx_step, rnnx_run, rnnx_snapshot and
 * rnnx_reset of rows are refused: entries-waiting. rnnx_reset of all, and rnnx_restore, drop them. */
size_t rnnx_waiting(const rnnx_stream *stream, const char *name);

/* The outputs of the latest step, chunk, feed or flush, in the order of the contract; NULL if there was none. They
 * belong to the stream, and its next call writes over them. */
const rnnx_tensor *rnnx_outputs(const rnnx_stream *stream);

/* The output of that name, or NULL if there is none. As rnnx_outputs. */
const rnnx_tensor *rnnx_output(const rnnx_stream *stream, const char *name);

/* Put the states back to their start: of `count` rows of the batch, or of all with rows NULL, and then the
 * position too. Codes: row-range, shared-state, stream-busy, stream-closed. */
bool rnnx_reset(rnnx_stream *stream, const int64_t *rows, size_t count, rnnx_error *error);

/* Number of steps since the stream was opened or reset as a whole. */
uint64_t rnnx_position(const rnnx_stream *stream);

/* The states as they are, in the order of the contract; NULL once the stream is closed. They belong to the
 * stream, and its next call writes over them. */
const rnnx_tensor *rnnx_states(rnnx_stream *stream);

/* Overwrite states, named and in full shape: all of them or, if one is refused, none. They are copied.
 * Codes: unknown-state, wrong-dtype, wrong-shape, non-finite (for NaN), stream-busy, stream-closed. */
bool rnnx_states_set(rnnx_stream *stream, const rnnx_tensor *states, size_t count, rnnx_error *error);

/* -- Pools -- */

/* Steps many streams of a session as one batch. */
typedef struct rnnx_pool rnnx_pool;

/* Open a pool on a session, which it keeps alive. The pool belongs to the caller, who lets it go with rnnx_pool_free.
 * Codes: whole-only, no-batch, shared-state, shared-output, out-of-memory. */
rnnx_pool *rnnx_pool_open(rnnx_session *session, rnnx_error *error);

/* Let go of a pool, or NULL. No call of it may be running; the streams stay as they are. */
void rnnx_pool_free(rnnx_pool *pool);

/* Run one step of each of `count` streams of batch 1 as the rows of one batch. Which streams is free at each call:
 * those that are left out stay as they are. `inputs[i]` are the `counts[i]` inputs of streams[i], as rnnx_step takes
 * them, and rnnx_outputs(streams[i]) are its outputs then, to rounding what it gives alone. If anything is refused no
 * stream has moved; the message says whose input it was. Nothing is allocated as long as sizes are those of an earlier
 * step. Codes: as rnnx_step; entries-waiting; streams-disagree for another session, a batch, other free dimensions, or
 * another value of an input without a batch axis. */
bool rnnx_pool_step(rnnx_pool *pool, rnnx_stream *const *streams, const rnnx_tensor *const *inputs,
                    const size_t *counts, size_t count, rnnx_error *error);

/* -- Traces -- */

/* How the replay of a trace went. */
typedef struct rnnx_verdict {
    bool agrees;
    int64_t steps, calls;
    double max_error; /* the largest |got - expected| / (1 + |expected|) */
    /* Where it does not agree, the first value: */
    char tensor[256]; /* "output.y" or "state.h" */
    int64_t step;     /* -1 for the start of a state */
    int rank;
    int64_t index[RNNX_MAX_RANK]; /* in the shape of one step */
    char expected[32], got[32];   /* numbers, or nan, inf, -inf */
} rnnx_verdict;

/* Replay the trace that was exported beside a model, step by step, through a stream of its own. False only where
 * it cannot be replayed. Codes: file-missing, cannot-read, not-safetensors, not-a-trace, trace-newer,
 * trace-of-another-model, trace-invalid, and those of streams. */
bool rnnx_replay(rnnx_session *session, const char *path, rnnx_verdict *verdict, rnnx_error *error);

/* -- Sampling -- */

/* A generator (splitmix64) and a temperature. It may be copied, and kept, as it is. */
typedef struct rnnx_sampler {
    uint64_t state;     /* starts as the seed */
    double temperature; /* 0 always takes the best symbol, 1 the model's own probabilities */
} rnnx_sampler;

/* The next number of the generator, and the next u in [0, 1). */
uint64_t rnnx_next(rnnx_sampler *sampler);
double rnnx_uniform(rnnx_sampler *sampler);

/* Draw an index with a probability proportional to its weight. Code: weights-invalid. */
bool rnnx_sample_weights(rnnx_sampler *sampler, const double *weights, size_t count, size_t *drawn,
                         rnnx_error *error);

/* Draw a symbol from the last `symbols` entries of an output in floats: the scores of the last step of a
 * chunk. Codes: scores-invalid, temperature-invalid, out-of-memory. */
bool rnnx_sample(rnnx_sampler *sampler, const rnnx_tensor *scores, size_t symbols, size_t *drawn,
                 rnnx_error *error);

/* The ids of the characters of a text in UTF-8 of `size` bytes; there is room for `size` of them in `ids`.
 * Codes: not-symbols, character-outside-vocabulary. */
bool rnnx_encode(const rnnx_contract *contract, const char *text, size_t size, int64_t *ids, size_t *count,
                 rnnx_error *error);

/* Write the symbol of an id as UTF-8, up to 4 bytes and a zero. Codes: not-symbols, id-outside-vocabulary. */
bool rnnx_decode(const rnnx_contract *contract, int64_t id, char text[5], rnnx_error *error);

/* -- Snapshots -- */

/* Where sampling from a stream stopped, a row for each row of the batch. */
typedef struct rnnx_sampling {
    uint64_t *generator; /* [batch]; NULL for no sampling */
    double *temperature; /* [batch] */
    rnnx_tensor scores;  /* [batch, symbols]: nothing is drawn from them yet */
} rnnx_sampling;

/* All that is needed to continue elsewhere, in any language; `sampling` may be NULL. The bytes belong to the
 * caller, who frees them with rnnx_free. Codes: stream-busy, stream-closed, out-of-memory. */
void *rnnx_snapshot(rnnx_stream *stream, const rnnx_sampling *sampling, size_t *size, rnnx_error *error);
void rnnx_free(void *bytes);

/* Continue where a snapshot was made. What it says of sampling goes to *sampling, which may be NULL; its
 * arrays belong to the stream, until the next restore or the end of the stream. Codes: not-safetensors,
 * not-a-snapshot, snapshot-newer, snapshot-of-another-model, snapshot-invalid, stream-busy, stream-closed,
 * out-of-memory. */
bool rnnx_restore(rnnx_stream *stream, const void *data, size_t size, rnnx_sampling *sampling,
                  rnnx_error *error);

#ifdef __cplusplus
}
#endif

#endif
