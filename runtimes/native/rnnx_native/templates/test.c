/* Replays a trace (docs/trace.md) through @title@, step by step and in chunks, and compares every number.
 *
 *   cc -O3 model.c model_weights.c model_test.c -lm && ./a.out @trace_name@
 *
 * A second argument names a weights file to use instead of model_weights.c. Exit status: 0 all agrees, 1 it does
 * not, 2 the files cannot be used.
 */
@precise@
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/json.h"

/* A tensor of the trace and where its rows lie in this program. A step has the shape [outer][batch][inner]. */
typedef struct {
  const char *tensor;
  const char *tolerance; /* the tensor's name inside the JSON text `tolerances` */
  const char *dtype;
  char kind;        /* i, o or s: of input, output or state */
  int has_rows;     /* a row a step; else one value for the whole recording */
  int at_end;       /* in a chunk there is only the value of its last step */
  int is_length;
  int optional;
  int batch_axis;   /* place of the batch in the shape of one step, -1 without */
  size_t offset, width, outer, inner, size, rank;
  size_t shape[8];  /* of one step in this program */
  /* From the file: */
  const unsigned char *data;
  size_t rows, batch;
  double atol, rtol;
} port;

static port ports[] = {
@ports@
};
enum { PORTS = sizeof ports / sizeof ports[0], BATCH = MODEL_BATCH };

static void fail(const char *text, const char *more) {
  fprintf(stderr, "model_test: %s%s\n", text, more);
  exit(2);
}

static unsigned char *read_file(const char *path, size_t *size) {
  FILE *const file = fopen(path, "rb");
  unsigned char *bytes;
  long end = -1;
  if (!file || fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) < 0) fail("cannot read ", path);
  rewind(file);
  bytes = (unsigned char *)malloc((size_t)end + 1);
  if (!bytes || fread(bytes, 1, (size_t)end, file) != (size_t)end) fail("cannot read ", path);
  fclose(file);
  *size = (size_t)end;
  return bytes;
}

static double half_value(unsigned bits) {
  const int exponent = (int)(bits >> 10 & 31);
  const double size = exponent == 31 ? (bits & 1023 ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + (double)(bits & 1023), exponent - 25)
                                     : ldexp((double)(bits & 1023), -24);
  return bits & 0x8000 ? -size : size;
}

/* Return one number, given as its bytes. */
static double number(const port *p, const unsigned char *at) {
  uint64_t bits = 0;
  float single;
  double value;
  uint32_t low;
  size_t i;
  for (i = p->width; i-- > 0;) bits = bits << 8 | at[i];
  low = (uint32_t)bits;
  if (strcmp(p->dtype, "\"F16\"") == 0) return half_value((unsigned)bits);
  if (strcmp(p->dtype, "\"F32\"") == 0) return memcpy(&single, &low, 4), (double)single;
  if (strcmp(p->dtype, "\"F64\"") == 0) return memcpy(&value, &bits, 8), value;
  if (p->dtype[1] == 'I' && p->width < 8 && bits >> (8 * p->width - 1)) bits -= UINT64_C(1) << 8 * p->width;
  return p->dtype[1] == 'I' ? (double)(int64_t)bits : (double)bits;
}

/* Read `"atol": 1e-5` of a tensor out of the tolerances, JSON inside a JSON string whose quotes are escaped. */
static double tolerance(const char *text, const char *tensor, const char *key) {
  const char *at = strstr(text, tensor);
  if (at) at = strstr(at, key);
  if (!at) fail("no tolerance for ", tensor);
  return strtod(at + strlen(key), NULL);
}

