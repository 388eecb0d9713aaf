/* What a caller gives, held against the contract. An engine may read out of bounds, or abort the process, on
 * input that does not fit; so every mistake is found here, and named with tensor, shape and index. */
#include "stream.h"

#include <math.h>
#include <string.h>

static bool wrong_shape(const rnnx_spec *spec, int rank, const rnnx_dim *shape, const int64_t *sizes,
                        const char *found, const char *fix, rnnx_error *error)
{
    line wanted = {.used = 0};
    rx_add_dims(&wanted, spec, rank, shape, sizes);
    return rx_fail(error, "wrong-shape", "expected '%s' as %s; found %s; fix: %s", spec->name, wanted.text,
                   found, fix ? fix : "reshape it, or open the stream with the batch and dims that you mean");
}

bool rx_wrong_dtype(const rnnx_spec *spec, const rnnx_tensor *given, rnnx_error *error)
{
    line found = {.used = 0};
    rx_add(&found, "%s", rx_dtype_name(given->dtype));
    rx_add_shape(&found, given->rank, given->shape);
    return rx_fail(error, "wrong-dtype", "expected '%s' as %s; found %s; fix: convert it to %s", spec->name,
                   rx_dtype_name(spec->dtype), found.text, rx_dtype_name(spec->dtype));
}

/* Whether an input fits `shape` with a 1 for the axis of the dimension `index`; it is in `more` then. */
static bool with_axis(const rnnx_stream *stream, int index, int rank, const rnnx_dim *shape,
                      const rnnx_tensor *given, rnnx_tensor *more)
{
    int axis = rx_axis_of(rank, shape, index);
    if (axis < 0 || given->rank != rank - 1)
        return false;
    *more = *given;
    more->rank = rank;
    memmove(&more->shape[axis + 1], &given->shape[axis], (size_t)(rank - 1 - axis) * sizeof *more->shape);
    more->shape[axis] = 1;
    memcpy(stream->wanted, stream->before, stream->session->contract.dim_count * sizeof *stream->wanted);
    return rx_fit(rank, shape, more, stream->wanted);
}

/* The entries that a chunk has along time once its last step is filled up, if that is all that it lacks; else 0. */
static int64_t part_of(const rnnx_stream *stream, int rank, const rnnx_dim *shape, const rnnx_tensor *given,
                       bool whole, int64_t *factor)
{
    int axis = rx_axis_of(rank, shape, TIME);
    if (!whole || axis < 0 || given->rank != rank)
        return 0;
    rnnx_tensor filled = *given;
    *factor = shape[axis].factor;
    filled.shape[axis] = (given->shape[axis] + *factor - 1) / *factor * *factor;
    memcpy(stream->wanted, stream->before, stream->session->contract.dim_count * sizeof *stream->wanted);
    bool lacks = filled.shape[axis] != given->shape[axis] && rx_fit(rank, shape, &filled, stream->wanted);
    return lacks ? filled.shape[axis] : 0;
}

/* Says how an input does not fit `shape`, where `sizes` are known. */
bool rx_misfit(const rnnx_stream *stream, const rnnx_spec *spec, int rank, const rnnx_dim *shape,
               const rnnx_tensor *given, bool whole, rnnx_error *error)
{
    const char *const *dims = stream->session->contract.dims;
    line wanted = {.used = 0}, found = {.used = 0};
    rx_add_shape(&found, given->rank, given->shape);
    rx_add_dims(&wanted, spec, rank, shape, stream->before);
    for (int index = BATCH; index <= TIME; index++) {
        int axis = rx_axis_of(rank, shape, index);
        char code[16] = "empty-";
        if (axis >= 0 && given->rank == rank && !given->shape[axis])
            return rx_fail(error, strcat(code, dims[index]),
                           "expected '%s' as %s with at least one entry; found %s: a %s of 0; fix: leave the "
                           "call out when there is nothing to run",
                           spec->name, wanted.text, found.text, dims[index]);
    }
    rnnx_tensor more;
    line batched = {.used = 0};
    const char *fix = NULL;
    int64_t factor, full = part_of(stream, rank, shape, given, whole, &factor);
    if (full) {
        rx_add(&found, ", where %lld is no multiple of %lld",
               (long long)given->shape[rx_axis_of(rank, shape, TIME)], (long long)factor);
        rx_add(&batched, "fill it up to %lld, or give it to feed, which keeps what is over", (long long)full);
        fix = batched.text;
    } else if (given->rank == rank + 1 && !whole) {
        rx_add(&found, ", which has one axis more than a step");
        fix = "use run for chunks";
    } else if (whole && with_axis(stream, TIME, rank, shape, given, &more)) {
        rx_add(&found, ", which has one axis less than a chunk");
        fix = "use step for one step";
    } else if (with_axis(stream, BATCH, rank, shape, given, &more)) {
        rx_add(&found, ", which has no batch axis");
        rx_add(&batched, "reshape it to ");
        rx_add_shape(&batched, rank, more.shape);
        rx_add(&batched, ", a batch of one row");
        fix = batched.text;
    }
    return wrong_shape(spec, rank, shape, stream->before, found.text, fix, error);
}

