/* The conformance program of C, as docs/conformance.md says. Exit codes: 0 fine, 1 a trace disagrees, 2 an
 * error. */
#define _POSIX_C_SOURCE 200809L
#include "../src/replay.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WORDS = 2, ATTEMPTS = 1000000 };

typedef struct options {
    const char *words[MOST_WORDS]; /* model and trace */
    int word_count;
    const char *chunks, *entries, *provider, *feed, *together, *misuse, *restore, *snapshot, *text, *draw;
    long long times, after, length, count, omit;
    double temperature;
    uint64_t seed;
    bool json, flush;
} options;

/* -- Printing */

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            putchar(*text);
    }
    putchar('"');
}

static void print_number(rnnx_dtype dtype, const void *data, size_t index)
{
    if (!rx_dtype_is_float(dtype)) {
        if (dtype == RNNX_UINT64)
            printf("%llu", (unsigned long long)((const uint64_t *)data)[index]);
        else
            printf("%lld", (long long)rx_integer_at(dtype, data, index));
        return;
    }
    double number = rx_value_at(dtype, data, index);
    if (isfinite(number))
        printf("%.17g", number);
    else
        printf("\"%s\"", isnan(number) ? "nan" : number > 0 ? "inf" : "-inf");
}

static int report(const options *given, const rnnx_error *error)
{
    if (given->json) {
        printf("{\"error\": {\"code\": ");
        print_string(error->code);
        printf(", \"text\": ");
        print_string(error->text);
        printf("}}\n");
    } else {
        fprintf(stderr, "error[%s]: %s\n", error->code, error->text);
    }
    return 2;
}

/* A number of a verdict: what is no number in JSON is text there. */
static void print_told(const char *number, bool as_json)
{
    bool odd = strchr(number, 'n') != NULL; /* nan, inf, -inf */
    printf(odd && as_json ? "\"%s\"" : "%s", number);
}

static int print_verdict(const rnnx_verdict *told, const options *given)
{
    if (given->json)
        printf("{\"agrees\": %s, \"steps\": %lld, \"calls\": %lld, \"max_error\": %.17g, \"failure\": ",
               told->agrees ? "true" : "false", (long long)told->steps, (long long)told->calls,
               told->max_error);
    else
        printf("%s: %lld steps in %lld calls, largest error %.2g%s", told->agrees ? "agrees" : "disagrees",
               (long long)told->steps, (long long)told->calls, told->max_error, told->agrees ? "\n" : "; ");
    if (told->agrees) {
        printf(given->json ? "null}\n" : "");
        return 0;
    }
    printf(given->json ? "{\"tensor\": " : "");
    print_string(told->tensor);
    printf(given->json ? ", \"step\": %lld, \"index\": [" : " at step %lld, index [", (long long)told->step);
    for (int axis = 0; axis < told->rank; axis++)
        printf("%s%lld", axis ? ", " : "", (long long)told->index[axis]);
    printf(given->json ? "], \"expected\": " : "]: expected ");
    print_told(told->expected, given->json);
    printf(given->json ? ", \"got\": " : ", got ");
    print_told(told->got, given->json);
    printf(given->json ? "}}\n" : "\n");
    return 1;
}

/* -- What the program can do */

static int do_trace(rnnx_session *session, const options *given, rnnx_error *error)
{
    recording recorded;
    replay run;
    int code = 2;
    if (!rx_trace_read(&recorded, given->words[1], rnnx_session_contract(session), error))
        return 2;
    bool good = rx_replay_begin(&run, session, &recorded, error);
    if (good && given->entries)
        good = rx_replay_blocks(&run, given->entries, given->omit, error);
    else if (good)
        good = rx_replay_all(&run, given->chunks, error);
    if (good)
        code = print_verdict(&run.verdict, given);
    rnnx_stream_free(run.stream);
    rx_trace_free(&recorded);
    return code;
}

static bool write_file(const char *path, const void *data, size_t size, rnnx_error *error)
{
    FILE *file = fopen(path, "wb");
    bool good = file && fwrite(data, 1, size, file) == size;
    if (file)
        good = fclose(file) == 0 && good;
    return good || rx_fail(error, "cannot-write",
                           "expected to write %s; found an error; fix: choose another place", path);
}