/* Find a tensor in the trace and check its shape. Return 0 if it is not there. */
static int find(port *p, rnnx_slice header, const unsigned char *data, size_t size) {
  const rnnx_slice element = rnnx_member(header, p->tensor), shape = rnnx_member(element, "shape");
  char text[256];
  size_t at = 1, axis = 0, bytes = p->width;
  uint64_t extent;
  p->rows = p->batch = 1;
  if (element.size == 0 || shape.size >= sizeof text) return 0;
  memcpy(text, shape.text, shape.size);
  text[shape.size] = '\0';
  if (p->has_rows) {
    if (!rnnx_decimal(shape, &at, &extent)) fail("no rows in ", p->tensor);
    p->rows = (size_t)extent;
    bytes *= p->rows;
  }
  for (;; axis++) {
    at = rnnx_skip(shape, at, ", ");
    if (!rnnx_decimal(shape, &at, &extent)) break;
    if ((int)axis == p->batch_axis) p->batch = (size_t)extent;
    else if (axis >= p->rank || extent != p->shape[axis]) fail("another shape in the trace: ", p->tensor);
    bytes *= (size_t)extent;
  }
  if (axis != p->rank) fail("another number of axes in the trace: ", p->tensor);
  p->data = rnnx_tensor(header, data, size, p->tensor, p->dtype, text, bytes);
  if (!p->data) fail("another dtype in the trace, or its bytes are missing: ", p->tensor);
  return 1;
}

/* Return where an element of row `row` of step `step` lies in the trace; row r of this program is row
 * (first + r) modulo the trace's batch. */
static const unsigned char *element_at(const port *p, size_t step, size_t outer, size_t row, size_t inner) {
  const size_t index = ((p->has_rows ? step : 0) * p->outer + outer) * p->batch + row % p->batch;
  return p->data + (index * p->inner + inner) * p->width;
}

/* Copy one step of a tensor from the trace to its place. */
static void put(const port *p, void *base, size_t step, size_t first) {
  const size_t rows = p->batch_axis < 0 ? 1 : BATCH;
  unsigned char *const to = (unsigned char *)base + p->offset;
  size_t o, r, i;
  for (o = 0; o < p->outer; o++) {
    for (r = 0; r < rows; r++) {
      for (i = 0; i < p->inner; i++) {
        rnnx_copy(to + ((o * rows + r) * p->inner + i) * p->width, element_at(p, step, o, first + r, i), p->width,
                  p->width);
      }
    }
  }
}

static double worst = 0;
static int failed = 0;
static size_t compared = 0;

/* Compare one step of a tensor with the trace; rows that have ended by then are left out. */
static void compare(const port *p, const void *base, size_t step, size_t first, const int64_t *lengths) {
  const size_t rows = p->batch_axis < 0 ? 1 : BATCH;
  const unsigned char *const from = (const unsigned char *)base + p->offset;
  unsigned char bytes[8];
  size_t o, r, i;
  for (o = 0; o < p->outer; o++) {
    for (r = 0; r < rows; r++) {
      if (p->kind == 'o' && lengths && lengths[r] <= (int64_t)step) continue;
      for (i = 0; i < p->inner; i++) {
        const size_t place = (o * rows + r) * p->inner + i;
        const double expected = number(p, element_at(p, step, o, first + r, i));
        double got, error;
        rnnx_copy(bytes, from + place * p->width, p->width, p->width);
        got = number(p, bytes);
        compared++;
        if (got == expected || (isnan(got) && isnan(expected))) continue;
        error = fabs(got - expected) / (1 + fabs(expected));
        if (error > worst) worst = error;
        if (fabs(got - expected) <= p->atol + p->rtol * fabs(expected)) continue;
        if (!failed++) {
          printf("step %lu, %s[%lu] of row %lu: expected %.9g, got %.9g\n", (unsigned long)step, p->tensor,
                 (unsigned long)place, (unsigned long)(first + r), expected, got);
        }
      }
    }
  }
}

static void *state_base(model_state *s, const port *p) {
  return (unsigned char *)s + (s->buffer_index ? p->size * p->width : 0);
}

