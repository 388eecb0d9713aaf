/* Blocks of any length: what is over waits for the next one. A step takes N entries along an N*time axis. */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

int rx_time_of(const rnnx_contract *contract, const rnnx_spec *spec, int64_t *factor)
{
    rnnx_dim shape[RNNX_MAX_RANK];
    int axis = rx_axis_of(rx_caller_shape(contract, spec, true, shape), shape, TIME);
    if (factor)
        *factor = axis < 0 ? 1 : shape[axis].factor;
    return axis;
}

/* Bytes of one entry along an axis, and how many such runs lie in the tensor. */
static size_t unit_of(const rnnx_tensor *tensor, int axis, size_t *outer)
{
    *outer = rx_count_of(axis, tensor->shape);
    return rx_count_of(tensor->rank - axis - 1, tensor->shape + axis + 1) * rx_dtype_size(tensor->dtype);
}

/* Copies entries along an axis, from `begin` of one tensor to `at` of another. */
static void copy_entries(const rnnx_tensor *from, int axis, int64_t begin, int64_t count, rnnx_tensor *to,
                         int64_t at)
{
    size_t outer, unit = unit_of(from, axis, &outer);
    for (size_t run = 0; count > 0 && run < outer; run++)
        memcpy((char *)to->data + (run * (size_t)to->shape[axis] + (size_t)at) * unit,
               (const char *)from->data + (run * (size_t)from->shape[axis] + (size_t)begin) * unit,
               (size_t)count * unit);
}

/* Makes a tensor like another with so many entries along an axis (-1: as many), filled with a number. The
 * caller frees its data. */
static bool make_like(const rnnx_tensor *like, int axis, int64_t entries, double filling, rnnx_tensor *made,
                      rnnx_error *error)
{
    rnnx_tensor same = *like;
    if (axis >= 0)
        same.shape[axis] = entries;
    size_t count = rx_count_of(same.rank, same.shape);
    same.data = calloc(count + 1, rx_dtype_size(same.dtype));
    if (!same.data)
        return rx_fail_memory(error);
    if (filling != 0)
        rx_fill_number(filling, same.dtype, same.data, count);
    *made = same;
    return true;
}

bool rx_entries(const rnnx_tensor *from, int axis, int64_t begin, int64_t end, double filling,
                rnnx_tensor *made, rnnx_error *error)
{
    int64_t last = end < from->shape[axis] ? end : from->shape[axis];
    if (!make_like(from, axis, end - begin, filling, made, error))
        return false;
    copy_entries(from, axis, begin, last - begin, made, 0);
    return true;
}

static bool copy_of(const rnnx_tensor *like, rnnx_tensor *made, rnnx_error *error)
{
    if (!make_like(like, -1, 0, 0, made, error))
        return false;
    memcpy(made->data, like->data, rx_count_of(like->rank, like->shape) * rx_dtype_size(like->dtype));
    return true;
}

static void free_all(rnnx_tensor *tensors, size_t count)
{
    for (size_t i = 0; tensors && i < count; i++) {
        free(tensors[i].data);
        tensors[i].data = NULL;
    }
}

void rx_drop_waiting(rnnx_stream *stream)
{
    free_all(stream->waiting, stream->session->contract.input_count);
}

size_t rnnx_waiting(const rnnx_stream *stream, const char *name)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_spec *spec = rx_spec_named(contract->inputs, contract->input_count, name);
    const rnnx_tensor *waits = spec ? &stream->waiting[spec - contract->inputs] : NULL;
    int axis = spec ? rx_time_of(contract, spec, NULL) : -1;
    return axis >= 0 && waits->data ? (size_t)waits->shape[axis] : 0;
}

bool rx_none_waits(const rnnx_stream *stream, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->input_count; i++) {
        size_t entries = stream->waiting[i].data ? rnnx_waiting(stream, contract->inputs[i].name) : 0;
        if (entries)
            return rx_fail(error, "entries-waiting",
                           "expected no entries waiting for a whole step; found %zu of '%s'; fix: flush "
                           "first, or reset the whole stream",
                           entries, contract->inputs[i].name);
    }
    return true;
}

