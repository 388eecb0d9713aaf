/* Sessions and streams on the golden models: what replay does not reach. The argument is their folder. */
#define _POSIX_C_SOURCE 200809L
#include "../src/internal.h"
#include "check.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static const char *folder;

/* The linker sends what the library allocates through these (-Wl,--wrap); ONNX Runtime's own goes past them.
 */
static atomic_long allocations;
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}
void *__wrap_calloc(size_t count, size_t size)
{
    allocations++;
    return __real_calloc(count, size);
}
void *__wrap_realloc(void *old, size_t size)
{
    allocations++;
    return __real_realloc(old, size);
}
void *__wrap_aligned_alloc(size_t align, size_t size)
{
    allocations++;
    return __real_aligned_alloc(align, size);
}

static rnnx_session *open_model(const char *name)
{
    char path[4096];
    rnnx_error error = {.code = ""};
    snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    rnnx_session *session = rnnx_open(path, NULL, &error);
    if (!session)
        fprintf(stderr, "%s\n", error.text);
    CHECK(session);
    return session;
}

static rnnx_stream *open_stream(rnnx_session *session, int64_t batch)
{
    rnnx_stream_options options = {.batch = batch};
    rnnx_stream *stream = rnnx_stream_open(session, &options, NULL);
    CHECK(stream);
    return stream;
}

static bool failed_with(const rnnx_error *error, const char *code)
{
    if (strcmp(error->code, code) != 0)
        fprintf(stderr, "%s: %s\n", error->code, error->text);
    return strcmp(error->code, code) == 0;
}

static void a_model_opens_from_bytes(void)
{
    char path[4096];
    size_t size;
    rnnx_error error;
    snprintf(path, sizeof path, "%s/gru.onnx", folder);
    void *data = rx_read_file(path, "a model", &size, &error);
    rnnx_session *session = rnnx_open_bytes(data, size, NULL, &error);
    CHECK(session);
    memset(data, 0, size); /* not needed any more */
    CHECK(rnnx_session_contract(session)->state_count == 1 && rnnx_session_contract(session)->has_time);
    CHECK(!rnnx_open_bytes(data, size, NULL, &error) && failed_with(&error, "not-onnx"));
    CHECK(strstr(error.text, "expected an ONNX model in the model; found"));
    CHECK(!rnnx_open_bytes(NULL, 0, NULL, &error) && failed_with(&error, "not-onnx"));
    CHECK(!rnnx_open(folder, NULL, &error) && failed_with(&error, "cannot-read"));
    rnnx_options options = {.onnxruntime = "/nowhere/libonnxruntime.so"};
    CHECK(!rnnx_open(path, &options, &error) && failed_with(&error, "onnxruntime-missing"));
    free(data);
    rnnx_close(session);
}

/* ONNX Runtime would read them where the program runs. */
static void a_model_that_is_bytes_has_no_weights_beside_it(void)
{
    static const char *const names[] = {"weights-missing", "weights-above", "weights-elsewhere"};
    char path[4096];
    size_t size;
    rnnx_error error;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/faults/%s.onnx", folder, names[i]);
        void *data = rx_read_file(path, "a model", &size, &error);
        CHECK(data && !rnnx_open_bytes(data, size, NULL, &error));
        CHECK(failed_with(&error, "external-data-missing"));
        free(data);
    }
}

static void a_stream_keeps_its_session(void)
{
    rnnx_session *session = open_model("gru");
    rnnx_stream *one = open_stream(session, 1), *other = open_stream(session, 2);
    rnnx_close(session);
    float frame[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 4}, frame};
    CHECK(!rnnx_outputs(one) && !rnnx_output(one, "y"));
    CHECK(rnnx_step(one, &x, 1, NULL) && rnnx_position(one) == 1);
    CHECK(rnnx_output(one, "y")->rank == 2 && rnnx_output(one, "y")->shape[1] == 6 && !rnnx_output(one, "z"));
    x.shape[0] = 2;
    CHECK(rnnx_step(other, &x, 1, NULL) && rnnx_position(other) == 1);
    rnnx_tensor chunk = {"x", RNNX_FLOAT32, 3, {1, 2, 4}, frame};
    CHECK(rnnx_run(one, &chunk, 1, NULL) && rnnx_position(one) == 3 && rnnx_reset(one, NULL, 0, NULL));
    chunk.shape[1] = 1;
    CHECK(rnnx_run(one, &chunk, 1, NULL) && rnnx_position(one) == 1);
    CHECK(!memcmp(rnnx_output(one, "y")->data, rnnx_output(other, "y")->data, 6 * sizeof(float)));
    rnnx_stream_free(one);
    rnnx_stream_free(other);
    rnnx_close(NULL);
    rnnx_stream_free(NULL);
}

