/* Streams: one sequence, or a fixed batch of them, being run. A step reads one set of state buffers and
 * writes the other; the roles swap when it has succeeded, so that a failure leaves the states as they were.
 */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

bool rx_enter(rnnx_stream *stream, rnnx_error *error)
{
    if (atomic_flag_test_and_set(&stream->busy))
        return rx_fail(error, "stream-busy",
                       "expected one thread at a time on a stream; found a call while another is running; "
                       "fix: open a stream for each thread; they share the session");
    if (!stream->closed)
        return true;
    atomic_flag_clear(&stream->busy);
    return rx_fail(
        error, "stream-closed",
        "expected a stream that is open; found one that was closed; fix: open another stream of the session");
}

bool rx_leave(rnnx_stream *stream, bool good)
{
    atomic_flag_clear(&stream->busy);
    return good;
}

/* -- Opening */

static bool settle(rnnx_stream *stream, const rnnx_stream_options *options, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    line known = {.used = 0}, bound = {.used = 0};
    for (size_t i = 0; i < contract->free_count; i++)
        rx_add_name(&known, contract->dims[2 + i]);
    for (size_t i = 0; i < options->dim_count; i++) {
        const rnnx_size *dim = &options->dims[i];
        size_t index = 2;
        while (index < 2 + contract->free_count && strcmp(contract->dims[index], dim->name) != 0)
            index++;
        if (index == 2 + contract->free_count)
            return rx_fail(error, "unknown-dimension",
                           "expected dimensions %s; found '%s'; fix: use one of the names that 'rnnx "
                           "inspect' lists as dimensions",
                           contract->free_count ? known.text : "(none)", dim->name);
        if (dim->size < 1)
            return rx_fail(error, "wrong-dimension",
                           "expected %s as a number of 1 or more; found %lld; fix: change it", dim->name,
                           (long long)dim->size);
        stream->sizes[index] = dim->size;
        rx_add_name(&bound, dim->name);
    }
    stream->sizes[BATCH] = options->batch ? options->batch : 1;
    if (stream->sizes[BATCH] < 1)
        return rx_fail(error, "empty-batch",
                       "expected batch as a number of 1 or more; found %lld; fix: change it",
                       (long long)options->batch);
    if (stream->sizes[BATCH] != 1 && !contract->has_batch)
        return rx_fail(error, "no-batch",
                       "expected batch 1, since the model has no batch axis; found %lld; fix: open one "
                       "stream per sequence, or export with a batch axis",
                       (long long)options->batch);
    for (size_t i = 0; i < contract->state_count; i++)
        for (int axis = 0; axis < contract->states[i].rank; axis++) {
            int index = contract->states[i].shape[axis].index;
            if (index > TIME && !stream->sizes[index])
                return rx_fail(error, "missing-dimension",
                               "expected the size of '%s', which state '%s' has; found dims with %s; fix: "
                               "bind it when opening the stream",
                               contract->dims[index], contract->states[i].name,
                               bound.used ? bound.text : "nothing");
        }
    return true;
}

static bool allocate(rnnx_stream *stream, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    arena *memory = &stream->memory;
    size_t states = contract->state_count, outputs = contract->output_count;
    stream->sizes = rx_arena_take(memory, contract->dim_count * sizeof(int64_t));
    stream->wanted = rx_arena_take(memory, contract->dim_count * sizeof(int64_t));
    stream->before = rx_arena_take(memory, contract->dim_count * sizeof(int64_t));
    stream->given = rx_arena_take(memory, contract->input_count * sizeof *stream->given + 1);
    stream->sides[0] = rx_arena_take(memory, states * sizeof(ort_buffer) + 1);
    stream->sides[1] = rx_arena_take(memory, states * sizeof(ort_buffer) + 1);
    stream->starts = rx_arena_take(memory, states * sizeof(void *) + 1);
    stream->kept = rx_arena_take(memory, states * sizeof(void *) + 1);
    stream->states = rx_arena_take(memory, states * sizeof(rnnx_tensor) + 1);
    stream->rows = rx_arena_take(memory, outputs * sizeof(ort_buffer) + 1);
    stream->joined = rx_arena_take(memory, outputs * sizeof(rnnx_tensor) + 1);
    stream->waiting = rx_arena_take(memory, contract->input_count * sizeof(rnnx_tensor) + 1);
    stream->empty = rx_arena_take(memory, outputs * sizeof(rnnx_tensor) + 1);
    stream->ended = rx_arena_take(memory, outputs * sizeof(rnnx_tensor) + 1);
    bool good = stream->sizes && stream->wanted && stream->before && stream->given && stream->sides[0] &&
                stream->sides[1] && stream->starts && stream->kept && stream->states && stream->rows &&
                stream->joined && stream->waiting && stream->empty && stream->ended;
    return good || rx_fail_memory(error);
}