static bool snapshot_after(replay *run, const options *given, rnnx_error *error)
{
    size_t size;
    if (given->after < 0 || given->after > run->trace->steps)
        return rx_fail(error, "usage",
                       "expected steps of the trace; found %lld; fix: see docs/conformance.md", given->after);
    if (!rx_replay_to_start(run, error))
        return false;
    for (int64_t step = 0; step < given->after; step++)
        if (!rx_replay_call(run, step, step + 1, true, error))
            return false;
    void *bytes = rnnx_snapshot(run->stream, NULL, &size, error);
    bool good = bytes && write_file(given->snapshot, bytes, size, error);
    rnnx_free(bytes);
    if (good)
        printf(given->json ? "{\"position\": %llu}\n" : "position %llu\n",
               (unsigned long long)rnnx_position(run->stream));
    return good;
}

static int do_snapshot(rnnx_session *session, const options *given, rnnx_error *error)
{
    recording recorded;
    replay run;
    if (!rx_trace_read(&recorded, given->words[1], rnnx_session_contract(session), error))
        return 2;
    bool good = rx_replay_begin(&run, session, &recorded, error) && snapshot_after(&run, given, error);
    rnnx_stream_free(run.stream);
    rx_trace_free(&recorded);
    return good ? 0 : 2;
}

static int do_restore(rnnx_session *session, const options *given, rnnx_error *error)
{
    size_t size;
    void *data = rx_read_file(given->restore, "a snapshot", &size, error);
    rnnx_stream *stream = data ? rnnx_stream_open(session, NULL, error) : NULL;
    bool good = stream && rnnx_restore(stream, data, size, NULL, error);
    if (good)
        printf(given->json ? "{\"position\": %llu}\n" : "position %llu\n",
               (unsigned long long)rnnx_position(stream));
    rnnx_stream_free(stream);
    free(data);
    return good ? 0 : 2;
}

static void print_outputs(const rnnx_stream *stream, const rnnx_contract *contract, bool as_json)
{
    const rnnx_tensor *outputs = rnnx_outputs(stream);
    printf(as_json ? "{\"outputs\": {" : "");
    for (size_t i = 0; i < contract->output_count; i++) {
        printf(i && as_json ? ", " : "");
        print_string(outputs[i].name);
        printf(as_json ? ": [" : " [");
        for (size_t at = 0; at < rx_count_of(outputs[i].rank, outputs[i].shape); at++) {
            printf(at ? ", " : "");
            print_number(outputs[i].dtype, outputs[i].data, at);
        }
        printf(as_json ? "]" : "]\n");
    }
    printf(as_json ? "}}\n" : "");
}

static bool do_steps(rnnx_stream *stream, const tensor_file *inputs, long long times, rnnx_error *error)
{
    for (long long i = 0; i < times; i++)
        if (!rnnx_step(stream, inputs->tensors, inputs->count, error))
            return false;
    return true;
}

typedef struct rival {
    rnnx_stream *stream;
    const tensor_file *inputs;
    atomic_bool *done;
    rnnx_error error;
    bool refused;
} rival;

static void *step_on(void *argument)
{
    rival *own = argument;
    for (int i = 0; i < ATTEMPTS && !atomic_load(own->done); i++) {
        if (rnnx_step(own->stream, own->inputs->tensors, own->inputs->count, &own->error))
            continue;
        own->refused = true;
        atomic_store(own->done, true);
    }
    return NULL;
}

/* Steps one stream from two threads at once until one is refused; false, and its error, then. */
static bool do_threads(rnnx_stream *stream, const tensor_file *inputs, rnnx_error *error)
{
    atomic_bool done = false;
    pthread_t threads[2];
    rival rivals[2] = {{.stream = stream, .inputs = inputs, .done = &done},
                       {.stream = stream, .inputs = inputs, .done = &done}};
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, step_on, &rivals[i]) != 0)
            abort();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        if (rivals[i].refused)
            return *error = rivals[i].error, false;
    return true;
}