static void what_fails_changes_nothing(void)
{
    rnnx_session *session = open_model("gru");
    rnnx_stream *stream = open_stream(session, 1);
    rnnx_error error;
    float frame[4] = {1, 2, 3, 4}, before[6];
    rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 4}, frame};
    CHECK(rnnx_step(stream, &x, 1, &error));
    memcpy(before, rnnx_states(stream)[0].data, sizeof before);
    frame[1] = NAN;
    CHECK(!rnnx_step(stream, &x, 1, &error) && failed_with(&error, "non-finite"));
    frame[1] = 2;
    x.dtype = RNNX_INT64;
    CHECK(!rnnx_step(stream, &x, 1, &error) && failed_with(&error, "wrong-dtype"));
    x.dtype = RNNX_FLOAT32;
    CHECK(!rnnx_run(stream, &x, 1, &error) && failed_with(&error, "wrong-shape"));
    CHECK(strstr(error.text, "one axis less than a chunk"));
    rnnx_tensor none = {"x", RNNX_FLOAT32, 3, {1, 0, 4}, frame};
    CHECK(!rnnx_run(stream, &none, 1, &error) && failed_with(&error, "empty-time"));
    float nan_state[6] = {0, NAN}, good_state[6] = {1};
    rnnx_tensor states[] = {{"state.h", RNNX_FLOAT32, 3, {1, 1, 6}, good_state},
                            {"state.h", RNNX_FLOAT32, 3, {1, 1, 6}, nan_state}};
    CHECK(!rnnx_states_set(stream, states, 2, &error) && failed_with(&error, "non-finite"));
    CHECK(!memcmp(before, rnnx_states(stream)[0].data, sizeof before) && rnnx_position(stream) == 1);
    states[0].name = "h";
    CHECK(!rnnx_states_set(stream, states, 1, &error) && failed_with(&error, "unknown-state"));
    states[0].name = "state.h";
    states[0].shape[1] = 2;
    CHECK(!rnnx_states_set(stream, states, 1, &error) && failed_with(&error, "wrong-shape"));
    rnnx_stream_free(stream);
    rnnx_close(session);
}

/* A golden whose contract names no range any more, but a field that readers do not know. */
static rnnx_session *open_without_ranges(const char *name)
{
    char path[4096];
    size_t size;
    rnnx_error error = {.code = ""};
    snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    char *data = rx_read_file(path, "a model", &size, &error);
    CHECK(data);
    for (size_t i = 0; i + 7 <= size; i++)
        if (!memcmp(data + i, "\"range\"", 7))
            data[i + 1] = 'R';
    rnnx_session *session = rnnx_open_bytes(data, size, NULL, &error);
    CHECK(session);
    free(data);
    return session;
}

static void chunks_of_a_step_model_end_as_they_began_if_one_step_fails(void)
{
    rnnx_session *session = open_model("minus_infinity");
    rnnx_stream *stream = open_stream(session, 1);
    rnnx_error error;
    float frames[3 * 6] = {1, 2, 3, 4, 5, 6, 7};
    rnnx_tensor x = {"x", RNNX_FLOAT32, 3, {1, 3, 6}, frames};
    CHECK(isinf(((float *)rnnx_states(stream)[0].data)[0]));
    CHECK(rnnx_run(stream, &x, 1, &error) && rnnx_position(stream) == 3);
    CHECK(rnnx_outputs(stream)[0].rank == 3 && ((float *)rnnx_outputs(stream)[0].data)[6] == 7);
    frames[17] = INFINITY;
    CHECK(!rnnx_run(stream, &x, 1, &error) && failed_with(&error, "non-finite") &&
          rnnx_position(stream) == 3);
    rnnx_stream_free(stream);
    rnnx_close(session);

    session = open_without_ranges("counter"); /* whose graph stops at 10, in the middle of the chunk */
    stream = open_stream(session, 1);
    int64_t numbers[] = {1, 2, 1, 10}, before[10];
    rnnx_tensor good = {"x", RNNX_INT64, 2, {1, 3}, numbers}, bad = {"x", RNNX_INT64, 2, {1, 2}, numbers + 2};
    CHECK(rnnx_run(stream, &good, 1, &error) && ((int64_t *)rnnx_states(stream)[0].data)[1] == 2);
    memcpy(before, rnnx_states(stream)[0].data, sizeof before);
    CHECK(!rnnx_run(stream, &bad, 1, &error) && failed_with(&error, "engine-failed"));
    CHECK(!memcmp(before, rnnx_states(stream)[0].data, sizeof before) && rnnx_position(stream) == 3);
    rnnx_stream_free(stream);
    rnnx_close(session);
}

