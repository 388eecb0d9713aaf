/* Steps a model and prints what comes out, a line for each step. */
#include <rnnx.h>

#include <stdio.h>

int main(int count, char **arguments)
{
    rnnx_error error = {.code = ""};
    float frame[4];
    rnnx_tensor x = {"x", RNNX_FLOAT32, 2, {1, 4}, frame};
    rnnx_session *session = rnnx_open(count > 1 ? arguments[1] : "", NULL, &error);
    rnnx_stream *stream = session ? rnnx_stream_open(session, NULL, &error) : NULL;
    for (int step = 0; stream && step < 5; step++) {
        for (int at = 0; at < 4; at++)
            frame[at] = (float)((step * 31 + at * 7) % 19) / 9.5F - 1;
        if (!rnnx_step(stream, &x, 1, &error))
            break;
        const float *y = rnnx_output(stream, "y")->data;
        for (int at = 0; at < 6; at++)
            printf("%.9g%c", (double)y[at], at < 5 ? ' ' : '\n');
    }
    if (*error.code)
        fprintf(stderr, "error[%s]: %s\n", error.code, error.text);
    rnnx_stream_free(stream);
    rnnx_close(session);
    return *error.code != 0;
}
