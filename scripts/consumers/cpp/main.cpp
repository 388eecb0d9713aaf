// Steps a model and prints what comes out, a line for each step.
#include <rnnx.hpp>

#include <iomanip>
#include <iostream>

int main(int, char **arguments)
try {
    rnnx::Session session(arguments[1]);
    rnnx::Stream stream(session);
    std::cout << std::setprecision(9);
    for (int step = 0; step < 5; step++) {
        float frame[4];
        for (int at = 0; at < 4; at++)
            frame[at] = static_cast<float>((step * 31 + at * 7) % 19) / 9.5F - 1;
        stream.step({{"x", {1, 4}, frame}});
        for (float value : stream.output("y").to_vector<float>())
            std::cout << value << ' ';
        std::cout << '\n';
    }
} catch (const rnnx::Error &error) {
    std::cerr << "error[" << error.code() << "]: " << error.what() << '\n';
    return 1;
}