static void rows_are_reset_alone(void)
{
    rnnx_session *session = open_model("learned_start");
    rnnx_stream *stream = open_stream(session, 3);
    rnnx_error error;
    float frame[18], start[24], now[24];
    for (int i = 0; i < 18; i++)
        frame[i] = (float)i / 9;
    rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {3, 6}, frame};
    memcpy(start, rnnx_states(stream)[0].data, sizeof start);
    CHECK(rnnx_step(stream, &x, 1, &error));
    memcpy(now, rnnx_states(stream)[0].data, sizeof now);
    const int64_t rows[] = {2, 0, 2}, wrong[] = {0, 3};
    CHECK(!rnnx_reset(stream, wrong, 2, &error) && failed_with(&error, "row-range"));
    CHECK(!memcmp(rnnx_states(stream)[0].data, now, sizeof now));
    CHECK(rnnx_reset(stream, rows, 3, &error) && rnnx_position(stream) == 1);
    const float *after = rnnx_states(stream)[0].data;
    CHECK(!memcmp(after, start, 8 * sizeof(float)) && !memcmp(after + 16, start + 16, 8 * sizeof(float)));
    CHECK(!memcmp(after + 8, now + 8, 8 * sizeof(float)));
    CHECK(rnnx_reset(stream, NULL, 0, &error) && rnnx_position(stream) == 0);
    CHECK(!memcmp(rnnx_states(stream)[0].data, start, sizeof start));
    rnnx_stream_free(stream);
    rnnx_close(session);

    session = open_model("step_length"); /* whose state `calls` all rows share */
    stream = open_stream(session, 2);
    const int64_t one[] = {1, 1}, both[] = {1, 0};
    CHECK(!rnnx_reset(stream, one, 1, &error) && failed_with(&error, "shared-state"));
    CHECK(!rnnx_reset(stream, one, 2, &error) && failed_with(&error, "shared-state"));
    CHECK(rnnx_reset(stream, both, 2, &error) && rnnx_reset(stream, one, 0, &error));
    rnnx_stream_free(stream);
    rnnx_close(session);
}

static void streams_open_with_sizes_and_starts(void)
{
    rnnx_session *session = open_model("free_dimension");
    rnnx_error error;
    rnnx_size memory = {"memory", 3}, wrong = {"memory", 0}, other = {"width", 3};
    float start[3] = {1, INFINITY, 3}, x_data[4] = {0}, memory_data[12] = {0};
    rnnx_tensor seen = {"seen", RNNX_FLOAT32, 2, {1, 3}, start};
    rnnx_stream_options options = {.dims = &wrong, .dim_count = 1};
    CHECK(!rnnx_stream_open(session, NULL, &error) && failed_with(&error, "missing-dimension"));
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "wrong-dimension"));
    options.dims = &other;
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "unknown-dimension"));
    rnnx_size large = {"memory", INT64_MAX};
    options.dims = &large;
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "out-of-memory"));
    large.size = INT64_MAX / 8;
    options.batch = 64;
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "out-of-memory"));
    options.dims = &memory;
    options.batch = -1;
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "empty-batch"));
    options.batch = 1;
    options.initial = &seen;
    options.initial_count = 1;
    rnnx_stream *stream = rnnx_stream_open(session, &options, &error);
    CHECK(stream && isinf(((float *)rnnx_states(stream)[0].data)[1]));
    rnnx_tensor inputs[] = {{"memory", RNNX_FLOAT32, 3, {1, 3, 4}, memory_data},
                            {"x", RNNX_FLOAT32, 2, {1, 4}, x_data}};
    CHECK(rnnx_step(stream, inputs, 2, &error) && rnnx_outputs(stream)[0].shape[1] == 3);
    inputs[0].shape[1] = 2; /* the stream was opened with 3 */
    CHECK(!rnnx_step(stream, inputs, 2, &error) && failed_with(&error, "wrong-shape"));
    CHECK(rnnx_reset(stream, NULL, 0, &error) && ((float *)rnnx_states(stream)[0].data)[0] == 1);
    rnnx_stream_free(stream);
    rnnx_close(session);

    session = open_model("no_batch");
    options = (rnnx_stream_options){.batch = 2};
    CHECK(!rnnx_stream_open(session, &options, &error) && failed_with(&error, "no-batch"));
    rnnx_close(session);
}