/* Whether a tensor has the axes of a chunk, of the sizes that are known; any number along time. */
static bool fits(const rnnx_stream *stream, int rank, const rnnx_dim *shape, const rnnx_tensor *given,
                 const rnnx_tensor *waits)
{
    if (given->rank != rank)
        return false;
    for (int axis = 0; axis < rank; axis++) {
        int64_t wanted = shape[axis].index < 0 ? 1 : stream->sizes[shape[axis].index];
        wanted *= shape[axis].factor;
        if (!wanted && waits->data)
            wanted = waits->shape[axis];
        if (shape[axis].index != TIME && wanted && given->shape[axis] != wanted)
            return false;
    }
    return true;
}

/* Puts one input behind what waits of it. */
static bool join_one(rnnx_stream *stream, size_t index, rnnx_tensor *made, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_spec *spec = &contract->inputs[index];
    const rnnx_tensor *given = stream->given[index], *waits = &stream->waiting[index];
    rnnx_dim shape[RNNX_MAX_RANK];
    int rank = rx_caller_shape(contract, spec, true, shape), axis = rx_axis_of(rank, shape, TIME);
    if (spec->is_length)
        return rx_fail(error, "feed-length",
                       "expected no lengths in feed, of which all entries count; found '%s'; fix: leave it "
                       "out, or give the whole sequence to run",
                       spec->name);
    if (given->dtype != spec->dtype)
        return rx_wrong_dtype(spec, given, error);
    memcpy(stream->before, stream->sizes, contract->dim_count * sizeof *stream->sizes);
    if (!fits(stream, rank, shape, given, waits))
        return rx_misfit(stream, spec, rank, shape, given, true, error);
    if (axis < 0 || !waits->data)
        return copy_of(given, made, error);
    if (!make_like(given, axis, waits->shape[axis] + given->shape[axis], 0, made, error))
        return false;
    copy_entries(waits, axis, 0, waits->shape[axis], made, 0);
    copy_entries(given, axis, 0, given->shape[axis], made, waits->shape[axis]);
    return true;
}

/* Makes what waits with inputs behind it, by input. The caller frees it. */
static bool join(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_tensor *joined,
                 rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    rnnx_tensor *every = calloc(contract->input_count + count + 1, sizeof *every);
    size_t kept = 0;
    if (!every)
        return rx_fail_memory(error);
    for (size_t i = 0; i < contract->input_count; i++)
        if (stream->waiting[i].data)
            every[kept++] = stream->waiting[i];
    for (size_t i = 0; i < count; i++)
        if (inputs[i].data)
            every[kept++] = inputs[i];
    bool good = rx_name_inputs(stream, every, kept, error);
    for (size_t i = 0; good && i < contract->input_count; i++) {
        const rnnx_tensor *given = stream->given[i];
        if (!given)
            continue;
        bool waits = stream->waiting[i].data && given->data == stream->waiting[i].data;
        good = waits ? copy_of(given, &joined[i], error) : join_one(stream, i, &joined[i], error);
        joined[i].name = contract->inputs[i].name;
    }
    free(every);
    return good;
}

/* How many steps the shortest input has, or, to flush, how many take all of the longest. */
static int64_t steps_of(const rnnx_contract *contract, const rnnx_tensor *joined, bool flush)
{
    int64_t steps = -1, factor;
    for (size_t i = 0; i < contract->input_count; i++) {
        int axis = rx_time_of(contract, &contract->inputs[i], &factor);
        if (!joined[i].data || axis < 0)
            continue;
        int64_t has = (joined[i].shape[axis] + (flush ? factor - 1 : 0)) / factor;
        if (steps < 0 || (flush ? has > steps : has < steps))
            steps = has;
    }
    return steps < 0 ? 0 : steps;
}

/* What stands for entries that nobody gave: what is nearest to 0 in the range. */
static double filling_of(const rnnx_spec *spec)
{
    return !spec->has_range ? 0 : spec->least > 0 ? spec->least : spec->largest < 0 ? spec->largest : 0;
}

