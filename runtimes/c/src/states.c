/* The states of a stream: read, overwritten, put back to their start. */
#include "stream.h"

#include <string.h>

static bool reset_rows(rnnx_stream *stream, const int64_t *rows, size_t count, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    int64_t batch = stream->sizes[BATCH];
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i] < 0 || rows[i] >= batch)
            return rx_fail(error, "row-range",
                           "expected rows in 0..%lld; found %lld; fix: name rows of this stream's batch",
                           (long long)batch - 1, (long long)rows[i]);
        size_t earlier = 0;
        while (rows[earlier] != rows[i])
            earlier++;
        distinct += earlier == i;
    }
    for (size_t i = 0; i < contract->state_count; i++) /* before anything is changed */
        if (rx_axis_of(contract->states[i].rank, contract->states[i].shape, BATCH) < 0 && count &&
            distinct < (size_t)batch)
            return rx_fail(error, "shared-state",
                           "expected states with a batch axis, so that a row has its own; found state '%s' "
                           "shared by all rows; fix: reset the whole stream",
                           contract->states[i].name);
    for (size_t i = 0; count && i < contract->state_count; i++) {
        const rnnx_spec *spec = &contract->states[i];
        char *now = stream->sides[stream->now][i].data, *start = stream->starts[i];
        int axis = rx_axis_of(spec->rank, spec->shape, BATCH);
        size_t bytes = stream->sides[0][i].bytes;
        size_t outer = axis < 0 ? 1 : rx_count_of(axis, stream->states[i].shape);
        size_t unit = axis < 0 ? bytes : bytes / outer / (size_t)batch;
        for (size_t block = 0; block < outer; block++)
            for (size_t row = 0; row < (axis < 0 ? 1 : count); row++) {
                size_t at = axis < 0 ? 0 : (block * (size_t)batch + (size_t)rows[row]) * unit;
                memcpy(now + at, start + at, unit);
            }
    }
    return true;
}

bool rnnx_reset(rnnx_stream *stream, const int64_t *rows, size_t count, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return false;
    if (rows)
        return rx_leave(stream, rx_none_waits(stream, error) && reset_rows(stream, rows, count, error));
    rx_to_start(stream);
    rx_drop_waiting(stream);
    return rx_leave(stream, true);
}

uint64_t rnnx_position(const rnnx_stream *stream)
{
    return stream->position;
}

const rnnx_tensor *rnnx_states(rnnx_stream *stream)
{
    for (size_t i = 0; i < stream->session->contract.state_count; i++)
        stream->states[i].data = stream->sides[stream->now][i].data;
    return stream->closed ? NULL : stream->states;
}

bool rnnx_states_set(rnnx_stream *stream, const rnnx_tensor *states, size_t count, rnnx_error *error)
{
    size_t index;
    if (!rx_enter(stream, error))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!rx_match_state(stream, &states[i], &index, error))
            return rx_leave(stream, false);
    for (size_t i = 0; i < count; i++) {
        rx_match_state(stream, &states[i], &index, NULL);
        memcpy(stream->sides[stream->now][index].data, states[i].data, stream->sides[0][index].bytes);
    }
    return rx_leave(stream, true);
}