static void whole_only_models_take_one_call(void)
{
    rnnx_session *session = open_model("whole_only");
    rnnx_stream *stream = open_stream(session, 1);
    rnnx_error error;
    float frames[4] = {1, 2, 3, 4};
    rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 4}, frames};
    CHECK(rnnx_run(stream, &x, 1, &error) && ((float *)rnnx_outputs(stream)[0].data)[0] == 10);
    CHECK(!rnnx_run(stream, &x, 1, &error) && failed_with(&error, "whole-only"));
    CHECK(strstr(error.text, "a sum that runs backwards in time; found a second call"));
    CHECK(rnnx_reset(stream, NULL, 0, &error) && rnnx_run(stream, &x, 1, &error));
    rnnx_stream_free(stream);
    rnnx_close(session);
}

/* Draws `count` symbols into `text`, each step's scores being drawn from before the step. */
static void write_text(const rnnx_contract *contract, rnnx_stream *stream, rnnx_sampler *sampler,
                       rnnx_tensor scores, int count, size_t *text)
{
    for (int i = 0; i < count; i++) {
        int64_t id;
        rnnx_tensor token = {"token", RNNX_INT64, 1, {1}, &id};
        CHECK(rnnx_sample(sampler, &scores, contract->symbol_count, &text[i], NULL));
        id = (int64_t)text[i];
        CHECK(rnnx_step(stream, &token, 1, NULL));
        scores = rnnx_outputs(stream)[0];
    }
}

static void a_snapshot_continues_the_text(void)
{
    rnnx_session *session = open_model("characters");
    rnnx_stream *stream = open_stream(session, 1), *later = open_stream(session, 1);
    rnnx_error error;
    int64_t id = 3;
    rnnx_tensor token = {"token", RNNX_INT64, 1, {1}, &id};
    rnnx_sampler sampler = {7, 0.8}, again;
    size_t size, first[20], second[20];
    CHECK(rnnx_step(stream, &token, 1, &error));
    rnnx_tensor scores = rnnx_outputs(stream)[0];
    rnnx_sampling given = {&sampler.state, &sampler.temperature, scores}, found;
    void *bytes = rnnx_snapshot(stream, &given, &size, &error);
    CHECK(bytes);
    write_text(rnnx_session_contract(session), stream, &sampler, scores, 20, first);
    CHECK(rnnx_restore(later, bytes, size, &found, &error) && rnnx_position(later) == 1);
    again = (rnnx_sampler){*found.generator, *found.temperature};
    CHECK(again.state == 7 && again.temperature == 0.8);
    write_text(rnnx_session_contract(session), later, &again, found.scores, 20, second);
    CHECK(!memcmp(first, second, sizeof first));
    for (size_t cut = 0; cut < size; cut++) { /* nothing short of the whole is taken */
        char *part = malloc(cut + 1);
        CHECK(part);
        memcpy(part, bytes, cut);
        CHECK(!rnnx_restore(later, part, cut, NULL, &error) && failed_with(&error, "not-safetensors"));
        free(part);
    }
    CHECK(rnnx_position(later) == 21);
    rnnx_free(bytes);
    rnnx_stream_free(stream);
    rnnx_stream_free(later);
    rnnx_close(session);
}

static void a_closed_stream_stays_closed(void)
{
    rnnx_session *session = open_model("gru");
    rnnx_stream *stream = open_stream(session, 1);
    rnnx_error error;
    size_t size;
    CHECK(rnnx_stream_close(stream, &error) && rnnx_stream_close(stream, &error));
    CHECK(!rnnx_states(stream) && !rnnx_outputs(stream));
    CHECK(!rnnx_step(stream, NULL, 0, &error) && failed_with(&error, "stream-closed"));
    CHECK(!rnnx_run(stream, NULL, 0, &error) && failed_with(&error, "stream-closed"));
    CHECK(!rnnx_reset(stream, NULL, 0, &error) && failed_with(&error, "stream-closed"));
    CHECK(!rnnx_snapshot(stream, NULL, &size, &error) && failed_with(&error, "stream-closed"));
    CHECK(!rnnx_restore(stream, "", 0, NULL, &error) && failed_with(&error, "stream-closed"));
    CHECK(!rnnx_states_set(stream, NULL, 0, &error) && failed_with(&error, "stream-closed"));
    rnnx_stream_free(stream);
    rnnx_close(session);
}