/* Makes both sets of buffers and the starts; the first set holds the starts. */
static bool make_states(rnnx_stream *stream, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    ort_engine *engine = &stream->session->engine;
    for (size_t i = 0; i < contract->state_count; i++) {
        const rnnx_spec *spec = &contract->states[i];
        rnnx_tensor *view = &stream->states[i];
        *view = (rnnx_tensor){.name = spec->name, .dtype = spec->dtype, .rank = spec->rank};
        rx_resolve(spec->rank, spec->shape, stream->sizes, view->shape);
        for (int side = 0; side < 2; side++)
            if (!rx_buffer_make(engine, spec->dtype, spec->rank, view->shape, &stream->sides[side][i], error))
                return false;
        size_t bytes = stream->sides[0][i].bytes;
        stream->starts[i] = rx_arena_take(&stream->memory, bytes);
        stream->kept[i] = rx_arena_take(&stream->memory, bytes);
        if (!stream->starts[i] || !stream->kept[i])
            return rx_fail_memory(error);
        rx_fill_values(spec->value, spec->dtype, spec->rank, view->shape, stream->starts[i]);
    }
    return true;
}

void rx_to_start(rnnx_stream *stream)
{
    for (size_t i = 0; i < stream->session->contract.state_count; i++)
        memcpy(stream->sides[stream->now][i].data, stream->starts[i], stream->sides[0][i].bytes);
    stream->position = 0;
}

rnnx_stream *rnnx_stream_open(rnnx_session *session, const rnnx_stream_options *options, rnnx_error *error)
{
    static const rnnx_stream_options defaults = {.batch = 1};
    options = options ? options : &defaults;
    rnnx_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return rx_fail_memory(error), NULL;
    atomic_flag_clear(&stream->busy);
    stream->session = session;
    atomic_fetch_add(&session->owners, 1);
    bool good = allocate(stream, error) && settle(stream, options, error) && make_states(stream, error);
    for (size_t i = 0; good && i < options->initial_count; i++) {
        size_t index;
        good = rx_match_state(stream, &options->initial[i], &index, error);
        if (good)
            memcpy(stream->starts[index], options->initial[i].data, stream->sides[0][index].bytes);
    }
    if (good)
        return rx_to_start(stream), stream;
    rnnx_stream_free(stream);
    return NULL;
}

bool rnnx_stream_close(rnnx_stream *stream, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    ort_engine *engine = &stream->session->engine;
    if (stream->closed)
        return true;
    if (!rx_enter(stream, error))
        return false;
    stream->closed = true;
    stream->latest = NULL;
    rx_plan_free(engine, contract, &stream->step);
    rx_plan_free(engine, contract, &stream->chunk);
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; stream->sides[side] && i < contract->state_count; i++)
            rx_buffer_free(engine, &stream->sides[side][i]);
    for (size_t i = 0; stream->rows && i < contract->output_count; i++)
        free(stream->rows[i].data);
    rx_drop_waiting(stream);
    rx_drop_ended(stream);
    rx_tensor_file_free(&stream->restored);
    return rx_leave(stream, true);
}

void rnnx_stream_free(rnnx_stream *stream)
{
    if (!stream)
        return;
    rnnx_stream_close(stream, NULL);
    rnnx_close(stream->session);
    rx_arena_free(&stream->memory);
    free(stream);
}

/* -- Running */

bool rx_whole_only(const rnnx_stream *stream, const char *found, rnnx_error *error)
{
    return rx_fail(error, "whole-only",
                   "expected the whole sequence in one call of run, because of %s; found %s; fix: give the "
                   "whole sequence to run, and reset before the next one",
                   stream->session->contract.whole_only, found);
}

static bool call(rnnx_stream *stream, call_plan *plan, const rnnx_tensor *inputs, size_t count, bool whole,
                 rnnx_error *error)
{
    if (!rx_match_inputs(stream, inputs, count, whole, error) || !rx_check_values(stream, error) ||
        !rx_plan_make(stream, plan, whole, error))
        return false;
    rx_plan_fill(stream, plan);
    if (!rx_plan_run(stream, plan, error))
        return false;
    stream->latest = plan->results;
    return true;
}

bool rnnx_step(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return false;
    if (stream->session->contract.whole_only)
        return rx_leave(stream, rx_whole_only(stream, "a call of step", error));
    return rx_leave(stream,
                    rx_none_waits(stream, error) && call(stream, &stream->step, inputs, count, false, error));
}

