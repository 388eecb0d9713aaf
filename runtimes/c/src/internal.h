/* What the files of the library share, and no one else: functions of it begin with rx_. */
#ifndef RNNX_INTERNAL_H
#define RNNX_INTERNAL_H

#ifdef _WIN32
#define __USE_MINGW_ANSI_STDIO 1 /* %zu and %lld are C's */
#define RX_PRINTF(format_at, first) __attribute__((format(gnu_printf, format_at, first)))
#else
#define RX_PRINTF(format_at, first) __attribute__((format(printf, format_at, first)))
#endif

#include "json.h"
#include "rnnx.h"

#include <onnxruntime_c_api.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) ||                     \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "NaN would go unseen, sums be reordered: give -fno-fast-math behind -ffast-math or -Ofast"
#endif

enum { BATCH, TIME }; /* indices into the dims of every contract */

/* -- values.c: numbers of all dtypes, and messages about tensors */

size_t rx_dtype_size(rnnx_dtype dtype);
const char *rx_dtype_name(rnnx_dtype dtype);
bool rx_dtype_named(const char *name, rnnx_dtype *dtype);
bool rx_dtype_is_float(rnnx_dtype dtype);
bool rx_dtype_holds(rnnx_dtype dtype, double number); /* integers once it is rounded, bool 0 and 1 */
double rx_value_at(rnnx_dtype dtype, const void *data, size_t index); /* of floats and integers, as float64 */
int64_t rx_integer_at(rnnx_dtype dtype, const void *data, size_t index); /* of integers; uint64 wraps */
bool rx_values_are_finite(rnnx_dtype dtype, const void *data, size_t count);
/* Fills an array with a number or nested lists that broadcast to it; they fit, contract.c has checked. */
void rx_fill_values(const json *value, rnnx_dtype dtype, int rank, const int64_t *shape, void *data);
void rx_fill_number(double number, rnnx_dtype dtype, void *data, size_t count);
size_t rx_count_of(int rank, const int64_t *shape);

/* A line of text being put together; what does not fit is cut off. */
typedef struct line {
    char text[1024];
    size_t used;
} line;
RX_PRINTF(2, 3) void rx_add(line *to, const char *format, ...);
void rx_add_shape(line *to, int rank, const int64_t *shape); /* [1, 4] */
void rx_add_dims(line *to, const rnnx_spec *spec, int rank, const rnnx_dim *shape, const int64_t *sizes);
void rx_add_name(line *to, const char *name); /* the next of names set apart by ", " */

/* Fills in an error and returns false. */
RX_PRINTF(3, 4) bool rx_fail(rnnx_error *error, const char *code, const char *format, ...);
bool rx_fail_memory(rnnx_error *error);

/* -- model_file.c: the bytes of a model, before ONNX Runtime sees them */

typedef struct rx_model {
    const char *contract; /* JSON, a zero put behind it */
    size_t size;          /* of it, in bytes */
    bool is_external;     /* values of tensors lie in other files, all of which are as they should be */
} rx_model;

/* Reads a model; `path` is NULL for one that is bytes alone. Codes: not-onnx, external-data-missing,
 * external-data-refused, no-contract, out-of-memory. */
bool rx_model_read(rx_model *made, arena *memory, const char *path, const void *data, size_t size,
                   rnnx_error *error);

/* -- external.c */

struct span;
typedef enum rx_external { RX_MALFORMED, RX_REFUSED, RX_INSIDE, RX_EXTERNAL } rx_external;

/* Holds the tensors of a model whose values lie in other files against those. RX_INSIDE: there are none.
 * Codes: external-data-missing, external-data-refused, out-of-memory. */
rx_external rx_external_check(arena *memory, struct span model, const char *path, rnnx_error *error);

/* -- contract.c */

bool rx_contract_read(rnnx_contract *contract, arena *memory, const char *text, size_t size,
                      rnnx_error *error);
int rx_axis_of(int rank, const rnnx_dim *shape,
               int index); /* where the dimension dims[index] stands, or -1 */
/* The shape that the caller of step, or of run if `whole`, sees; returns its rank. */
int rx_caller_shape(const rnnx_contract *contract, const rnnx_spec *spec, bool whole, rnnx_dim *shape);
void rx_resolve(int rank, const rnnx_dim *shape, const int64_t *sizes, int64_t *numbers);
/* Adds to sizes (0 is unknown) what `numbers` settle; false where they contradict the shape or what is known.
 */
bool rx_fit(int rank, const rnnx_dim *shape, const rnnx_tensor *tensor, int64_t *sizes);
const rnnx_spec *rx_spec_named(const rnnx_spec *specs, size_t count, const char *name);
bool rx_unknown_name(const char *kind, const char *name, const rnnx_spec *known, size_t count,
                     rnnx_error *error);

/* -- engine.c: ONNX Runtime, loaded when it is needed */

typedef struct ort_engine {
    const OrtApi *api;
    OrtEnv *env;
    OrtSession *session;
    OrtMemoryInfo *memory; /* where buffers are: the host */
} ort_engine;

/* Loads a model from a path, or from bytes where `data` is not NULL; messages name the path. */
bool rx_engine_open(ort_engine *made, const char *path, const void *data, size_t size,
                    const rnnx_options *options, rnnx_error *error);
void rx_engine_close(ort_engine *engine);
bool rx_engine_agrees(ort_engine *engine, const rnnx_contract *contract, const char *label, arena *memory,
                      rnnx_error *error);

const char *rx_type_name(ONNXTensorElementDataType type);

/* An array bound to a name of the graph. */
typedef struct ort_buffer {
    void *data;
    size_t bytes;
    int rank;
    int64_t shape[RNNX_MAX_RANK]; /* in the graph */
    OrtValue *value;              /* over `data`; NULL for an output whose shape is known only after a run */
} ort_buffer;

bool rx_buffer_make(ort_engine *engine, rnnx_dtype dtype, int rank, const int64_t *shape, ort_buffer *made,
                    rnnx_error *error);
void rx_buffer_free(ort_engine *engine, ort_buffer *buffer);
bool rx_engine_ok(ort_engine *engine, OrtStatus *status,
                  rnnx_error *error); /* `engine-failed` unless status is NULL */

/* -- tensor_file.c: safetensors */

typedef struct tensor_file {
    arena memory;
    const json *metadata; /* of strings; NULL if there is none */
    rnnx_tensor *tensors; /* views of `data`, aligned, in the order of the header */
    size_t count;
    void *data;
} tensor_file;

bool rx_tensor_file_read(tensor_file *file, const void *data, size_t size, const char *what,
                         rnnx_error *error);
const rnnx_tensor *rx_tensor_file_get(const tensor_file *file, const char *prefix, const char *name);
const char *rx_tensor_file_text(const tensor_file *file,
                                const char *key); /* an entry of the metadata, or NULL */
bool rx_tensor_file_is(const tensor_file *file, const char *kind, const char *model, rnnx_error *error);
void rx_tensor_file_free(tensor_file *file);
/* Returns new bytes. `keys` are metadata, key and value in turn, up to NULL; each tensor is named
 * prefix.name. */
void *rx_tensor_file_write(const rnnx_tensor *tensors, const char *const *prefixes, size_t count,
                           const char *const *keys, size_t *size);

/* Reads a file whole; the bytes are the caller's, who frees them. Codes: file-missing, cannot-read. */
void *rx_read_file(const char *path, const char *what, size_t *size, rnnx_error *error);

#endif
