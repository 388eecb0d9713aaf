/* Snapshots: all that is needed to continue a stream elsewhere (docs/contract.md). */
#include "stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *encode(rnnx_stream *stream, const rnnx_sampling *sampling, size_t *size, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    size_t states = contract->state_count, count = states + (sampling && sampling->generator ? 3 : 0);
    rnnx_tensor *tensors = calloc(count + 1, sizeof *tensors);
    const char **prefixes = calloc(count + 1, sizeof *prefixes);
    char position[24];
    void *bytes = NULL;
    snprintf(position, sizeof position, "%" PRIu64, stream->position);
    const char *keys[] = {"format",     "rnnx-snapshot", "version", "1", "model",
                          contract->id, "position",      position,  NULL};
    if (tensors && prefixes) {
        for (size_t i = 0; i < count; i++)
            prefixes[i] = i < states ? "state." : "sampling.";
        const rnnx_tensor *now = rnnx_states(stream);
        for (size_t i = 0; i < states; i++)
            tensors[i] = now[i];
        if (count > states) {
            int64_t batch = stream->sizes[BATCH];
            tensors[states] = (rnnx_tensor){"generator", RNNX_UINT64, 1, {batch}, sampling->generator};
            tensors[states + 1] =
                (rnnx_tensor){"temperature", RNNX_FLOAT64, 1, {batch}, sampling->temperature};
            tensors[states + 2] = sampling->scores;
            tensors[states + 2].name = "scores";
        }
        bytes = rx_tensor_file_write(tensors, prefixes, count, keys, size);
    }
    free(tensors);
    free(prefixes);
    if (!bytes)
        rx_fail_memory(error);
    return bytes;
}

void *rnnx_snapshot(rnnx_stream *stream, const rnnx_sampling *sampling, size_t *size, rnnx_error *error)
{
    if (!rx_enter(stream, error))
        return NULL;
    void *bytes = rx_none_waits(stream, error) ? encode(stream, sampling, size, error) : NULL;
    rx_leave(stream, true);
    return bytes;
}

void rnnx_free(void *bytes)
{
    free(bytes);
}

static bool invalid(const char *expected, const char *found, rnnx_error *error)
{
    return rx_fail(error, "snapshot-invalid",
                   "expected a snapshot with %s; found %s; fix: open the stream with the batch and dims that "
                   "the snapshot was made with",
                   expected, found);
}

static void describe(line *to, const rnnx_tensor *tensor)
{
    rx_add(to, "%s", rx_dtype_name(tensor->dtype));
    rx_add_shape(to, tensor->rank, tensor->shape);
}

/* Whether a start holds NaN, alone or in its lists. */
static bool starts_as_nan(const json *value)
{
    if (value->type == JSON_STRING)
        return value->text[0] == 'n';
    for (const json *child = value->type == JSON_ARRAY ? value->first : NULL; child; child = child->next)
        if (starts_as_nan(child))
            return true;
    return false;
}

static bool fits_state(const rnnx_stream *stream, const tensor_file *file, size_t index, rnnx_error *error)
{
    const rnnx_spec *spec = &stream->session->contract.states[index];
    const rnnx_tensor *found = rx_tensor_file_get(file, "state", spec->name), *own = &stream->states[index];
    line wanted = {.used = 0}, given = {.used = 0};
    if (!found) {
        rx_add(&wanted, "a tensor 'state.%s'", spec->name);
        for (size_t i = 0; i < file->count; i++)
            rx_add_name(&given, file->tensors[i].name);
        return invalid(wanted.text, file->count ? given.text : "no tensors", error);
    }
    if (found->dtype == own->dtype && found->rank == own->rank &&
        memcmp(found->shape, own->shape, (size_t)own->rank * sizeof *own->shape) == 0)
        /* One engine keeps NaN, another takes it for a number. */
        return !rx_find_nan(found, &given) || starts_as_nan(spec->value) ||
               rx_fail(error, "snapshot-invalid",
                       "expected a snapshot with state '%s' without NaN; found %s; fix: take an earlier "
                       "snapshot: when this one was written, the network had overflowed already",
                       spec->name, given.text);
    rx_add(&wanted, "state '%s' as ", spec->name);
    describe(&wanted, own);
    describe(&given, found);
    return invalid(wanted.text, given.text, error);
}

/* What the file says of sampling: all three tensors, or nothing. */
static bool read_sampling(const rnnx_stream *stream, const tensor_file *file, rnnx_sampling *sampling,
                          rnnx_error *error)
{
    static const char *const names[] = {"generator", "temperature", "scores"};
    const rnnx_tensor *found[3];
    int64_t shape[] = {stream->sizes[BATCH], (int64_t)stream->session->contract.symbol_count};
    *sampling = (rnnx_sampling){.generator = NULL};
    if (!rx_tensor_file_get(file, "sampling", names[0]) || !stream->session->contract.symbols)
        return true;
    for (int i = 0; i < 3; i++) {
        line wanted = {.used = 0}, given = {.used = 0};
        int rank = i < 2 ? 1 : 2;
        found[i] = rx_tensor_file_get(file, "sampling", names[i]);
        bool right = found[i] && (i == 0   ? found[i]->dtype == RNNX_UINT64
                                  : i == 1 ? found[i]->dtype == RNNX_FLOAT64
                                           : rx_dtype_is_float(found[i]->dtype));
        if (right && found[i]->rank == rank && !memcmp(found[i]->shape, shape, (size_t)rank * sizeof *shape))
            continue;
        rx_add(&wanted, "a tensor 'sampling.%s' of shape ", names[i]);
        rx_add_shape(&wanted, rank, shape);
        if (found[i])
            describe(&given, found[i]);
        return invalid(wanted.text, found[i] ? given.text : "none", error);
    }
    *sampling = (rnnx_sampling){found[0]->data, found[1]->data, *found[2]};
    return true;
}

static bool decode(rnnx_stream *stream, tensor_file *file, rnnx_sampling *sampling, rnnx_error *error)
{
    const rnnx_contract *contract = &stream->session->contract;
    if (!rx_tensor_file_is(file, "snapshot", contract->id, error))
        return false;
    const char *position = rx_tensor_file_text(file, "position");
    line given = {.used = 0};
    rx_add(&given, "'%s'", position ? position : "");
    if (!position || !*position || strspn(position, "0123456789") != strlen(position))
        return invalid("a position in decimal", given.text, error);
    for (size_t i = 0; i < contract->state_count; i++)
        if (!fits_state(stream, file, i, error))
            return false;
    if (!read_sampling(stream, file, sampling, error))
        return false;
    for (size_t i = 0; i < contract->state_count; i++) {
        const rnnx_tensor *state = rx_tensor_file_get(file, "state", contract->states[i].name);
        memcpy(stream->sides[stream->now][i].data, state->data, stream->sides[0][i].bytes);
    }
    stream->position = strtoull(position, NULL, 10);
    return true;
}

bool rnnx_restore(rnnx_stream *stream, const void *data, size_t size, rnnx_sampling *sampling,
                  rnnx_error *error)
{
    tensor_file file;
    rnnx_sampling unused;
    if (!rx_enter(stream, error))
        return false;
    if (!rx_tensor_file_read(&file, data, size, "a snapshot", error))
        return rx_leave(stream, false);
    if (!decode(stream, &file, sampling ? sampling : &unused, error)) {
        rx_tensor_file_free(&file);
        return rx_leave(stream, false);
    }
    rx_tensor_file_free(&stream->restored);
    stream->restored = file;
    rx_drop_waiting(stream);
    return rx_leave(stream, true);
}
