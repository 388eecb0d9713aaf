/* What a step costs beside ONNX Runtime called by hand: cost MODEL [STEPS], as ../c/tests/cost.c. */
#include <rnnx.hpp>

#include "../../c/tests/by_hand.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

int main(int count, char **arguments)
{
    constexpr int block_steps = 1000;
    if (count < 2)
        return 2;
    long blocks = std::max(2L, (count > 2 ? std::atol(arguments[2]) : 20000) / block_steps);
    rnnx::Session session(arguments[1]);
    rnnx::Stream stream(session);
    const rnnx_spec &spec = session.contract().inputs[0];
    by_hand *hand = by_hand_open(arguments[1], &session.contract());
    std::vector<float> frame(by_hand_entries(hand));
    rnnx::Input x(spec.name, {1, static_cast<std::int64_t>(frame.size())}, frame.data());
    double step_us = 1e9, by_hand_us = 1e9;
    for (long block = 0; block < blocks; block++) {
        frame[0] = static_cast<float>(block) / 100;
        double start = by_hand_clock();
        for (int i = 0; i < block_steps; i++)
            stream.step({x});
        step_us = std::min(step_us, (by_hand_clock() - start) / block_steps);
        start = by_hand_clock();
        for (int i = 0; i < block_steps; i++)
            by_hand_step(hand, frame.data());
        by_hand_us = std::min(by_hand_us, (by_hand_clock() - start) / block_steps);
    }
    std::printf("{\"step_us\": %.3f, \"by_hand_us\": %.3f}\n", step_us, by_hand_us);
    by_hand_close(hand);
}
