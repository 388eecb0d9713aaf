/* Pools: streams of one session, each of them a row of its own, stepped as one batch. The rows are copied into a
 * stream of as many rows, which runs, and what it gives is copied out. */
#include "stream.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 32 }; /* sizes of batches whose buffers stay */

struct rnnx_pool {
    rnnx_session *session;
    rnnx_stream *batches[KEPT];
    size_t oldest;
    atomic_flag busy;
};

/* One pooled step. */
typedef struct joint {
    rnnx_pool *pool;
    rnnx_stream *const *streams;
    const rnnx_tensor *const *inputs;
    const size_t *counts;
    size_t count;
} joint;

static bool check_model(const rnnx_contract *contract, rnnx_error *error)
{
    if (contract->whole_only)
        return rx_fail(error, "whole-only",
                       "expected a model that can be stepped; found one that takes whole sequences, because of "
                       "%s; fix: open a stream, and give it the whole sequence in one call of run",
                       contract->whole_only);
    if (!contract->has_batch)
        return rx_fail(error, "no-batch",
                       "expected a model with a batch axis, whose rows the streams of a pool are; found none in "
                       "any input or state; fix: open one stream per sequence, or export with a batch axis");
    for (size_t i = 0; i < contract->state_count + contract->output_count; i++) {
        bool state = i < contract->state_count;
        const rnnx_spec *spec = state ? &contract->states[i] : &contract->outputs[i - contract->state_count];
        const char *kind = state ? "state" : "output";
        if (rx_axis_of(spec->rank, spec->shape, BATCH) < 0)
            return rx_fail(error, state ? "shared-state" : "shared-output",
                           "expected %ss with a batch axis, so that each stream of a pool has its own; found %s "
                           "'%s' shared by all rows; fix: open one stream per sequence",
                           kind, kind, spec->name);
    }
    return true;
}

rnnx_pool *rnnx_pool_open(rnnx_session *session, rnnx_error *error)
{
    if (!check_model(&session->contract, error))
        return NULL;
    rnnx_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return rx_fail_memory(error), NULL;
    atomic_flag_clear(&pool->busy);
    pool->session = session;
    atomic_fetch_add(&session->owners, 1);
    return pool;
}

void rnnx_pool_free(rnnx_pool *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < KEPT; i++)
        rnnx_stream_free(pool->batches[i]);
    rnnx_close(pool->session);
    free(pool);
}

static bool disagree(rnnx_error *error, const char *expected, const char *found)
{
    return rx_fail(error, "streams-disagree", "expected %s; found %s; fix: run them in separate calls", expected,
                   found);
}

/* Says whose input an error is about, before the mend. */
static bool name_stream(rnnx_error *error, size_t place)
{
    static const char mend[] = "; fix: ";
    line named = {.used = 0};
    char *at = error ? strstr(error->text, mend) : NULL;
    if (!at)
        return false;
    rx_add(&named, "%.*s, in the input of stream %zu%s", (int)(at - error->text), error->text, place, at);
    memcpy(error->text, named.text, named.used + 1);
    return false;
}

/* Checks the inputs of a stream, which has been entered, as a step of it alone would. */
static bool check_stream(const joint *all, size_t place, rnnx_error *error)
{
    rnnx_stream *stream = all->streams[place], *first = all->streams[0];
    const rnnx_contract *contract = &all->pool->session->contract;
    line found = {.used = 0};
    if (stream->session != all->pool->session)
        return disagree(error, "streams of the session that the pool was opened on", "one of another session");
    if (stream->sizes[BATCH] != 1)
        return disagree(error, "streams of batch 1", "a stream of a larger batch");
    if (!rx_none_waits(stream, error))
        return false;
    if (!rx_match_inputs(stream, all->inputs[place], all->counts[place], false, error) ||
        !rx_check_values(stream, error))
        return name_stream(error, place);
    for (size_t i = 2; i < 2 + contract->free_count; i++)
        if (stream->wanted[i] != first->wanted[i]) {
            line expected = {.used = 0};
            rx_add(&expected, "one size of '%s' in all streams that run together", contract->dims[i]);
            rx_add(&found, "%lld in stream 0, %lld in stream %zu", (long long)first->wanted[i],
                   (long long)stream->wanted[i], place);
            return disagree(error, expected.text, found.text);
        }
    return true;
}

