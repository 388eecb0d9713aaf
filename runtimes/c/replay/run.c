#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool agrees(rnnx_dtype dtype, const bound *allowed, const void *expected, size_t at, const void *got,
                   size_t place, double *error)
{
    *error = 0;
    if (!rx_dtype_is_float(dtype)) {
        int64_t wanted = rx_integer_at(dtype, expected, at), have = rx_integer_at(dtype, got, place);
        double size = fabs((double)wanted);
        *error = fabs((double)have - (double)wanted) / (1 + size);
        return wanted == have;
    }
    double wanted = rx_value_at(dtype, expected, at), have = rx_value_at(dtype, got, place);
    if (!isfinite(wanted) || !isfinite(have))
        return wanted == have || (isnan(wanted) && isnan(have));
    *error = fabs(have - wanted) / (1 + fabs(wanted));
    return fabs(have - wanted) <= allowed->atol + allowed->rtol * fabs(wanted);
}

/* Where entry `at` of a row lies in a tensor that has `steps` rows on an axis behind `outer` entries. */
static size_t place_of(size_t at, size_t outer, size_t count, int64_t steps, int64_t step)
{
    size_t unit = count / outer;
    return (at / unit * (size_t)steps + (size_t)step) * unit + at % unit;
}

/* Whether an entry of an output at `step` belongs to a row that has not ended. */
static bool is_valid(const replay *run, int64_t step, int batch, const int64_t *index)
{
    if (!run->lengths)
        return true;
    size_t row = run->lengths->rank && batch >= 0 ? (size_t)index[batch] : 0;
    return step < rx_integer_at(RNNX_INT64, run->lengths->data, row);
}

/* Compares a row, [rank axes of shape], of a recorded tensor with a row of `got`. `batch` is the axis of the
 * batch in outputs, which end with their row; -1 compares everything. */
static void compare(replay *run, const char *kind, const char *name, const rnnx_tensor *recorded, size_t row,
                    const bound *allowed, const void *got, size_t outer, int64_t steps, int64_t in_chunk,
                    int64_t step, bool is_output, int batch)
{
    int rank = recorded->rank - 1;
    const int64_t *shape = recorded->shape + 1;
    size_t count = rx_count_of(rank, shape);
    for (size_t at = 0; at < count && !run->failed; at++) {
        int64_t index[RNNX_MAX_RANK];
        double error;
        size_t rest = at, place = place_of(at, outer, count, steps, in_chunk);
        for (int axis = rank - 1; axis >= 0; rest /= (size_t)shape[axis], axis--)
            index[axis] = (int64_t)(rest % (size_t)shape[axis]);
        if (is_output && !is_valid(run, step, batch, index))
            continue;
        bool good = agrees(recorded->dtype, allowed, recorded->data, row * count + at, got, place, &error);
        run->max_error = fmax(run->max_error, error);
        if (good)
            continue;
        run->failed = true;
        snprintf(run->tensor, sizeof run->tensor, "%s.%s", kind, name);
        memcpy(run->index, index, sizeof index);
        run->step = step;
        run->rank = rank;
        run->dtype = recorded->dtype;
        run->expected = recorded->data;
        run->expected_at = row * count + at;
        run->got = got;
        run->got_at = place;
    }
}

static void compare_states(replay *run, int64_t step)
{
    const rnnx_tensor *now = rnnx_states(run->stream);
    for (size_t i = 0; i < run->contract->state_count; i++) {
        const rnnx_tensor *recorded = run->trace->states[i];
        compare(run, "state", now[i].name, recorded, (size_t)(step + 1), &run->trace->state_bounds[i],
                now[i].data, 1, 1, 0, step, false, -1);
    }
}

static void compare_outputs(replay *run, int64_t begin, int64_t end, bool stepped)
{
    const rnnx_tensor *outputs = rnnx_outputs(run->stream);
    for (size_t i = 0; i < run->contract->output_count; i++) {
        const rnnx_spec *spec = &run->contract->outputs[i];
        rnnx_dim chunk[RNNX_MAX_RANK], single[RNNX_MAX_RANK];
        int rank = rx_caller_shape(run->contract, spec, true, chunk), time = rx_axis_of(rank, chunk, TIME);
        int batch = rx_axis_of(rx_caller_shape(run->contract, spec, false, single), single, BATCH);
        bool rows = !stepped && time >= 0; /* else one value, that of the last step */
        for (int64_t step = rows ? begin : end - 1; step < end; step++)
            compare(run, "output", spec->name, run->trace->outputs[i], (size_t)step,
                    &run->trace->output_bounds[i], outputs[i].data,
                    rows ? rx_count_of(time, outputs[i].shape) : 1, rows ? end - begin : 1,
                    rows ? step - begin : 0, step, true, batch);
    }
}