/* Replay rows first.. of the trace in chunks of the given lengths, in turn; 0 means all that is left. */
static void replay(model_state *s, size_t steps, size_t first, const size_t *chunks, size_t count) {
  model_input *const inputs = (model_input *)calloc(steps, sizeof *inputs);
  model_output *const outputs = (model_output *)calloc(steps, sizeof *outputs);
  int64_t lengths[BATCH];
  const port *counted = NULL;
  size_t t = 0, iteration = 0, k, j, r;
  if (!inputs || !outputs) fail("out of memory", "");
  model_reset(s);
  for (k = 0; k < PORTS; k++) {
    if (ports[k].kind == 's') put(&ports[k], state_base(s, &ports[k]), 0, first);
    if (ports[k].is_length && ports[k].data) counted = &ports[k];
  }
  for (r = 0; r < BATCH; r++) lengths[r] = counted ? (int64_t)number(counted, element_at(counted, 0, 0, first + r, 0)) : 0;
  while (t < steps) {
    size_t n = chunks[iteration++ % count];
    if (n == 0 || n > steps - t) n = steps - t;
    for (j = 0; j < n; j++) {
@fill_defaults@
      for (k = 0; k < PORTS; k++) {
        if (ports[k].kind == 'i' && ports[k].data && !ports[k].is_length) put(&ports[k], &inputs[j], t + j, first);
      }
@fill_lengths@
    }
    if (n == 1) model_step(s, inputs, outputs);
    else model_run(s, inputs, outputs, n);
    for (k = 0; k < PORTS; k++) {
      if (ports[k].kind == 's') compare(&ports[k], state_base(s, &ports[k]), t + n, first, NULL);
      for (j = 0; ports[k].kind == 'o' && j < n; j++) {
        if (!ports[k].at_end || j == n - 1) compare(&ports[k], &outputs[j], t + j, first, counted ? lengths : NULL);
      }
    }
    t += n;
  }
  free(inputs);
  free(outputs);
}

int main(int argc, char **argv) {
  static model_state s;
  static const size_t single[] = {1}, mixed[] = {3, 1, 18, 2}, whole[] = {0};
  model_weights weights = model_default_weights;
  rnnx_slice header, metadata, id, levels;
  size_t size, data, steps = 0, batch = 1, first, k, length;
  unsigned char *bytes;
  char *text;
  if (argc < 2) fail("name a trace: model_test @trace_name@", "");
  bytes = read_file(argv[1], &size);
  if (argc > 2) {
    unsigned char *const file = read_file(argv[2], &length);
    const int error = model_weights_load(&weights, file, length);
    if (error) fail("weights: ", model_error(error));
  }
  if (!rnnx_header(bytes, size, &header, &data)) fail("no safetensors file: ", argv[1]);
  metadata = rnnx_member(header, "__metadata__");
  if (!rnnx_is(rnnx_member(metadata, "format"), "\"rnnx-trace\"")) fail("no trace: ", argv[1]);
  if (!rnnx_is(rnnx_member(metadata, "version"), "\"1\"")) fail("a trace of a newer version: ", argv[1]);
  id = rnnx_member(metadata, "model");
  length = strlen(weights.id);
  if (id.size != length + 2 || memcmp(id.text + 1, weights.id, length) != 0) fail("a trace of another model: ", argv[1]);
  levels = rnnx_member(metadata, "tolerances");
  text = (char *)malloc(levels.size + 1);
  if (!text) fail("out of memory", "");
  memcpy(text, levels.text, levels.size);
  text[levels.size] = '\0';
  for (k = 0; k < PORTS; k++) {
    port *const p = &ports[k];
    if (!find(p, header, bytes + data, size - data)) {
      if (p->optional) continue;
      fail("not in the trace: ", p->tensor);
    }
    if (p->kind != 'i') {
      p->atol = tolerance(text, p->tolerance, "\\\"atol\\\":");
      p->rtol = tolerance(text, p->tolerance, "\\\"rtol\\\":");
    }
    if (p->kind == 'o') steps = p->rows;
    if (p->batch_axis >= 0 && p->batch > batch) batch = p->batch;
  }
  for (k = 0; k < PORTS; k++) {
    if (ports[k].data && ports[k].has_rows && ports[k].rows != steps + (ports[k].kind == 's')) fail("rows differ: ", ports[k].tensor);
    if (ports[k].kind == 's' && ports[k].batch_axis < 0 && batch != BATCH) {
      fail("rows share a state: compile with --batch as in the trace: ", ports[k].tensor);
    }
  }
  if (steps == 0) fail("nothing to compare", "");
  model_init(&s, &weights);
  for (first = 0; first < batch; first += BATCH) {
    replay(&s, steps, first, single, 1);
    replay(&s, steps, first, mixed, 4);
    replay(&s, steps, first, whole, 1);
  }
  printf("%lu steps of %lu rows, stepped and in chunks: %lu numbers, max error %.3g: %s\n", (unsigned long)steps,
         (unsigned long)batch, (unsigned long)compared, worst, failed ? "DIFFERS" : "agrees");
  free(text);
  free(bytes);
  return failed || !compared ? 1 : 0;
}
