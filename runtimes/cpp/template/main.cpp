/* Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
 *
 *     build/app [MODEL]                 prove it, and say what a frame is
 *     build/app MODEL INPUT > OUTPUT    read frame, step, write frame; INPUT is a file, or - for standard input
 *     build/app MODEL "Once"            a model over symbols continues a prompt
 *
 * Standard error is for people; standard output is for what the model gives. */
#include <rnnx.hpp>

#include <cstring>
#include <fstream>
#include <iomanip>
#include <iostream>

namespace
{

constexpr int SYMBOLS = 200, TIME = 1; /* TIME is an index into a contract's dims */
constexpr const char *DTYPES[] = {"float16", "float32", "float64", "int8",   "int16",  "int32",
                                  "int64",   "uint8",   "uint16",  "uint32", "uint64", "bool"};
constexpr std::size_t SIZES[] = {2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};

bool is_required(const rnnx_spec &spec)
{
    return !spec.value && !spec.is_length;
}

std::size_t bytes_of(const rnnx_tensor &tensor)
{
    std::size_t bytes = SIZES[tensor.dtype];
    for (int axis = 0; axis < tensor.rank; axis++)
        bytes *= static_cast<std::size_t>(tensor.shape[axis]);
    return bytes;
}

/* A tensor in the shape of one step, batch 1, without data. */
rnnx::Input step_of(const rnnx_spec &spec)
{
    rnnx_tensor made{};
    made.name = spec.name;
    made.dtype = spec.dtype;
    for (int axis = 0; axis < spec.rank; axis++) {
        const rnnx_dim &dim = spec.shape[axis];
        if (dim.index != TIME || std::string_view(dim.text) != "time") /* N*time has N entries in a step */
            made.shape[made.rank++] = dim.factor;
    }
    return rnnx::Input(made);
}

/* Says what one step takes or gives, one tensor behind the other. */
void describe(const char *what, const rnnx_spec *specs, std::size_t count)
{
    std::cerr << what;
    for (std::size_t i = 0; i < count; i++) {
        if (!is_required(specs[i]))
            continue;
        rnnx::Input step = step_of(specs[i]);
        std::cerr << " " << specs[i].name << " " << DTYPES[specs[i].dtype] << "[";
        for (int axis = 0; axis < step.rank; axis++)
            std::cerr << (axis ? ", " : "") << step.shape[axis];
        std::cerr << "]";
    }
    std::cerr << "\n";
}

/* Replays the trace beside the model; false if it gives something else. */
bool prove(const rnnx::Session &session, std::string path)
{
    if (path.size() > 5 && path.compare(path.size() - 5, 5, ".onnx") == 0)
        path.resize(path.size() - 5);
    path += ".trace.safetensors";
    if (!std::ifstream(path)) {
        std::cerr << "not proved: there is no trace at " << path << "\n";
        return true;
    }
    rnnx_verdict told = session.replay(path);
    if (told.agrees) {
        std::cerr << "agrees: " << told.steps << " steps, " << std::scientific << std::setprecision(1)
                  << told.max_error << "\n";
        return true;
    }
    std::cerr << "disagrees: " << told.tensor << " at step " << told.step << ", index [";
    for (int axis = 0; axis < told.rank; axis++)
        std::cerr << (axis ? ", " : "") << told.index[axis];
    std::cerr << "]: expected " << told.expected << ", got " << told.got << "\n";
    return false;
}

/* Reads a frame, steps, writes a frame, until the input ends; then a frame that is not whole gets zeros. */
void run_frames(const rnnx::Session &session, std::istream &in)
{
    const rnnx_contract &contract = session.contract();
    rnnx::StreamOptions options;
    for (std::size_t i = 0; i < contract.free_count; i++)
        options.dims.emplace_back(contract.dims[2 + i], 1);
    rnnx::Stream stream(session, options);
    std::vector<rnnx::Input> inputs;
    std::vector<std::vector<double>> rooms; /* of doubles, so that entries of every dtype are aligned */
    std::size_t size = 0;
    for (std::size_t i = 0; i < contract.input_count; i++) {
        if (!is_required(contract.inputs[i]))
            continue;
        inputs.push_back(step_of(contract.inputs[i]));
        size += bytes_of(inputs.back());
        rooms.emplace_back(bytes_of(inputs.back()) / sizeof(double) + 1);
        inputs.back().data = rooms.back().data();
    }
    std::vector<char> frame(size);
    while (in.read(frame.data(), static_cast<std::streamsize>(size)) || in.gcount() > 0) {
        auto got = static_cast<std::size_t>(in.gcount());
        if (got < size) {
            std::cerr << "the last frame had " << got << " of " << size
                      << " bytes: zeros stand for the others\n";
            std::memset(frame.data() + got, 0, size - got);
        }
        const char *from = frame.data();
        for (const rnnx::Input &input : inputs) {
            std::memcpy(input.data, from, bytes_of(input));
            from += bytes_of(input);
        }
        stream.step(inputs.data(), inputs.size()); /* here your data goes through the model */
        for (const rnnx::View &output : stream.outputs())
            std::cout.write(static_cast<const char *>(output.tensor().data),
                            static_cast<std::streamsize>(bytes_of(output.tensor())));
    }
    std::cerr << stream.position() << " steps\n";
}

/* Prints symbols that continue the prompt. */
void write_text(const rnnx::Session &session, std::string prompt)
{
    const rnnx_contract &contract = session.contract();
    rnnx::Stream stream(session);
    rnnx::Sampler sampler(7, 0.8);
    auto read = [&](std::int64_t id) {
        rnnx::Input token = step_of(contract.inputs[contract.vocabulary_input]);
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
    std::string model = count > 1 ? arguments[1] : "model.onnx", source = count > 2 ? arguments[2] : "";
    try {
        rnnx::Session session(model);
        const rnnx_contract &contract = session.contract();
        if (!prove(session, model))
            return 1;
        if (contract.symbols) {
            write_text(session, source);
        } else if (contract.whole_only) {
            std::cerr << "it takes whole sequences: give them to run, not to step (" << contract.whole_only
                      << ")\n";
        } else if (source == "-") {
            run_frames(session, std::cin);
        } else if (!source.empty()) {
            std::ifstream in(source, std::ios::binary);
            if (!in)
                throw rnnx::Error("file-missing",
                                  "expected frames at " + source +
                                      "; found no file that can be read; fix: check the path");
            run_frames(session, in);
        } else {
            describe("a frame in: ", contract.inputs, contract.input_count);
            describe("a frame out:", contract.outputs, contract.output_count);
            if (contract.steps_per_second > 0)
                std::cerr << "frames a second: " << std::defaultfloat << std::setprecision(6)
                          << contract.steps_per_second << "\n";
            std::cerr << "run it: " << arguments[0] << " " << model << " in.raw > out.raw\n";
        }
    } catch (const rnnx::Error &error) {
        std::cerr << "error[" << error.code() << "]: " << error.what() << "\n";
        return 2;
    }
}