static int do_feed(rnnx_session *session, const options *given, rnnx_error *error)
{
    tensor_file inputs = {.count = 0};
    size_t size;
    void *data = given->feed ? rx_read_file(given->feed, "a feed", &size, error) : NULL;
    bool good = !given->feed || (data && rx_tensor_file_read(&inputs, data, size, "a feed", error));
    free(data);
    rnnx_stream *stream = good ? rnnx_stream_open(session, NULL, error) : NULL;
    good = stream != NULL;
    if (good && given->misuse && strcmp(given->misuse, "closed") == 0)
        good = rnnx_stream_close(stream, error) && do_steps(stream, &inputs, 1, error);
    else if (good && given->misuse && strcmp(given->misuse, "part") == 0)
        good = rnnx_run(stream, inputs.tensors, inputs.count, error);
    else if (good && given->misuse && strcmp(given->misuse, "waiting") == 0)
        good = rnnx_feed(stream, inputs.tensors, inputs.count, error) && do_steps(stream, &inputs, 1, error);
    else if (good && given->misuse)
        good = do_threads(stream, &inputs, error);
    else if ((good = good && do_steps(stream, &inputs, given->times, error) &&
                     (!given->flush || rnnx_flush(stream, error))))
        print_outputs(stream, rnnx_session_contract(session), given->json);
    rnnx_stream_free(stream);
    rx_tensor_file_free(&inputs);
    return good ? 0 : 2;
}

/* The streams that step as one batch, each with the inputs of a file of its own. */
typedef struct choir {
    size_t most, count; /* files, and those that were read */
    rnnx_stream **streams;
    tensor_file *inputs;
} choir;

static bool open_all(choir *all, rnnx_session *session, const char *paths, rnnx_error *error)
{
    all->most = 1;
    for (const char *at = paths; *at; at++)
        all->most += *at == ',';
    all->streams = calloc(all->most, sizeof(rnnx_stream *));
    all->inputs = calloc(all->most, sizeof *all->inputs);
    if (!all->streams || !all->inputs)
        abort();
    for (; all->count < all->most; all->count++) {
        char path[1024];
        size_t length = strcspn(paths, ","), size;
        snprintf(path, sizeof path, "%.*s", (int)length, paths);
        paths += length + (paths[length] == ',');
        void *data = rx_read_file(path, "a feed", &size, error);
        bool good = data && rx_tensor_file_read(&all->inputs[all->count], data, size, "a feed", error);
        free(data);
        if (!good || !(all->streams[all->count] = rnnx_stream_open(session, NULL, error)))
            return false;
    }
    return true;
}

static bool step_together(const choir *all, rnnx_pool *pool, long long times, rnnx_error *error)
{
    rnnx_stream **streams = calloc(all->count, sizeof(rnnx_stream *));
    const rnnx_tensor **inputs = calloc(all->count, sizeof *inputs);
    size_t *counts = calloc(all->count, sizeof *counts);
    bool good = true;
    if (!streams || !inputs || !counts)
        abort();
    for (size_t turn = 0; good && turn < (size_t)times; turn++) {
        size_t taking = 0;
        for (size_t place = 0; place < all->count && place <= turn; place++) {
            if ((turn + place) % 3 == 2)
                continue;
            streams[taking] = all->streams[place];
            inputs[taking] = all->inputs[place].tensors;
            counts[taking++] = all->inputs[place].count;
        }
        good = rnnx_pool_step(pool, streams, inputs, counts, taking, error);
    }
    free(streams);
    free(inputs);
    free(counts);
    return good;
}

static int do_together(rnnx_session *session, const options *given, rnnx_error *error)
{
    choir all = {.count = 0};
    rnnx_pool *pool = rnnx_pool_open(session, error);
    bool good = pool && open_all(&all, session, given->together, error) &&
                step_together(&all, pool, given->times, error);
    printf(good && given->json ? "{\"streams\": [" : "");
    for (size_t place = 0; good && place < all.count; place++) {
        printf(given->json && place ? ", " : "");
        print_outputs(all.streams[place], rnnx_session_contract(session), given->json);
    }
    printf(good && given->json ? "]}\n" : "");
    rnnx_pool_free(pool);
    for (size_t place = 0; place < all.most; place++) {
        rnnx_stream_free(all.streams[place]);
        rx_tensor_file_free(&all.inputs[place]);
    }
    free(all.streams);
    free(all.inputs);
    return good ? 0 : 2;
}