/* How often the rows of a batch begin anew in an array of this shape, and the bytes of one row there. */
static size_t blocks_of(const rnnx_spec *spec, const int64_t *shape, int axis, size_t *unit)
{
    size_t outer = rx_count_of(axis, shape);
    *unit = rx_count_of(spec->rank - axis - 1, shape + axis + 1) * rx_dtype_size(spec->dtype);
    return outer;
}

/* Copies row `row` of `rows` to or from the array of a stream alone. */
static void copy_row(char *joined, char *alone, size_t blocks, size_t unit, size_t row, size_t rows, bool out)
{
    for (size_t block = 0; block < blocks; block++) {
        char *there = joined + (block * rows + row) * unit, *here = alone + block * unit;
        memcpy(out ? here : there, out ? there : here, unit);
    }
}

/* Puts an input without a batch axis into the batch, which holds its default: it must be the same in all streams. */
static bool gather_shared(const joint *all, size_t input, ort_buffer *to, rnnx_error *error)
{
    const rnnx_tensor *first = all->streams[0]->given[input];
    for (size_t row = 1; row < all->count; row++) {
        const rnnx_tensor *given = all->streams[row]->given[input];
        if (!memcmp(first ? first->data : to->data, given ? given->data : to->data, to->bytes))
            continue;
        line expected = {.used = 0}, found = {.used = 0};
        rx_add(&expected, "one value of '%s', which has no batch axis, in all streams of a call",
               all->pool->session->contract.inputs[input].name);
        rx_add(&found, "another in stream %zu than in stream 0", row);
        return disagree(error, expected.text, found.text);
    }
    if (first)
        memcpy(to->data, first->data, to->bytes);
    return true;
}

/* Puts the inputs and states of each stream into its row of the batch. */
static bool gather(const joint *all, rnnx_stream *batch, rnnx_error *error)
{
    const rnnx_contract *contract = &all->pool->session->contract;
    size_t unit;
    memset(batch->given, 0, contract->input_count * sizeof *batch->given);
    rx_plan_defaults(batch, &batch->step);
    for (size_t i = 0; i < contract->input_count; i++) {
        const rnnx_spec *spec = &contract->inputs[i];
        ort_buffer *to = &batch->step.inputs[i];
        int axis = rx_axis_of(spec->rank, spec->shape, BATCH);
        if (axis < 0 && !gather_shared(all, i, to, error))
            return false;
        size_t blocks = axis < 0 ? 0 : blocks_of(spec, to->shape, axis, &unit);
        for (size_t row = 0; axis >= 0 && row < all->count; row++)
            if (all->streams[row]->given[i])
                copy_row(to->data, all->streams[row]->given[i]->data, blocks, unit, row, all->count, false);
    }
    for (size_t i = 0; i < contract->state_count; i++) {
        const rnnx_spec *spec = &contract->states[i];
        int axis = rx_axis_of(spec->rank, spec->shape, BATCH);
        size_t blocks = blocks_of(spec, batch->states[i].shape, axis, &unit);
        for (size_t row = 0; row < all->count; row++) {
            rnnx_stream *stream = all->streams[row];
            copy_row(batch->sides[batch->now][i].data, stream->sides[stream->now][i].data, blocks, unit, row,
                     all->count, false);
        }
    }
    return true;
}

/* Makes room in a stream for its own row of what the batch gave. */
static bool make_room(rnnx_stream *stream, const rnnx_tensor *given, size_t rows, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    for (size_t i = 0; i < contract->output_count; i++) {
        ort_buffer *room = &stream->rows[i];
        rnnx_dim seen[RNNX_MAX_RANK];
        int rank = rx_caller_shape(contract, &contract->outputs[i], false, seen);
        size_t bytes = rx_count_of(rank, given[i].shape) * rx_dtype_size(given[i].dtype) / rows;
        if (room->bytes < bytes) {
            free(room->data);
            room->bytes = 0;
            if (!(room->data = malloc(bytes)))
                return rx_fail_memory(error);
            room->bytes = bytes;
        }
        stream->joined[i] = given[i];
        stream->joined[i].data = room->data;
        stream->joined[i].shape[rx_axis_of(rank, seen, BATCH)] /= (int64_t)rows;
    }
    return true;
}