/* Finds the spec of each input; whatever a model needs must be there. */
bool rx_name_inputs(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    line known = {.used = 0}, needed = {.used = 0};
    memset(stream->given, 0, contract->input_count * sizeof *stream->given);
    for (size_t i = 0; i < count; i++) {
        const rnnx_spec *spec = rx_spec_named(contract->inputs, contract->input_count, inputs[i].name);
        if (spec) {
            stream->given[spec - contract->inputs] = inputs[i].data ? &inputs[i] : NULL;
            continue;
        }
        for (size_t other = 0; other < contract->input_count; other++)
            rx_add_name(&known, contract->inputs[other].name);
        return rx_fail(
            error, "unknown-input",
            "expected inputs %s; found '%s'; fix: correct or remove it; 'rnnx inspect' lists the inputs",
            known.text, inputs[i].name);
    }
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        if (stream->given[i] || spec->value || spec->is_length)
            continue;
        for (size_t other = 0; other < contract->input_count; other++)
            if (!contract->inputs[other].value && !contract->inputs[other].is_length)
                rx_add_name(&needed, contract->inputs[other].name);
        return rx_fail(error, "missing-input",
                       "expected a value for each of the inputs %s; found none for '%s'; fix: add '%s'",
                       needed.text, spec->name, spec->name);
    }
    return true;
}

bool rx_match_inputs(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, bool whole,
                     rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    size_t bytes = contract->dim_count * sizeof *stream->sizes;
    memcpy(stream->wanted, stream->sizes, bytes);
    stream->wanted[TIME] = whole ? 0 : 1;
    if (!rx_name_inputs(stream, inputs, count, error))
        return false;
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        const rnnx_tensor *given = stream->given[i];
        rnnx_dim shape[RNNX_MAX_RANK];
        if (!given)
            continue;
        if (given->dtype != spec->dtype)
            return rx_wrong_dtype(spec, given, error);
        int rank = rx_caller_shape(contract, spec, whole, shape);
        memcpy(stream->before, stream->wanted, bytes);
        if (!rx_fit(rank, shape, given, stream->wanted))
            return rx_misfit(stream, spec, rank, shape, given, whole, error);
    }
    for (size_t i = TIME; i < 2 + contract->free_count; i++)
        if (!stream->wanted[i])
            return rx_fail(error, "missing-dimension",
                           "expected an input that tells the size of '%s'; found none given that has such an "
                           "axis; fix: %s",
                           contract->dims[i],
                           i == TIME ? "give one of the optional inputs" : "bind it when opening the stream");
    return true;
}

static void index_of(const rnnx_tensor *tensor, size_t flat, int64_t *index)
{
    for (int axis = tensor->rank - 1; axis >= 0; axis--) {
        index[axis] = (int64_t)(flat % (size_t)tensor->shape[axis]);
        flat /= (size_t)tensor->shape[axis];
    }
}

/* Puts the place of a flat index into words. */
static void add_place(line *to, const rnnx_tensor *given, size_t flat)
{
    int64_t index[RNNX_MAX_RANK];
    if (!given->rank) {
        rx_add(to, " as its value");
        return;
    }
    index_of(given, flat, index);
    rx_add(to, " at index ");
    rx_add_shape(to, given->rank, index);
}

static const char *odd_number(double number)
{
    return isnan(number) ? "nan" : number > 0 ? "inf" : "-inf";
}

static bool check_finite(const rnnx_spec *spec, const rnnx_tensor *given, size_t count, rnnx_error *error)
{
    size_t at = 0;
    line place = {.used = 0};
    if (rx_values_are_finite(spec->dtype, given->data, count))
        return true;
    while (rx_values_are_finite(spec->dtype, (const char *)given->data + at * rx_dtype_size(spec->dtype), 1))
        at++;
    add_place(&place, given, at);
    return rx_fail(error, "non-finite",
                   "expected finite values in '%s'; found %s%s; fix: mend the source of the NaN or infinity; "
                   "one of them would spoil every later step",
                   spec->name, odd_number(rx_value_at(spec->dtype, given->data, at)), place.text);
}