/* Runs ids through the model: a prompt as a chunk, or one symbol as a step. */
static bool read_ids(rnnx_stream *stream, const rnnx_contract *contract, int64_t *ids, size_t count,
                     bool stepped, rnnx_error *error)
{
    const rnnx_spec *spec = &contract->inputs[contract->vocabulary_input];
    rnnx_dim shape[RNNX_MAX_RANK];
    rnnx_tensor token = {.name = spec->name, .dtype = RNNX_INT64, .data = ids};
    token.rank = rx_caller_shape(contract, spec, !stepped, shape);
    for (int axis = 0; axis < token.rank; axis++)
        token.shape[axis] = shape[axis].index == TIME ? (int64_t)count : 1;
    return (stepped ? rnnx_step : rnnx_run)(stream, &token, 1, error);
}

static bool write_text(rnnx_stream *stream, const rnnx_contract *contract, const options *given, int64_t *ids,
                       rnnx_error *error)
{
    rnnx_sampler sampler = {given->seed, given->temperature};
    size_t count, drawn;
    char symbol[5];
    if (!rnnx_encode(contract, given->text, strlen(given->text), ids, &count, error))
        return false;
    if (!count)
        return rx_fail(error, "prompt-empty",
                       "expected a prompt of at least one character; found none; fix: give the characters "
                       "the text should begin with");
    if (!read_ids(stream, contract, ids, count, false, error))
        return false;
    char *text = calloc((size_t)given->length * 4 + 1, 1), *to = text;
    bool good = text || rx_fail_memory(error);
    for (long long i = 0; good && i < given->length; i++) {
        const rnnx_tensor *scores = &rnnx_outputs(stream)[contract->vocabulary_output];
        good = rnnx_sample(&sampler, scores, contract->symbol_count, &drawn, error) &&
               rnnx_decode(contract, (int64_t)drawn, symbol, error);
        ids[0] = (int64_t)drawn;
        good = good && read_ids(stream, contract, ids, 1, true, error);
        if (good)
            to = (char *)memcpy(to, symbol, strlen(symbol)) + strlen(symbol);
    }
    if (good && given->json) {
        printf("{\"text\": ");
        print_string(text);
        printf("}\n");
    } else if (good) {
        puts(text);
    }
    free(text);
    return good;
}

static int do_text(rnnx_session *session, const options *given, rnnx_error *error)
{
    int64_t *ids = malloc((strlen(given->text) + 1) * sizeof *ids);
    rnnx_stream *stream = ids ? rnnx_stream_open(session, NULL, error) : NULL;
    bool good = stream && write_text(stream, rnnx_session_contract(session), given, ids, error);
    rnnx_stream_free(stream);
    free(ids);
    return good ? 0 : 2;
}

static int do_draw(const options *given, rnnx_error *error)
{
    double *weights = malloc((strlen(given->draw) + 1) * sizeof *weights);
    rnnx_sampler sampler = {given->seed, 1};
    size_t count = 0, drawn;
    bool good = weights || rx_fail_memory(error);
    for (char *at = (char *)given->draw; good && *at; at += *at == ',')
        weights[count++] = strtod(at, &at);
    for (long long i = 0; good && i < given->count; i++) {
        good = rnnx_sample_weights(&sampler, weights, count, &drawn, error);
        if (good)
            printf("%s%zu", i ? (given->json ? ", " : " ") : given->json ? "{\"draws\": [" : "", drawn);
    }
    if (good)
        printf(given->json ? "]}\n" : "\n");
    free(weights);
    return good ? 0 : 2;
}

