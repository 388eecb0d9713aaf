/* Pools on the golden models: what replay does not reach. The argument is their folder. */
#include "check.h"
#include "rnnx.h"

#include <string.h>

static const char *folder;

static rnnx_session *open_model(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    rnnx_session *session = rnnx_open(path, NULL, NULL);
    CHECK(session);
    return session;
}

static rnnx_tensor frame(const char *name, float *values)
{
    return (rnnx_tensor){.name = name, .dtype = RNNX_FLOAT32, .rank = 2, .shape = {1, 4}, .data = values};
}

/* Steps two streams together; the error's code, "" for none. */
static const char *together(rnnx_pool *pool, rnnx_stream *first, rnnx_stream *second, const rnnx_tensor *one,
                            const rnnx_tensor *other)
{
    static rnnx_error error;
    rnnx_stream *streams[] = {first, second};
    const rnnx_tensor *inputs[] = {one, other};
    size_t counts[] = {1, 1};
    error = (rnnx_error){.code = ""};
    rnnx_pool_step(pool, streams, inputs, counts, 2, &error);
    return error.code;
}

static void what_is_refused_moves_no_stream(void)
{
    float values[4] = {1, 2, 3, 4}, others[8] = {4, 3, 2, 1};
    rnnx_tensor x = frame("x", values), z = frame("z", values), two = frame("x", others);
    rnnx_session *session = open_model("gru"), *other = open_model("gru");
    rnnx_stream_options wide = {.batch = 2};
    rnnx_stream *first = rnnx_stream_open(session, NULL, NULL), *second = rnnx_stream_open(session, NULL, NULL);
    rnnx_stream *alien = rnnx_stream_open(other, NULL, NULL), *pair = rnnx_stream_open(session, &wide, NULL);
    rnnx_pool *pool = rnnx_pool_open(session, NULL);
    CHECK(first && second && alien && pair && pool);
    CHECK(!strcmp(together(pool, first, first, &x, &x), "streams-disagree"));
    CHECK(!strcmp(together(pool, first, alien, &x, &x), "streams-disagree"));
    CHECK(!strcmp(together(pool, first, pair, &x, &x), "streams-disagree"));
    CHECK(!strcmp(together(pool, first, second, &x, &z), "unknown-input"));
    CHECK(rnnx_position(first) == 0 && !rnnx_outputs(first));
    CHECK(!strcmp(together(pool, first, second, &x, &two), ""));
    CHECK(rnnx_position(first) == 1 && rnnx_position(second) == 1);
    rnnx_error error;
    CHECK(rnnx_pool_step(pool, NULL, NULL, NULL, 0, &error)); /* no stream: nothing to do */
    CHECK(rnnx_stream_close(second, NULL));
    CHECK(!strcmp(together(pool, first, second, &x, &two), "stream-closed"));
    CHECK(rnnx_step(first, &x, 1, NULL)); /* it was let go */
    rnnx_stream_free(first);
    rnnx_stream_free(second);
    rnnx_stream_free(alien);
    rnnx_stream_free(pair);
    rnnx_close(session);
    rnnx_close(other);
    rnnx_pool_free(pool);
    rnnx_pool_free(NULL);
}

/* More sizes of batches than a pool keeps the buffers of; a pooled stream goes on alone, from a snapshot too. */
static void streams_come_and_go(void)
{
    enum { MOST = 40 };
    float values[MOST][4];
    rnnx_tensor x[MOST];
    rnnx_stream *streams[MOST], *alone[MOST];
    const rnnx_tensor *inputs[MOST];
    size_t counts[MOST];
    rnnx_session *session = open_model("gru");
    rnnx_pool *pool = rnnx_pool_open(session, NULL);
    for (int i = 0; i < MOST; i++) {
        for (int at = 0; at < 4; at++)
            values[i][at] = (float)((i * 31 + at * 7) % 19) / 9.5F - 1;
        x[i] = frame("x", values[i]);
        inputs[i] = &x[i];
        counts[i] = 1;
        CHECK((streams[i] = rnnx_stream_open(session, NULL, NULL)));
        CHECK((alone[i] = rnnx_stream_open(session, NULL, NULL)));
    }
    for (size_t count = MOST; count >= 1; count--) {
        CHECK(rnnx_pool_step(pool, streams, inputs, counts, count, NULL));
        for (size_t i = 0; i < count; i++)
            CHECK(rnnx_step(alone[i], &x[i], 1, NULL));
    }
    for (int i = 0; i < MOST; i++) {
        size_t size;
        void *saved = rnnx_snapshot(streams[i], NULL, &size, NULL);
        CHECK(saved && rnnx_position(streams[i]) == rnnx_position(alone[i]));
        CHECK(rnnx_step(alone[i], &x[i], 1, NULL) && rnnx_restore(streams[MOST - 1 - i], saved, size, NULL, NULL));
        CHECK(rnnx_step(streams[MOST - 1 - i], &x[i], 1, NULL));
        const float *got = rnnx_output(streams[MOST - 1 - i], "y")->data, *wanted = rnnx_output(alone[i], "y")->data;
        for (int at = 0; at < 6; at++)
            CHECK(got[at] - wanted[at] < 1e-5F && wanted[at] - got[at] < 1e-5F);
        rnnx_free(saved);
        if (i >= MOST / 2 - 1)
            break; /* the others hold restored states by now */
    }
    for (int i = 0; i < MOST; i++) {
        rnnx_stream_free(streams[i]);
        rnnx_stream_free(alone[i]);
    }
    rnnx_pool_free(pool);
    rnnx_close(session);
}

int main(int count, char **arguments)
{
    folder = count > 1 ? arguments[1] : ".";
    what_is_refused_moves_no_stream();
    streams_come_and_go();
    return 0;
}