/* Makes the inputs of the first steps, filled up with what is nearest to 0; `taken` has them without gaps. */
static bool take_first(const rnnx_contract *contract, const rnnx_tensor *joined, int64_t steps,
                       rnnx_tensor *taken, size_t *count, rnnx_error *error)
{
    bool good = true;
    *count = 0;
    for (size_t i = 0; good && i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        int64_t factor;
        int axis = rx_time_of(contract, spec, &factor);
        if (!joined[i].data)
            continue;
        rnnx_tensor *made = &taken[(*count)++];
        if (axis < 0)
            good = copy_of(&joined[i], made, error);
        else
            good = rx_entries(&joined[i], axis, 0, steps * factor, filling_of(spec), made, error);
    }
    return good;
}

/* Checks what waits as if it were run. */
static bool check(rnnx_stream *stream, const rnnx_tensor *joined, rnnx_tensor *taken, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    int64_t steps = steps_of(contract, joined, true);
    size_t count = 0;
    bool good =
        !steps || (take_first(contract, joined, steps, taken, &count, error) &&
                   rx_match_inputs(stream, taken, count, true, error) && rx_check_values(stream, error));
    free_all(taken, contract->input_count);
    return good;
}

/* Runs the first steps; none gives outputs of length 0. */
static bool run_first(rnnx_stream *stream, const rnnx_tensor *joined, int64_t steps, rnnx_tensor *taken,
                      rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    size_t count = 0;
    if (steps) {
        bool good = take_first(contract, joined, steps, taken, &count, error) &&
                    rx_run_chunk(stream, taken, count, error);
        free_all(taken, contract->input_count);
        return good;
    }
    for (size_t i = 0; i < contract->output_count; i++) {
        const rnnx_spec *spec = &contract->outputs[i];
        rnnx_tensor *none = &stream->empty[i];
        rnnx_dim shape[RNNX_MAX_RANK];
        *none = (rnnx_tensor){.name = spec->name, .dtype = spec->dtype};
        none->rank = rx_caller_shape(contract, spec, true, shape);
        rx_resolve(none->rank, shape, stream->sizes, none->shape); /* a size that is not known is 0 */
    }
    stream->latest = stream->empty;
    return true;
}

/* Keeps what lies behind the first steps. */
static bool keep_rest(rnnx_stream *stream, rnnx_tensor *joined, int64_t steps, rnnx_tensor *left,
                      rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    bool good = true;
    for (size_t i = 0; good && i < contract->input_count; i++) {
        int64_t factor;
        int axis = rx_time_of(contract, &contract->inputs[i], &factor);
        if (!joined[i].data)
            continue;
        if (axis < 0)
            good = copy_of(&joined[i], &left[i], error);
        else
            good = rx_entries(&joined[i], axis, steps * factor, joined[i].shape[axis], 0, &left[i], error);
    }
    return good;
}

bool rnnx_feed(rnnx_stream *stream, const rnnx_tensor *inputs, size_t count, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return false;
    const rnnx_contract *contract = &stream->session->contract;
    if (contract->whole_only)
        return rx_leave(stream, rx_whole_only(stream, "a call of feed", error));
    rnnx_tensor *joined = calloc(contract->input_count + 1, sizeof *joined);
    rnnx_tensor *taken = calloc(contract->input_count + 1, sizeof *taken);
    rnnx_tensor *left = calloc(contract->input_count + 1, sizeof *left);
    bool good = (joined && taken && left) || rx_fail_memory(error);
    good = good && join(stream, inputs, count, joined, error) && check(stream, joined, taken, error);
    int64_t steps = good ? steps_of(contract, joined, false) : 0;
    good = good && keep_rest(stream, joined, steps, left, error) &&
           run_first(stream, joined, steps, taken, error);
    if (good) {
        rx_drop_waiting(stream);
        memcpy(stream->waiting, left, contract->input_count * sizeof *left);
    } else {
        free_all(left, contract->input_count);
    }
    free_all(joined, contract->input_count);
    free(joined);
    free(taken);
    free(left);
    return rx_leave(stream, good);
}