static int do_model(const options *given, rnnx_error *error)
{
    rnnx_options how = {.provider = given->provider};
    rnnx_session *session = rnnx_open(given->words[0], &how, error);
    int code = 2;
    if (!session)
        return 2;
    if (given->together)
        code = do_together(session, given, error);
    else if (given->misuse || given->feed)
        code = do_feed(session, given, error);
    else if (given->restore)
        code = do_restore(session, given, error);
    else if (given->text)
        code = do_text(session, given, error);
    else if (given->word_count < 2)
        rx_fail(error, "usage",
                "expected a trace, or one of --feed, --together, --misuse, --restore, --text; found none; fix: see "
                "docs/conformance.md");
    else if (given->snapshot)
        code = do_snapshot(session, given, error);
    else
        code = do_trace(session, given, error);
    rnnx_close(session);
    return code;
}

/* -- Arguments */

static bool wrong_usage(const char *found, rnnx_error *error)
{
    return rx_fail(error, "usage",
                   "expected arguments as docs/conformance.md has them; found %s; fix: see there", found);
}

/* Lengths of chunks are numbers with commas between them. */
static bool are_chunks(const char *text)
{
    while (isdigit((unsigned char)*text)) {
        text += strspn(text, "0123456789");
        if (!*text)
            return true;
        if (*text++ != ',')
            return false;
    }
    return false;
}

static bool parse(options *given, int count, char **arguments, rnnx_error *error)
{
    const char *times = "1", *after = "0", *length = "0", *draws = "1", *temperature = "1", *seed = "0",
               *omit = "0";
    const struct {
        const char *name, **value;
    } known[] = {
        {"--chunks", &given->chunks},
        {"--entries", &given->entries},
        {"--omit", &omit},
        {"--provider", &given->provider},
        {"--feed", &given->feed},
        {"--together", &given->together},
        {"--misuse", &given->misuse},
        {"--restore", &given->restore},
        {"--snapshot", &given->snapshot},
        {"--text", &given->text},
        {"--draw", &given->draw},
        {"--times", &times},
        {"--after", &after},
        {"--length", &length},
        {"--count", &draws},
        {"--temperature", &temperature},
        {"--seed", &seed},
    };
    *given = (options){.chunks = "1", .provider = "cpu"};
    for (int i = 1; i < count; i++)
        given->json |= strcmp(arguments[i], "--json") == 0;
    for (int i = 1; i < count; i++) {
        size_t option = 0;
        given->flush |= strcmp(arguments[i], "--flush") == 0;
        if (strcmp(arguments[i], "--json") == 0 || strcmp(arguments[i], "--flush") == 0)
            continue;
        while (option < sizeof known / sizeof *known && strcmp(arguments[i], known[option].name) != 0)
            option++;
        if (option < sizeof known / sizeof *known && i + 1 < count)
            *known[option].value = arguments[++i];
        else if (arguments[i][0] == '-' || given->word_count == MOST_WORDS)
            return wrong_usage(arguments[i], error);
        else
            given->words[given->word_count++] = arguments[i];
    }
    given->times = strtoll(times, NULL, 10);
    given->after = strtoll(after, NULL, 10);
    given->length = strtoll(length, NULL, 10);
    given->count = strtoll(draws, NULL, 10);
    given->temperature = strtod(temperature, NULL);
    given->seed = strtoull(seed, NULL, 10);
    given->omit = strtoll(omit, NULL, 10);
    if (!are_chunks(given->chunks) || (given->entries && !are_chunks(given->entries)))
        return wrong_usage(given->chunks, error);
    if (given->misuse && strcmp(given->misuse, "closed") != 0 && strcmp(given->misuse, "threads") != 0 &&
        strcmp(given->misuse, "waiting") != 0 && strcmp(given->misuse, "part") != 0)
        return wrong_usage(given->misuse, error);
    return given->draw || given->word_count || wrong_usage("no model", error);
}

int main(int count, char **arguments)
{
    options given;
    rnnx_error error = {.code = ""};
    int code = 2;
    if (parse(&given, count, arguments, &error))
        code = given.draw ? do_draw(&given, &error) : do_model(&given, &error);
    if (*error.code)
        report(&given, &error);
    return code;
}
