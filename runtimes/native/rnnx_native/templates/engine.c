/* The engine's entry point: any number of rows and steps, tensors laid out as the graph has them.
 *
 * Large calls are cut into blocks that the programs were compiled for. A tensor of a call is
 * [before][batch or time][middle][time or batch][after]; a block takes some rows and some steps of it.
 */
#include "model.c"

#if defined(_WIN32)
#define RNNX_EXPORT __declspec(dllexport)
#else
#define RNNX_EXPORT __attribute__((visibility("default")))
#endif

typedef struct {
  int has_batch, has_time, batch_first, is_length;
  size_t before, middle, after, width; /* `after` in bytes; an N*time axis counts N elements to a step */
} engine_port;

enum { INPUTS = @n_inputs@, OUTPUTS = @n_outputs@, STATES = @n_states@, PROGRAMS = @n_programs@ };

static const engine_port engine_inputs[INPUTS + 1] = {
@input_ports@
    {0, 0, 0, 0, 0, 0, 0, 0}};
static const engine_port engine_outputs[OUTPUTS + 1] = {
@output_ports@
    {0, 0, 0, 0, 0, 0, 0, 0}};
static const engine_port engine_states[STATES + 1] = {
@state_ports@
    {0, 0, 0, 0, 0, 0, 0, 0}};

/* A call: what is bound, and room for blocks. */
typedef struct {
  model_weights weights;
@kernels_member@
  size_t rows, steps;
  int odd_step; /* 0 and 1 from program to program */
  void *inputs[INPUTS + 1], *outputs[OUTPUTS + 1], *states[2][STATES + 1];
@blocks@
@areas@
} engine_call;

typedef void (*engine_program)(engine_call *, void *const *in, void *const *state, void *const *out, void *const *next);

@wrappers@
/* Programs by rows and steps. */
static const struct {
  size_t rows, steps;
  engine_program run;
} engine_programs[PROGRAMS] = {
@program_table@
};

/* Copy one row, steps t0 to t0 + n, between a whole tensor and a block of `block_rows` rows and n steps. */
static void engine_copy(const engine_port *p, char *whole, size_t rows, size_t steps, size_t row, size_t t0, char *block,
                        size_t block_rows, size_t n, size_t block_row, int to_whole) {
  size_t i, m, t;
  if (!p->has_batch) rows = block_rows = 1, row = block_row = 0;
  if (!p->has_time) steps = n = 1, t0 = 0;
  for (i = 0; i < p->before; i++) {
    for (m = 0; m < p->middle; m++) {
      if (p->batch_first) {
        char *const there = whole + (((i * rows + row) * p->middle + m) * steps + t0) * p->after;
        char *const here = block + (((i * block_rows + block_row) * p->middle + m) * n) * p->after;
        memcpy(to_whole ? there : here, to_whole ? here : there, n * p->after);
        continue;
      }
      for (t = 0; t < n; t++) {
        char *const there = whole + (((i * steps + t0 + t) * p->middle + m) * rows + row) * p->after;
        char *const here = block + (((i * n + t) * p->middle + m) * block_rows + block_row) * p->after;
        memcpy(to_whole ? there : here, to_whole ? here : there, p->after);
      }
    }
  }
}

/* Return the input of a block: the whole tensor itself where the block is all of it. */
static void *engine_input(engine_call *c, int index, size_t r0, size_t real, size_t rows, size_t t0, size_t n) {
  const engine_port *const p = &engine_inputs[index];
  void *const blocks[INPUTS + 1] = {@input_blocks@NULL};
  size_t r;
  if (p->is_length) {
    const int64_t *const lengths = (const int64_t *)c->inputs[index];
    int64_t *const left = (int64_t *)blocks[index];
    for (r = 0; r < rows; r++) {
      const int64_t rest = lengths[p->has_batch ? r0 + (r < real ? r : 0) : 0] - (int64_t)t0;
      left[r] = rest < 0 ? 0 : rest > (int64_t)n ? (int64_t)n : rest;
      if (!p->has_batch) break;
    }
    return left;
  }
  if ((rows == c->rows || !p->has_batch) && (n == c->steps || !p->has_time)) return c->inputs[index];
  for (r = 0; r < (p->has_batch ? rows : 1); r++) {
    engine_copy(p, (char *)c->inputs[index], c->rows, c->steps, r0 + (r < real ? r : 0), t0, (char *)blocks[index], rows,
                n, r, 0);
  }
  return blocks[index];
}