/* How many steps late outputs come (0: none), and which state says that a sequence is over. */
static bool end_of(const rnnx_contract *contract, int64_t *late, size_t *state, rnnx_error *error)
{
    *late = 0;
    for (size_t i = 0; i < contract->output_count; i++)
        if (contract->outputs[i].delay > *late)
            *late = contract->outputs[i].delay;
    for (*state = 0; *state < contract->state_count; (*state)++)
        if (contract->states[*state].is_end)
            return true;
    return !*late || rx_fail(error, "no-end",
                             "expected a model that can give the last %lld steps, which its outputs are late "
                             "by; found one whose network ends a sequence otherwise than with zeros; fix: do "
                             "without them, or give the whole sequence to a model that was exported without "
                             "delay",
                             (long long)*late);
}

/* Makes inputs of steps that nobody gave; those without time are what they were. The caller frees them. */
static bool make_nothing(rnnx_stream *stream, int64_t steps, rnnx_tensor *made, size_t *count,
                         rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    bool good = true;
    *count = 0;
    for (size_t i = 0; good && i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        rnnx_dim shape[RNNX_MAX_RANK];
        int64_t factor;
        int axis = rx_time_of(contract, spec, &factor);
        rnnx_tensor like = {.name = spec->name, .dtype = spec->dtype};
        if (axis < 0 && !stream->waiting[i].data)
            continue;
        if (axis < 0) {
            good = copy_of(&stream->waiting[i], &made[(*count)++], error);
            continue;
        }
        like.rank = rx_caller_shape(contract, spec, true, shape);
        rx_resolve(like.rank, shape, stream->sizes, like.shape);
        good = make_like(&like, axis, steps * factor, filling_of(spec), &made[(*count)++], error);
    }
    return good;
}

void rx_drop_ended(rnnx_stream *stream)
{
    free_all(stream->ended, stream->session->contract.output_count);
}

/* Joins the latest outputs to those before. */
static bool join_outputs(rnnx_stream *stream, const rnnx_tensor *before, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    bool good = true;
    for (size_t i = 0; good && i < contract->output_count; i++) {
        const rnnx_tensor *last = &stream->latest[i];
        rnnx_tensor *made = &stream->ended[i];
        int axis = rx_time_of(contract, &contract->outputs[i], NULL);
        int64_t first = axis >= 0 && before[i].data ? before[i].shape[axis] : 0;
        if (!first) {
            good = copy_of(last, made, error);
            continue;
        }
        good = make_like(last, axis, first + last->shape[axis], 0, made, error);
        if (good) {
            copy_entries(&before[i], axis, 0, first, made, 0);
            copy_entries(last, axis, 0, last->shape[axis], made, first);
        }
    }
    stream->latest = good ? stream->ended : NULL;
    return good;
}

/* Says that the sequence is over, and runs the steps after it. */
static bool run_end(rnnx_stream *stream, int64_t late, size_t state, rnnx_tensor *taken, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    const rnnx_tensor *ended = &stream->states[state];
    rnnx_tensor *before = calloc(contract->output_count + 1, sizeof *before);
    bool good = before || rx_fail_memory(error);
    for (size_t i = 0; good && i < contract->output_count; i++)
        if (stream->latest[i].data)
            good = copy_of(&stream->latest[i], &before[i], error);
    size_t count = 0;
    if (good) {
        rx_drop_ended(stream);
        rx_fill_number(1, ended->dtype, stream->sides[stream->now][state].data,
                       rx_count_of(ended->rank, ended->shape));
        good = make_nothing(stream, late, taken, &count, error) && rx_run_chunk(stream, taken, count, error) &&
               join_outputs(stream, before, error);
    }
    free_all(taken, contract->input_count);
    free_all(before, contract->output_count);
    free(before);
    return good;
}

bool rnnx_flush(rnnx_stream *stream, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return false;
    const rnnx_contract *contract = &stream->session->contract;
    int64_t late;
    size_t state;
    if (!end_of(contract, &late, &state, error))
        return rx_leave(stream, false);
    rnnx_tensor *taken = calloc(contract->input_count + 1, sizeof *taken);
    bool good = taken || rx_fail_memory(error);
    good =
        good && run_first(stream, stream->waiting, steps_of(contract, stream->waiting, true), taken, error);
    good = good && (!late || run_end(stream, late, state, taken, error));
    if (good)
        rx_drop_waiting(stream);
    free(taken);
    return rx_leave(stream, good);
}
