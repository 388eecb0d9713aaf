#include "replay.h"
#include "stream.h"

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

/* Puts a number into words that are JSON's, but for nan, inf and -inf. */
static void put_number(char text[32], rnnx_dtype dtype, const void *data, size_t index)
{
    if (dtype == RNNX_UINT64)
        snprintf(text, 32, "%llu", (unsigned long long)((const uint64_t *)data)[index]);
    else if (!rx_dtype_is_float(dtype))
        snprintf(text, 32, "%lld", (long long)rx_integer_at(dtype, data, index));
    else if (isfinite(rx_value_at(dtype, data, index)))
        snprintf(text, 32, "%.17g", rx_value_at(dtype, data, index));
    else
        snprintf(text, 32, "%s",
                 isnan(rx_value_at(dtype, data, index)) ? "nan"
                 : rx_value_at(dtype, data, index) > 0  ? "inf"
                                                        : "-inf");
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
    for (size_t at = 0; at < count && run->verdict.agrees; at++) {
        int64_t index[RNNX_MAX_RANK];
        double error;
        size_t rest = at, place = place_of(at, outer, count, steps, in_chunk);
        for (int axis = rank - 1; axis >= 0; rest /= (size_t)shape[axis], axis--)
            index[axis] = (int64_t)(rest % (size_t)shape[axis]);
        if (is_output && !is_valid(run, step, batch, index))
            continue;
        bool good = agrees(recorded->dtype, allowed, recorded->data, row * count + at, got, place, &error);
        run->verdict.max_error = fmax(run->verdict.max_error, error);
        if (good)
            continue;
        rnnx_verdict *told = &run->verdict;
        told->agrees = false;
        snprintf(told->tensor, sizeof told->tensor, "%s.%s", kind, name);
        memcpy(told->index, index, sizeof index);
        told->step = step;
        told->rank = rank;
        put_number(told->expected, recorded->dtype, recorded->data, row * count + at);
        put_number(told->got, recorded->dtype, got, place);
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
    bool rows = rx_has_steps(run->contract, spec);
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

static bool cut_all(const replay *run, int64_t begin, int64_t end, bool stepped, rnnx_tensor *inputs,
                    size_t *count, rnnx_error *error)
{
    bool good = true;
    *count = 0;
    for (size_t i = 0; good && i < run->contract->input_count; i++)
        if (run->trace->inputs[i])
            good = cut(run, i, begin, end, stepped, &inputs[(*count)++], error);
    return good;
}

/* Runs steps begin..end-1. */
bool rx_replay_call(replay *run, int64_t begin, int64_t end, bool stepped, rnnx_error *error)
{
    rnnx_tensor *inputs = calloc(run->contract->input_count + 1, sizeof *inputs);
    size_t count = 0;
    bool good = inputs || rx_fail_memory(error);
    good = good && cut_all(run, begin, end, stepped, inputs, &count, error);
    good = good && (stepped ? rnnx_step : rnnx_run)(run->stream, inputs, count, error);
    while (count)
        free(inputs[--count].data);
    free(inputs);
    run->verdict.steps = end;
    run->verdict.calls++;
    return good;
}

/* Opens a stream with the sizes of the trace. */
bool rx_replay_begin(replay *run, rnnx_session *session, recording *trace, rnnx_error *error)
{
    const rnnx_contract *contract = rnnx_session_contract(session);
    *run = (replay){.contract = contract, .trace = trace, .verdict = {.agrees = true}};
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
bool rx_replay_to_start(replay *run, rnnx_error *error)
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

bool rx_replay_all(replay *run, const char *chunks, rnnx_error *error)
{
    bool whole = run->contract->whole_only != NULL;
    const char *next = chunks;
    compare_states(run, -1);
    if (run->verdict.agrees && !rx_replay_to_start(run, error))
        return false;
    for (int64_t begin = 0, end; run->verdict.agrees && begin < run->trace->steps; begin = end) {
        long long length = strtoll(next, (char **)&next, 10);
        next = *next == ',' ? next + 1 : chunks;
        end = length && !whole && begin + length < run->trace->steps ? begin + length : run->trace->steps;
        bool stepped = end - begin == 1 && !whole;
        if (!rx_replay_call(run, begin, end, stepped, error))
            return false;
        compare_outputs(run, begin, end, stepped);
        compare_states(run, end - 1);
    }
    return true;
}

/* Takes the next block of each input from what is left of it; counts the entries in *entries. */
static bool take_block(const replay *run, rnnx_tensor *left, size_t count, int64_t length, rnnx_tensor *block,
                       int64_t *entries, rnnx_error *error)
{
    const rnnx_contract *contract = run->contract;
    bool good = true;
    *entries = 0;
    for (size_t i = 0; good && i < count; i++) {
        const rnnx_spec *spec = rx_spec_named(contract->inputs, contract->input_count, left[i].name);
        int axis = rx_time_of(contract, spec, NULL);
        rnnx_tensor rest = left[i];
        if (axis < 0) {
            block[i] = left[i]; /* freed with what is left */
            continue;
        }
        int64_t all = left[i].shape[axis], taken = length && length < all ? length : all;
        good = rx_entries(&left[i], axis, 0, taken, 0, &block[i], error) &&
               rx_entries(&left[i], axis, taken, all, 0, &rest, error);
        *entries += taken;
        if (good) {
            free(left[i].data);
            left[i] = rest;
        }
    }
    return good;
}

static bool run_blocks(replay *run, const char *blocks, rnnx_tensor *left, size_t count, rnnx_tensor *block,
                       rnnx_error *error)
{
    const char *next = blocks;
    int64_t entries = 1;
    while (entries && run->verdict.agrees) {
        long long length = strtoll(next, (char **)&next, 10);
        next = *next == ',' ? next + 1 : blocks;
        bool good = take_block(run, left, count, length, block, &entries, error);
        good =
            good && (entries ? rnnx_feed(run->stream, block, count, error) : rnnx_flush(run->stream, error));
        for (size_t i = 0; i < count; i++) {
            if (block[i].data != left[i].data)
                free(block[i].data);
            block[i].data = NULL;
        }
        if (!good)
            return false;
        int64_t begin = run->verdict.steps, end = (int64_t)rnnx_position(run->stream);
        run->verdict.calls++;
        run->verdict.steps = end;
        if (end > begin) {
            compare_outputs(run, begin, end, false);
            compare_states(run, end - 1);
        }
    }
    return true;
}

bool rx_replay_blocks(replay *run, const char *blocks, int64_t omitted, rnnx_error *error)
{
    size_t inputs = run->contract->input_count, count = 0;
    rnnx_tensor *left = calloc(inputs + 1, sizeof *left), *block = calloc(inputs + 1, sizeof *block);
    compare_states(run, -1);
    bool good = (left && block) || rx_fail_memory(error);
    good = good && rx_replay_to_start(run, error);
    good = good && cut_all(run, 0, run->trace->steps, false, left, &count, error);
    for (size_t i = 0; good && i < count; i++) {
        int axis =
            rx_time_of(run->contract, rx_spec_named(run->contract->inputs, inputs, left[i].name), NULL);
        rnnx_tensor rest = left[i];
        if (axis < 0)
            continue;
        good = rx_entries(&left[i], axis, 0, left[i].shape[axis] - omitted, 0, &rest, error);
        if (good)
            free(left[i].data), left[i] = rest;
    }
    good = good && run_blocks(run, blocks, left, count, block, error);
    while (left && count)
        free(left[--count].data);
    free(left);
    free(block);
    return good;
}

bool rnnx_replay(rnnx_session *session, const char *path, rnnx_verdict *verdict, rnnx_error *error)
{
    recording recorded;
    replay run;
    if (!rx_trace_read(&recorded, path, rnnx_session_contract(session), error))
        return false;
    bool good = rx_replay_begin(&run, session, &recorded, error) && rx_replay_all(&run, "1", error);
    *verdict = run.verdict;
    rnnx_stream_free(run.stream);
    rx_trace_free(&recorded);
    return good;
}