/* Spoils bytes of the contract within a model; memory checkers watch. What opens all the same is used. */
static void damaged_contracts_do_no_harm(int rounds)
{
    static const char *const models[] = {"gru", "characters", "default_and_length", "free_dimension"};
    rnnx_sampler random = {5, 1};
    for (int round = 0; round < rounds; round++) {
        char path[4096];
        size_t size, begin = 0;
        rnnx_error error = {.code = ""};
        snprintf(path, sizeof path, "%s/%s.onnx", folder, models[round % 4]);
        char *data = rx_read_file(path, "a model", &size, &error);
        CHECK(data);
        while (memcmp(data + begin, "{\"format\"", 9) != 0)
            begin++;
        for (uint64_t i = 0; i <= rnnx_next(&random) % 3; i++)
            data[begin + rnnx_next(&random) % (size - begin)] = (char)(32 + rnnx_next(&random) % 95);
        rnnx_session *session = rnnx_open_bytes(data, size, NULL, &error);
        CHECK(session || *error.code);
        rnnx_stream *stream = session ? rnnx_stream_open(session, NULL, &error) : NULL;
        float frame[4] = {0};
        rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 4}, frame};
        if (stream && !rnnx_step(stream, &x, 1, &error))
            rnnx_run(stream, &x, 1, &error);
        rnnx_stream_free(stream);
        rnnx_close(session);
        free(data);
    }
}

static long resident_kilobytes(void)
{
    long pages = 0, ignored;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        CHECK(fscanf(file, "%ld %ld", &ignored, &pages) == 2);
        fclose(file);
    }
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

/* A step, and a chunk, allocate nothing, as long as sizes stay; and memory stays flat. */
static void steps_allocate_nothing(long steps)
{
    static const char *const models[] = {"gru", "minus_infinity", "default_and_length"};
    for (size_t model = 0; model < 3; model++) {
        rnnx_session *session = open_model(models[model]);
        rnnx_stream *stream = open_stream(session, 1);
        float frames[5 * 6] = {0.5f, -1, 0.25f};
        int64_t features = rnnx_session_contract(session)->inputs[0].shape[model == 1 ? 1 : 2].factor;
        rnnx_tensor step = {"x", RNNX_FLOAT32, 2, {1, features}, frames};
        rnnx_tensor chunk = {"x", RNNX_FLOAT32, 3, {1, 5, features}, frames};
        CHECK(rnnx_step(stream, &step, 1, NULL) && rnnx_run(stream, &chunk, 1, NULL));
        for (int i = 0; i < 1000; i++)
            CHECK(rnnx_step(stream, &step, 1, NULL));
        long before = allocations, kilobytes = resident_kilobytes();
        for (long i = 0; i < steps; i++)
            CHECK(rnnx_step(stream, &step, 1, NULL) && (i % 10 || rnnx_run(stream, &chunk, 1, NULL)));
        CHECK(allocations == before);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed, to see it used again */
        CHECK(resident_kilobytes() - kilobytes < 1024);
#else
        (void)kilobytes;
#endif
        chunk.shape[1] = 4; /* another size does allocate, so the counter counts */
        CHECK(rnnx_run(stream, &chunk, 1, NULL) && (model == 1 || allocations > before));
        rnnx_stream_free(stream);
        rnnx_close(session);
    }
}

int main(int count, char **arguments)
{
    CHECK(count > 1);
    folder = arguments[1];
    a_model_opens_from_bytes();
    a_model_that_is_bytes_has_no_weights_beside_it();
    a_stream_keeps_its_session();
    what_fails_changes_nothing();
    chunks_of_a_step_model_end_as_they_began_if_one_step_fails();
    rows_are_reset_alone();
    streams_open_with_sizes_and_starts();
    whole_only_models_take_one_call();
    a_snapshot_continues_the_text();
    a_closed_stream_stays_closed();
    damaged_contracts_do_no_harm(400);
    steps_allocate_nothing(count > 2 ? atol(arguments[2]) : 1000);
    puts("streams: all good");
    return 0;
}