/* Makes an input of steps begin..end-1 from its recording, [step, ...]; the caller frees its data. */
static bool cut(const replay *run, size_t input, int64_t begin, int64_t end, bool stepped, rnnx_tensor *made,
                rnnx_error *error)
{
    const rnnx_spec *spec = &run->contract->inputs[input];
    const rnnx_tensor *recorded = run->trace->inputs[input];
    rnnx_dim shape[RNNX_MAX_RANK];
    bool rows = has_steps(run->contract, spec);
    int64_t steps = end - begin;
    *made = *recorded;
    made->name = spec->name;
    size_t count = rx_count_of(recorded->rank - rows, recorded->shape + rows);
    size_t size = rx_dtype_size(spec->dtype), bytes = count * size;
    char *data = made->data = malloc(bytes * (rows ? (size_t)steps : 1) + 1);
    if (!data)
        return rx_fail_memory(error);
    if (!rows) {
        memcpy(data, recorded->data, bytes);
        for (size_t row = 0; spec->is_length && row < count; row++) {
            int64_t left = rx_integer_at(RNNX_INT64, data, row) - begin;
            ((int64_t *)(void *)data)[row] = left < 0 ? 0 : left > steps ? steps : left;
        }
        return true;
    }
    run->trace->sizes[TIME] = steps;
    made->rank = rx_caller_shape(run->contract, spec, !stepped, shape);
    rx_resolve(made->rank, shape, run->trace->sizes, made->shape);
    int time = stepped ? 0 : rx_axis_of(made->rank, shape, TIME);
    size_t outer = rx_count_of(time, made->shape), unit = bytes / outer;
    for (int64_t step = begin; step < end; step++)
        for (size_t block = 0; block < outer; block++)
            memcpy(data + (block * (size_t)steps + (size_t)(step - begin)) * unit,
                   (const char *)recorded->data + (size_t)step * bytes + block * unit, unit);
    return true;
}

/* Runs steps begin..end-1. */
bool replay_call(replay *run, int64_t begin, int64_t end, bool stepped, rnnx_error *error)
{
    rnnx_tensor *inputs = calloc(run->contract->input_count + 1, sizeof *inputs);
    size_t count = 0;
    bool good = inputs || rx_fail_memory(error);
    for (size_t i = 0; good && i < run->contract->input_count; i++)
        if (run->trace->inputs[i])
            good = cut(run, i, begin, end, stepped, &inputs[count++], error);
    good = good && (stepped ? rnnx_step : rnnx_run)(run->stream, inputs, count, error);
    while (count)
        free(inputs[--count].data);
    free(inputs);
    run->steps = end;
    run->calls++;
    return good;
}

/* Opens a stream with the sizes of the trace. */
bool replay_begin(replay *run, rnnx_session *session, recording *trace, rnnx_error *error)
{
    const rnnx_contract *contract = rnnx_session_contract(session);
    *run = (replay){.contract = contract, .trace = trace};
    rnnx_size *dims = calloc(contract->dim_count, sizeof *dims);
    size_t count = 0;
    if (!dims)
        return rx_fail_memory(error);
    for (size_t i = 2; i < 2 + contract->free_count; i++)
        if (trace->sizes[i])
            dims[count++] = (rnnx_size){contract->dims[i], trace->sizes[i]};
    rnnx_stream_options opened = {.batch = trace->sizes[BATCH], .dims = dims, .dim_count = count};
    run->stream = rnnx_stream_open(session, &opened, error);
    free(dims);
    for (size_t i = 0; i < contract->input_count; i++)
        if (contract->inputs[i].is_length && trace->inputs[i])
            run->lengths = trace->inputs[i];
    return run->stream != NULL;
}

/* Sets the states to row 0 of the trace. */
bool replay_to_start(replay *run, rnnx_error *error)
{
    for (size_t i = 0; i < run->contract->state_count; i++) {
        rnnx_tensor row = *run->trace->states[i];
        row.name = run->contract->states[i].name;
        memmove(row.shape, row.shape + 1, (size_t)--row.rank * sizeof *row.shape);
        if (!rnnx_states_set(run->stream, &row, 1, error))
            return false;
    }
    return true;
}

bool replay_all(replay *run, const char *chunks, rnnx_error *error)
{
    bool whole = run->contract->whole_only != NULL;
    const char *next = chunks;
    compare_states(run, -1);
    if (!run->failed && !replay_to_start(run, error))
        return false;
    for (int64_t begin = 0, end; !run->failed && begin < run->trace->steps; begin = end) {
        long long length = strtoll(next, (char **)&next, 10);
        next = *next == ',' ? next + 1 : chunks;
        end = length && !whole && begin + length < run->trace->steps ? begin + length : run->trace->steps;
        bool stepped = end - begin == 1 && !whole;
        if (!replay_call(run, begin, end, stepped, error))
            return false;
        compare_outputs(run, begin, end, stepped);
        compare_states(run, end - 1);
    }
    return true;
}