/* Hands what the batch gave to the streams: nothing here can fail. */
static void scatter(const joint *all, rnnx_stream *batch)
{
    const rnnx_contract *contract = &all->pool->session->contract;
    size_t unit;
    for (size_t row = 0; row < all->count; row++) {
        rnnx_stream *stream = all->streams[row];
        for (size_t i = 0; i < contract->output_count; i++) {
            rnnx_spec seen = contract->outputs[i];
            seen.rank = rx_caller_shape(contract, &contract->outputs[i], false, seen.shape);
            int axis = rx_axis_of(seen.rank, seen.shape, BATCH);
            size_t blocks = blocks_of(&seen, batch->step.results[i].shape, axis, &unit);
            copy_row(batch->step.results[i].data, stream->joined[i].data, blocks, unit, row, all->count, true);
        }
        for (size_t i = 0; i < contract->state_count; i++) {
            const rnnx_spec *spec = &contract->states[i];
            int axis = rx_axis_of(spec->rank, spec->shape, BATCH);
            size_t blocks = blocks_of(spec, batch->states[i].shape, axis, &unit);
            copy_row(batch->sides[batch->now][i].data, stream->sides[1 - stream->now][i].data, blocks, unit, row,
                     all->count, true);
        }
        stream->now = 1 - stream->now;
        stream->position++;
        stream->latest = stream->joined;
    }
}

/* Returns the stream of as many rows as there are streams, of the sizes that theirs were opened with. */
static rnnx_stream *batch_of(const joint *all, rnnx_error *error)
{
    rnnx_pool *pool = all->pool;
    const rnnx_contract *contract = &pool->session->contract;
    const int64_t *sizes = all->streams[0]->wanted;
    for (size_t i = 0; i < KEPT; i++) {
        rnnx_stream *found = pool->batches[i];
        if (found && found->sizes[BATCH] == (int64_t)all->count &&
            !memcmp(found->sizes + 2, sizes + 2, contract->free_count * sizeof *sizes))
            return found;
    }
    rnnx_size *dims = calloc(contract->free_count + 1, sizeof *dims);
    if (!dims)
        return rx_fail_memory(error), NULL;
    for (size_t i = 0; i < contract->free_count; i++)
        dims[i] = (rnnx_size){contract->dims[2 + i], sizes[2 + i]};
    rnnx_stream_options options = {
        .batch = (int64_t)all->count, .dims = dims, .dim_count = contract->free_count};
    rnnx_stream *made = rnnx_stream_open(pool->session, &options, error);
    free(dims);
    if (made) {
        rnnx_stream_free(pool->batches[pool->oldest]);
        pool->batches[pool->oldest] = made;
        pool->oldest = (pool->oldest + 1) % KEPT;
    }
    return made;
}

/* Whether the stream at a place, which cannot be entered, is none of those before it; else that is the error. */
static bool check_once(const joint *all, size_t place, rnnx_error *error)
{
    line found = {.used = 0};
    for (size_t earlier = 0; earlier < place; earlier++)
        if (all->streams[earlier] == all->streams[place]) {
            rx_add(&found, "stream %zu again as stream %zu", earlier, place);
            return disagree(error, "each stream once in a call", found.text);
        }
    return true;
}

static bool run_batch(const joint *all, rnnx_error *error)
{
    rnnx_stream *batch = batch_of(all, error);
    if (!batch)
        return false;
    memcpy(batch->wanted, all->streams[0]->wanted, all->pool->session->contract.dim_count * sizeof *batch->wanted);
    batch->wanted[BATCH] = (int64_t)all->count;
    if (!rx_plan_make(batch, &batch->step, false, error) || !gather(all, batch, error) ||
        !rx_plan_run(batch, &batch->step, error))
        return false;
    for (size_t row = 0; row < all->count; row++)
        if (!make_room(all->streams[row], batch->step.results, all->count, error))
            return false;
    scatter(all, batch);
    return true;
}

bool rnnx_pool_step(rnnx_pool *pool, rnnx_stream *const *streams, const rnnx_tensor *const *inputs,
                    const size_t *counts, size_t count, rnnx_error *error)
{
    joint all = {pool, streams, inputs, counts, count};
    if (atomic_flag_test_and_set(&pool->busy))
        return rx_fail(error, "stream-busy",
                       "expected one thread at a time on a pool; found a call while another is running; fix: let one "
                       "thread step it, and the others hand it what they have, by a queue");
    size_t entered = 0;
    while (entered < count && rx_enter(streams[entered], error))
        entered++;
    bool good = entered == count || (check_once(&all, entered, error) && false);
    for (size_t place = 0; good && place < count; place++)
        good = check_stream(&all, place, error);
    good = good && (!count || run_batch(&all, error));
    while (entered)
        rx_leave(streams[--entered], true);
    atomic_flag_clear(&pool->busy);
    return good;
}