/* Run one group of rows through all steps. `program` is for single steps; one behind it may be for more. */
static void engine_group(engine_call *c, int index, size_t r0, size_t real, int program) {
  void *const first[STATES + 1] = {@state_blocks_0@NULL}, *const second[STATES + 1] = {@state_blocks_1@NULL};
  void *const results[OUTPUTS + 1] = {@output_blocks@NULL};
  void *in[INPUTS + 1], *out[OUTPUTS + 1], *state[STATES + 1], *next[STATES + 1];
  const size_t rows = engine_programs[program].rows;
  const int direct = rows == c->rows, has_chunk = program + 1 < PROGRAMS && engine_programs[program + 1].rows == rows;
  size_t t, n, r;
  int k, current = 0; /* which of the two blocks holds the states */
  for (k = 0; k < STATES; k++) {
    state[k] = direct ? c->states[index][k] : first[k];
    for (r = 0; !direct && r < rows; r++) {
      engine_copy(&engine_states[k], (char *)c->states[index][k], c->rows, 1, r0 + (r < real ? r : 0), 0,
                  (char *)first[k], rows, 1, r, 0);
    }
  }
  for (t = 0; t < c->steps; t += n) {
    const int chunk = has_chunk && c->steps - t >= engine_programs[program + 1].steps;
    n = engine_programs[program + chunk].steps;
    for (k = 0; k < INPUTS; k++) in[k] = engine_input(c, k, r0, real, rows, t, n);
    for (k = 0; k < OUTPUTS; k++) {
      const int whole = direct && (n == c->steps || !engine_outputs[k].has_time);
      out[k] = whole ? c->outputs[k] : results[k];
    }
    for (k = 0; k < STATES; k++) {
      next[k] = direct && t + n == c->steps ? c->states[1 - index][k] : current ? first[k] : second[k];
    }
    engine_programs[program + chunk].run(c, in, state, out, next);
    c->odd_step = !c->odd_step;
    for (k = 0; k < OUTPUTS; k++) {
      for (r = 0; out[k] != c->outputs[k] && r < real; r++) {
        engine_copy(&engine_outputs[k], (char *)c->outputs[k], c->rows, c->steps, r0 + r, t, (char *)out[k], rows, n, r, 1);
      }
    }
    for (k = 0; k < STATES; k++) state[k] = next[k];
    current = !current;
  }
  for (k = 0; k < STATES; k++) {
    for (r = 0; !direct && r < real; r++) {
      engine_copy(&engine_states[k], (char *)c->states[1 - index][k], c->rows, 1, r0 + r, 0, (char *)state[k], rows, 1, r, 1);
    }
  }
}

RNNX_EXPORT size_t rnnx_call_bytes(void) { return sizeof(engine_call); }

/* Check the weights and bind a call: inputs, outputs, both buffers of the states. */
RNNX_EXPORT int rnnx_bind(void *call, const void *weights, size_t size, size_t rows, size_t steps, void *const *tensors,
                          int level) {
  engine_call *const c = (engine_call *)call;
  const int error = model_weights_load(&c->weights, weights, size);
  int k;
  if (error) return error;
  c->rows = rows;
  c->steps = steps;
  c->odd_step = 0;
  for (k = 0; k < INPUTS; k++) c->inputs[k] = *tensors++;
  for (k = 0; k < OUTPUTS; k++) c->outputs[k] = *tensors++;
  for (k = 0; k < STATES; k++) c->states[0][k] = *tensors++;
  for (k = 0; k < STATES; k++) c->states[1][k] = *tensors++;
  (void)level;
@kernels_choice@
  return MODEL_OK;
}

/* Compute from state buffer `index` into the other one. */
RNNX_EXPORT void rnnx_run(void *call, int index) {
  engine_call *const c = (engine_call *)call;
  size_t r = 0;
  while (r < c->rows) {
    const size_t rest = c->rows - r;
    /* The last programs are for many rows, if there are any: half full, they are still worth it. */
    const size_t many = engine_programs[PROGRAMS - 1].rows;
    const int program = many != engine_programs[0].rows && 2 * rest > many ? PROGRAMS - 1 : 0;
    const size_t rows = engine_programs[program].rows, real = rest < rows ? rest : rows;
    engine_group(c, index, r, real, program);
    r += real;
  }
}