/* The integers of an input that may reach the engine. */
typedef struct bounds {
    const char *code, *name, *fix;
    int64_t least, largest;
} bounds;

/* Returns the bounds of an input of the call being matched; their code is NULL where it has none. */
static bounds bounds_of(const rnnx_stream *stream, size_t index)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_spec *spec = &contract->inputs[index];
    if (contract->symbols && contract->vocabulary_input == index)
        return (bounds){"symbol-range", "ids", "encode the text with the model's own vocabulary", 0,
                        (int64_t)contract->symbol_count - 1};
    if (spec->is_length)
        return (bounds){"length-range", "lengths", "give the number of valid steps of each row in this call",
                        0, stream->wanted[TIME]};
    if (spec->has_range && !rx_dtype_is_float(spec->dtype))
        return (bounds){"value-range", "values", "give values in the range that the model was exported for",
                        (int64_t)spec->least, (int64_t)spec->largest};
    return (bounds){.code = NULL};
}

static bool check_bounds(const rnnx_spec *spec, const rnnx_tensor *given, size_t count, const bounds *within,
                         rnnx_error *error)
{
    line found = {.used = 0};
    for (size_t at = 0; at < count; at++) {
        int64_t number = rx_integer_at(spec->dtype, given->data, at);
        if (number >= within->least && number <= within->largest)
            continue;
        if (spec->dtype == RNNX_UINT64)
            rx_add(&found, "%llu", (unsigned long long)number);
        else
            rx_add(&found, "%lld", (long long)number);
        add_place(&found, given, at);
        return rx_fail(error, within->code, "expected %s in %lld..%lld in '%s'; found %s; fix: %s",
                       within->name, (long long)within->least, (long long)within->largest, spec->name,
                       found.text, within->fix);
    }
    return true;
}

bool rx_check_values(const rnnx_stream *stream, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        const rnnx_tensor *given = stream->given[i];
        if (!given)
            continue;
        size_t count = rx_count_of(given->rank, given->shape);
        bounds within = bounds_of(stream, i);
        if (within.code && !check_bounds(spec, given, count, &within, error))
            return false;
        if (!within.code && rx_dtype_is_float(spec->dtype) && !check_finite(spec, given, count, error))
            return false;
    }
    return true;
}

bool rx_match_state(const rnnx_stream *stream, const rnnx_tensor *given, size_t *index, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_spec *spec = rx_spec_named(contract->states, contract->state_count, given->name);
    line found = {.used = 0};
    if (!spec)
        return rx_unknown_name("state", given->name, contract->states, contract->state_count, error);
    if (given->dtype != spec->dtype)
        return rx_wrong_dtype(spec, given, error);
    *index = (size_t)(spec - contract->states);
    memcpy(stream->before, stream->sizes, contract->dim_count * sizeof *stream->sizes);
    if (!rx_fit(spec->rank, spec->shape, given, stream->before)) {
        rx_add(&found, "%s", rx_dtype_name(given->dtype));
        rx_add_shape(&found, given->rank, given->shape);
        return wrong_shape(spec, spec->rank, spec->shape, stream->sizes, found.text, NULL, error);
    }
    size_t count = rx_count_of(given->rank, given->shape);
    if (!rx_dtype_is_float(spec->dtype) || rx_values_are_finite(spec->dtype, given->data, count))
        return true;
    return !rx_find_nan(given, &found) ||
           rx_fail(error, "non-finite",
                   "expected state '%s' without NaN (infinities are allowed); found %s; fix: mend where it "
                   "comes from; a NaN stays in a state for ever",
                   spec->name, found.text);
}

bool rx_find_nan(const rnnx_tensor *tensor, line *place)
{
    int64_t index[RNNX_MAX_RANK];
    size_t at = 0, count = rx_count_of(tensor->rank, tensor->shape);
    while (rx_dtype_is_float(tensor->dtype) && at < count &&
           !isnan(rx_value_at(tensor->dtype, tensor->data, at)))
        at++;
    if (!rx_dtype_is_float(tensor->dtype) || at == count)
        return false;
    index_of(tensor, at, index);
    rx_add(place, "nan at index ");
    rx_add_shape(place, tensor->rank, index);
    return true;
}
