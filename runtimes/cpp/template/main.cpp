/* Opens a model and runs it: text if it has a vocabulary, else steps on zeros.
 *
 *     build/app [MODEL] [PROMPT]
 */
#include <rnnx.hpp>

#include <iostream>

namespace
{

constexpr int STEPS = 5, SYMBOLS = 200, TIME = 1; /* TIME is an index into a contract's dims */

/* Zeros for an input of batch 1, in the shape of one step, or of a chunk of `steps`; `room` holds them. */
rnnx::Input zeros(const rnnx_spec &spec, std::int64_t steps, std::vector<double> &room)
{
    rnnx_tensor made{};
    made.name = spec.name;
    made.dtype = spec.dtype;
    std::size_t count = 1;
    for (int axis = 0; axis < spec.rank; axis++) {
        const rnnx_dim &dim = spec.shape[axis];
        if (dim.index == TIME && !steps && std::string_view(dim.text) == "time")
            continue; /* a step has no time axis */
        std::int64_t size = dim.factor * (dim.index == TIME && steps ? steps : 1);
        made.shape[made.rank++] = size;
        count *= static_cast<std::size_t>(size);
    }
    room.assign(count, 0); /* no entry takes more than 8 bytes */
    made.data = room.data();
    return rnnx::Input(made);
}

void print_outputs(const rnnx::Stream &stream)
{
    const char *between = "";
    for (const rnnx::View &output : stream.outputs()) {
        std::cout << between << output.name() << " [";
        between = "";
        for (std::int64_t size : output.shape()) {
            std::cout << between << size;
            between = ", ";
        }
        std::cout << "]";
        if (output.tensor().dtype == RNNX_FLOAT32)
            std::cout << " begins with " << *output.data<float>();
        between = ", ";
    }
    std::cout << "\n";
}

/* Prints the outputs of some steps on zeros; a model of whole sequences takes them as one chunk. */
void step_on_zeros(const rnnx::Session &session)
{
    const rnnx_contract &contract = session.contract();
    bool whole = contract.whole_only != nullptr;
    rnnx::StreamOptions options;
    for (std::size_t i = 0; i < contract.free_count; i++)
        options.dims.emplace_back(contract.dims[2 + i], 1);
    rnnx::Stream stream(session, options);
    std::vector<std::vector<double>> rooms(contract.input_count);
    std::vector<rnnx::Input> inputs;
    for (std::size_t i = 0; i < contract.input_count; i++)
        if (!contract.inputs[i].value && !contract.inputs[i].is_length)
            inputs.push_back(zeros(contract.inputs[i], whole ? STEPS : 0, rooms[i]));
    for (int step = 0; step < (whole ? 1 : STEPS); step++) {
        if (whole)
            stream.run(inputs.data(), inputs.size());
        else
            stream.step(inputs.data(), inputs.size());
        print_outputs(stream);
    }
}

/* Prints symbols that continue the prompt. */
void write_text(const rnnx::Session &session, std::string prompt)
{
    const rnnx_contract &contract = session.contract();
    rnnx::Stream stream(session);
    rnnx::Sampler sampler(7, 0.8);
    auto read = [&](std::int64_t id) {
        std::vector<double> room;
        rnnx::Input token = zeros(contract.inputs[contract.vocabulary_input], 0, room);
        token.data = &id;
        stream.step(&token, 1);
    };
    if (prompt.empty())
        prompt = rnnx::decode(contract, 0);
    for (std::int64_t id : rnnx::encode(contract, prompt))
        read(id);
    std::cout << prompt;
    for (int i = 0; i < SYMBOLS; i++) {
        rnnx::View scores = stream.outputs()[contract.vocabulary_output];
        auto id = static_cast<std::int64_t>(sampler.sample(scores, contract.symbol_count));
        std::cout << rnnx::decode(contract, id);
        read(id);
    }
    std::cout << "\n";
}

} // namespace

int main(int count, char **arguments)
{
    try {
        rnnx::Session session(count > 1 ? arguments[1] : "model.onnx");
        if (session.contract().symbols)
            write_text(session, count > 2 ? arguments[2] : "");
        else
            step_on_zeros(session);
    } catch (const rnnx::Error &error) {
        std::cerr << "error[" << error.code() << "]: " << error.what() << "\n";
        return 2;
    }
}