/* Copies row `step` of a chunk, [outer, steps, unit bytes], to or from a step, [outer, unit bytes]. */
static void copy_row(char *step_data, char *chunk, size_t outer, size_t steps, size_t unit, size_t step,
                     bool out)
{
    for (size_t i = 0; i < outer; i++) {
        char *row = chunk + (i * steps + step) * unit, *single = step_data + i * unit;
        memcpy(out ? row : single, out ? single : row, unit);
    }
}

/* In a chunk of a step model, time stands right after the batch: returns how many rows come before it. */
static size_t rows_of(const rnnx_spec *spec, const int64_t *sizes)
{
    int batch = rx_axis_of(spec->rank, spec->shape, BATCH);
    int64_t before[RNNX_MAX_RANK];
    rx_resolve(batch + 1, spec->shape, sizes, before);
    return rx_count_of(batch + 1, before);
}

/* Fills the step plan with what row `step` of the chunk in stream->given holds. */
static void fill_row(rnnx_stream *stream, size_t steps, size_t step)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        ort_buffer *to = &stream->step.inputs[i];
        const rnnx_tensor *given = stream->given[i];
        size_t outer = rows_of(spec, stream->wanted);
        if (!given)
            continue; /* filled with its default already; a length is 1 */
        if (!spec->is_length)
            copy_row(to->data, given->data, outer, steps, to->bytes / outer, step, false);
        else
            for (size_t row = 0; row < to->bytes / sizeof(int64_t); row++)
                ((int64_t *)to->data)[row] = rx_integer_at(RNNX_INT64, given->data, row) > (int64_t)step;
    }
}

/* Adds the outputs of a step to the chunk that is put together. */
static bool join_row(rnnx_stream *stream, size_t steps, size_t step, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->output_count; i++) {
        const rnnx_spec *spec = &contract->outputs[i];
        const rnnx_tensor *single = &stream->step.results[i];
        rnnx_tensor *joined = &stream->joined[i];
        ort_buffer *room = &stream->rows[i];
        int behind = rx_axis_of(spec->rank, spec->shape, BATCH) + 1;
        size_t outer = rx_count_of(behind, single->shape);
        size_t bytes = rx_count_of(single->rank, single->shape) * rx_dtype_size(spec->dtype);
        if (!step && room->bytes < bytes * steps) {
            free(room->data);
            room->bytes = 0;
            if (!(room->data = malloc(bytes * steps)))
                return rx_fail_memory(error);
            room->bytes = bytes * steps;
        }
        if (!step) {
            *joined = *single;
            joined->data = room->data;
            joined->rank++;
            memmove(joined->shape + behind + 1, single->shape + behind,
                    (size_t)(single->rank - behind) * sizeof(int64_t));
            joined->shape[behind] = (int64_t)steps;
        }
        copy_row(single->data, joined->data, outer, steps, bytes / outer, step, true);
    }
    return true;
}

/* Runs a chunk of a step model step by step; back to where the chunk began if one fails. */
static bool loop(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    if (!rx_match_inputs(stream, inputs, count, true, error) || !rx_check_values(stream, error))
        return false;
    size_t steps = (size_t)stream->wanted[TIME];
    uint64_t position = stream->position;
    stream->wanted[TIME] = 1;
    if (!rx_plan_make(stream, &stream->step, false, error))
        return false;
    for (size_t i = 0; i < contract->state_count; i++)
        memcpy(stream->kept[i], stream->sides[stream->now][i].data, stream->sides[0][i].bytes);
    rx_plan_defaults(stream, &stream->step);
    bool good = true;
    for (size_t step = 0; good && step < steps; step++) {
        fill_row(stream, steps, step);
        good = rx_plan_run(stream, &stream->step, error) && join_row(stream, steps, step, error);
    }
    if (good) {
        stream->latest = stream->joined;
        return true;
    }
    for (size_t i = 0; i < contract->state_count; i++)
        memcpy(stream->sides[stream->now][i].data, stream->kept[i], stream->sides[0][i].bytes);
    stream->position = position;
    return false;
}

bool rx_run_chunk(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    if (!stream->session->contract.has_time)
        return loop(stream, inputs, count, error);
    if (stream->session->contract.whole_only && stream->position)
        return rx_whole_only(stream, "a second call", error);
    return call(stream, &stream->chunk, inputs, count, true, error);
}

bool rnnx_run(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return false;
    return rx_leave(stream, rx_none_waits(stream, error) && rx_run_chunk(stream, inputs, count, error));
}

const rnnx_tensor *rnnx_outputs(const rnnx_stream *stream)
{
    return stream->latest;
}

const rnnx_tensor *rnnx_output(const rnnx_stream *stream, const char *name)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_spec *spec = rx_spec_named(contract->outputs, contract->output_count, name);
    return spec && stream->latest ? &stream->latest[spec - contract->outputs] : NULL;
}
