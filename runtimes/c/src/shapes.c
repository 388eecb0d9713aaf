/* Shapes as a caller sees them: a step has no time axis, a chunk has one. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

int rx_axis_of(int rank, const rnnx_dim *shape, int index)
{
    for (int axis = 0; axis < rank; axis++)
        if (shape[axis].index == index)
            return axis;
    return -1;
}

int rx_caller_shape(const rnnx_contract *contract, const rnnx_spec *spec, bool whole, rnnx_dim *shape)
{
    static const rnnx_dim time = {1, TIME, "time"};
    int rank = 0;
    /* A chunk of a step model has time right after the batch; but a length counts the steps of the whole
     * chunk. */
    bool put_in = whole && !contract->has_time && !spec->is_length;
    int behind = rx_axis_of(spec->rank, spec->shape, BATCH);
    if (put_in && behind < 0)
        shape[rank++] = time;
    for (int axis = 0; axis < spec->rank; axis++) {
        rnnx_dim dim = spec->shape[axis];
        if (dim.index != TIME || whole)
            shape[rank++] = dim;
        else if (strcmp(dim.text, "time") != 0)
            shape[rank++] = (rnnx_dim){dim.factor, -1, dim.text};
        if (put_in && axis == behind)
            shape[rank++] = time;
    }
    return rank;
}

void rx_resolve(int rank, const rnnx_dim *shape, const int64_t *sizes, int64_t *numbers)
{
    for (int axis = 0; axis < rank; axis++) /* what overflows is refused where memory is asked for */
        if (__builtin_mul_overflow(shape[axis].factor, shape[axis].index < 0 ? 1 : sizes[shape[axis].index],
                                   &numbers[axis]))
            numbers[axis] = INT64_MAX;
}

bool rx_fit(int rank, const rnnx_dim *shape, const rnnx_tensor *tensor, int64_t *sizes)
{
    if (tensor->rank != rank)
        return false;
    for (int axis = 0; axis < rank; axis++) {
        int64_t size = tensor->shape[axis], factor = shape[axis].factor;
        if (size < 1 || size % factor)
            return false;
        int64_t *known = shape[axis].index < 0 ? NULL : &sizes[shape[axis].index];
        if (known && !*known)
            *known = size / factor;
        if (size / factor != (known ? *known : 1))
            return false;
    }
    return true;
}

const rnnx_spec *rx_spec_named(const rnnx_spec *specs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    return NULL;
}

bool rx_unknown_name(const char *kind, const char *name, const rnnx_spec *known, size_t count,
                     rnnx_error *error)
{
    line names = {.used = 0};
    char code[32];
    for (size_t i = 0; i < count; i++)
        rx_add_name(&names, known[i].name);
    snprintf(code, sizeof code, "unknown-%s", kind);
    return rx_fail(error, code,
                   "expected %ss %s; found '%s'; fix: use one of the names that 'rnnx inspect' lists as %ss",
                   kind, count ? names.text : "(none)", name, kind);
}
