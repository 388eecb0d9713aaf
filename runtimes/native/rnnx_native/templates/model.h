/* @title@: a network with memory, one time step at a time.
 *
 * Written by `rnnx compile` from the model
 * @id@.
 *
 * No heap, no globals written, no locks, no system calls, no unbounded loop: a step may run in an audio
 * callback. Weights are read only and may be shared; a state belongs to one thread at a time.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rows that one state steps side by side, and steps that model_run computes at once. */
#define MODEL_BATCH @batch@
#define MODEL_CHUNK @chunk@
/* Bytes that model_save needs at most. */
#define MODEL_SNAPSHOT_BYTES @snapshot_bytes@
/* Bytes of a model_state, the room for intermediate results among them, and of that room, the model_work alone;
 * at most: where a pointer has fewer than 64 bits, a state is a little smaller. */
#define MODEL_STATE_BYTES @state@
#define MODEL_WORK_BYTES @scratch@
/* The version of rnnx that wrote this. */
#define MODEL_RNNX_VERSION "@version@"

enum {
  MODEL_OK = 0,
  MODEL_TOO_SHORT,     /* fewer bytes than there must be */
  MODEL_WRONG_FORMAT,  /* not a file of this kind, or of a newer version */
  MODEL_WRONG_MODEL,   /* weights of another architecture, or a snapshot of another model */
  MODEL_DAMAGED,       /* the bytes are not those that were written */
  MODEL_NOT_ALIGNED    /* weights must begin at a multiple of 8 bytes; 64 is fastest */
};
/* Return what an error means. */
const char *model_error(int error);

/* The learned numbers: @parameter_count@ elements, each array at a multiple of 64 bytes (docs/native.md). */
typedef struct model_parameters {
@parameters@
} model_parameters;

typedef struct model_weights {
  const model_parameters *parameters;
  const char *id; /* of the model that they belong to */
} model_weights;

/* The weights in model_weights.c. */
extern const model_weights model_default_weights;

/* Use the content of a weights file. `bytes` must stay where it is as long as the weights are used. */
int model_weights_load(model_weights *weights, const void *bytes, size_t size);

/* What one step takes. */
typedef struct model_input {
@inputs@
} model_input;

/* What one step gives. */
typedef struct model_output {
@outputs@
} model_output;

/* Room for intermediate results. */
typedef struct model_work {
@work@
} model_work;

/* One stream, or MODEL_BATCH of them side by side: all that is carried from one step to the next. */
typedef struct model_state {
  const model_weights *weights;
@kernels_member@
  uint64_t position; /* number of steps done */
  int buffer_index;  /* which of the two buffers of each state below is the current one */
@states@
  model_work work;
} model_state;

/* Put a state to its start. `weights` must stay where it is as long as the state is used. */
void model_init(model_state *s, const model_weights *weights);
/* Put it to its start again, with the weights it has. */
void model_reset(model_state *s);
@defaults_declaration@
/* Run one time step. `input` and `output` are two places. */
void model_step(model_state *s, const model_input *input, model_output *output);

/* Run a chunk: inputs[n_steps], outputs[n_steps].@held@ */
void model_run(model_state *s, const model_input *inputs, model_output *outputs, size_t n_steps);
@many_declaration@
/* Write a snapshot, as docs/contract.md describes it: any rnnx runtime can continue from it. Return its size, or 0
 * if `size` is too small; MODEL_SNAPSHOT_BYTES is always enough. */
size_t model_save(const model_state *s, void *bytes, size_t size);
/* Continue from a snapshot. After an error the state is as it was. */
int model_load(model_state *s, const void *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
