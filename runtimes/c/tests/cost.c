/* What a step costs beside ONNX Runtime called by hand: cost MODEL [STEPS]. For a model with one float32
 * input. Blocks of steps take turns, and the best block of each counts. Prints microseconds a step as JSON.
 */
#include "by_hand.h"
#include "check.h"

#include <math.h>

enum { BLOCK = 1000 };

int main(int count, char **arguments)
{
    CHECK(count > 1);
    long blocks = (count > 2 ? atol(arguments[2]) : 20000) / BLOCK;
    rnnx_session *session = rnnx_open(arguments[1], NULL, NULL);
    CHECK(session);
    const rnnx_contract *contract = rnnx_session_contract(session);
    rnnx_stream *stream = rnnx_stream_open(session, NULL, NULL);
    by_hand *hand = by_hand_open(arguments[1], contract);
    float *frame = calloc(by_hand_entries(hand), sizeof *frame);
    CHECK(stream && frame && contract->input_count == 1 && contract->inputs[0].dtype == RNNX_FLOAT32);
    rnnx_dim shape[RNNX_MAX_RANK];
    rnnx_tensor x = {.name = contract->inputs[0].name, .dtype = RNNX_FLOAT32, .data = frame};
    x.rank = rx_caller_shape(contract, &contract->inputs[0], false, shape);
    for (int axis = 0; axis < x.rank; axis++)
        x.shape[axis] = shape[axis].factor;
    double step_us = INFINITY, by_hand_us = INFINITY;
    for (long block = 0; block < (blocks > 2 ? blocks : 2); block++) {
        frame[0] = (float)block / 100;
        double start = by_hand_clock();
        for (int i = 0; i < BLOCK; i++)
            CHECK(rnnx_step(stream, &x, 1, NULL));
        step_us = fmin(step_us, (by_hand_clock() - start) / BLOCK);
        start = by_hand_clock();
        for (int i = 0; i < BLOCK; i++)
            by_hand_step(hand, frame);
        by_hand_us = fmin(by_hand_us, (by_hand_clock() - start) / BLOCK);
    }
    printf("{\"step_us\": %.3f, \"by_hand_us\": %.3f}\n", step_us, by_hand_us);
    by_hand_close(hand);
    free(frame);
    rnnx_stream_free(stream);
    rnnx_close(session);
    return 0;
}
