/* The conformance program of C++, as docs/conformance.md says, over rnnx.hpp. Traces are read by the C
 * program's reader. Exit codes: 0 fine, 1 a trace disagrees, 2 an error. */
#include <rnnx.hpp>

extern "C" {
#include "../../c/replay/trace.h"
}

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <thread>

namespace
{

using Bytes = std::vector<std::uint8_t>;

[[noreturn]] void fail(const char *code, const std::string &text)
{
    throw rnnx::Error(code, text);
}

/* -- Printing */

std::string quoted(const std::string &text)
{
    std::string made = "\"";
    for (char letter : text) {
        char escaped[8];
        if (letter == '"' || letter == '\\')
            made += '\\';
        if (static_cast<unsigned char>(letter) >= 0x20)
            made += letter;
        else
            made.append(escaped,
                        static_cast<std::size_t>(std::snprintf(escaped, sizeof escaped, "\\u%04x", letter)));
    }
    return made + "\"";
}

std::string number_at(const rnnx_tensor &tensor, std::size_t index)
{
    char text[40];
    if (tensor.dtype == RNNX_UINT64)
        return std::to_string(static_cast<const std::uint64_t *>(tensor.data)[index]);
    if (!rx_dtype_is_float(tensor.dtype))
        return std::to_string(rx_integer_at(tensor.dtype, tensor.data, index));
    double number = rx_value_at(tensor.dtype, tensor.data, index);
    if (!std::isfinite(number))
        return std::isnan(number) ? "\"nan\"" : number > 0 ? "\"inf\"" : "\"-inf\"";
    std::snprintf(text, sizeof text, "%.17g", number);
    return text;
}

/* -- A trace replayed through a stream */

struct Trace {
    recording recorded;
    Trace(const std::string &path, const rnnx_contract &contract)
    {
        rnnx_error error;
        if (!trace_read(&recorded, path.c_str(), &contract, &error))
            throw rnnx::Error(error);
    }
    Trace(const Trace &) = delete;
    ~Trace()
    {
        trace_free(&recorded);
    }
};

class Replay
{
  public:
    std::int64_t steps = 0, calls = 0;
    double max_error = 0;
    std::string failure; /* as JSON; empty if all agrees */

    Replay(const rnnx::Session &session, const recording &trace)
        : contract_(session.contract()), trace_(trace), stream_(session, sizes(session.contract(), trace))
    {
        for (std::size_t i = 0; i < contract_.input_count; i++)
            if (contract_.inputs[i].is_length && trace.inputs[i])
                lengths_ = trace.inputs[i];
    }

    rnnx::Stream &stream()
    {
        return stream_;
    }

    void run(const std::vector<std::int64_t> &chunks)
    {
        bool whole = contract_.whole_only != nullptr;
        compare_states(-1);
        if (failure.empty())
            to_start();
        std::size_t next = 0;
        for (std::int64_t begin = 0, end; failure.empty() && begin < trace_.steps; begin = end) {
            std::int64_t length = whole ? 0 : chunks[next++ % chunks.size()];
            end = length && begin + length < trace_.steps ? begin + length : trace_.steps;
            bool stepped = end - begin == 1 && !whole;
            call(begin, end, stepped);
            compare_outputs(begin, end, stepped);
            compare_states(end - 1);
        }
    }

    /* Sets the states to the start that was recorded. */
    void to_start()
    {
        std::vector<rnnx::Input> states;
        for (std::size_t i = 0; i < contract_.state_count; i++)
            states.push_back(row_of(*trace_.states[i], contract_.states[i].name));
        stream_.set_states(states);
    }

    /* Runs steps begin..end-1. */
    void call(std::int64_t begin, std::int64_t end, bool stepped)
    {
        std::vector<Bytes> rooms(contract_.input_count);
        std::vector<rnnx::Input> inputs;
        for (std::size_t i = 0; i < contract_.input_count; i++)
            if (trace_.inputs[i])
                inputs.push_back(cut(contract_.inputs[i], *trace_.inputs[i], begin, end, stepped, rooms[i]));
        if (stepped)
            stream_.step(inputs.data(), inputs.size());
        else
            stream_.run(inputs.data(), inputs.size());
        steps = end;
        calls++;
    }

  private:
    const rnnx_contract &contract_;
    const recording &trace_;
    rnnx::Stream stream_;
    const rnnx_tensor *lengths_ = nullptr;

    static rnnx::StreamOptions sizes(const rnnx_contract &contract, const recording &trace)
    {
        rnnx::StreamOptions options;
        options.batch = trace.sizes[BATCH] ? trace.sizes[BATCH] : 1;
        for (std::size_t i = 2; i < 2 + contract.free_count; i++)
            if (trace.sizes[i])
                options.dims.emplace_back(contract.dims[i], trace.sizes[i]);
        return options;
    }

    /* The first row of a recorded tensor, [step, ...], under another name. */
    static rnnx::Input row_of(const rnnx_tensor &recorded, const char *name)
    {
        rnnx::Input row(recorded);
        row.name = name;
        std::memmove(row.shape, row.shape + 1, static_cast<std::size_t>(--row.rank) * sizeof *row.shape);
        return row;
    }

    rnnx::Input cut(const rnnx_spec &spec, const rnnx_tensor &recorded, std::int64_t begin, std::int64_t end,
                    bool stepped, Bytes &room) const
    {
        rnnx::Input made(recorded);
        made.name = spec.name;
        bool rows = has_steps(&contract_, &spec);
        auto steps_here = static_cast<std::size_t>(end - begin);
        std::size_t count = rx_count_of(recorded.rank - rows, recorded.shape + rows);
        std::size_t bytes = count * rx_dtype_size(spec.dtype);
        const auto *from = static_cast<const std::uint8_t *>(recorded.data);
        if (!rows) {
            room.assign(from, from + bytes);
            for (std::size_t row = 0; spec.is_length && row < count; row++) {
                std::int64_t left = rx_integer_at(RNNX_INT64, from, row) - begin;
                left = left < 0 ? 0 : left > end - begin ? end - begin : left;
                std::memcpy(room.data() + row * sizeof left, &left, sizeof left);
            }
        } else {
            rnnx_dim shape[RNNX_MAX_RANK];
            trace_.sizes[TIME] = end - begin;
            made.rank = rx_caller_shape(&contract_, &spec, !stepped, shape);
            rx_resolve(made.rank, shape, trace_.sizes, made.shape);
            std::size_t outer = stepped ? 1 : rx_count_of(rx_axis_of(made.rank, shape, TIME), made.shape);
            std::size_t unit = bytes / outer;
            room.resize(bytes * steps_here);
            for (std::size_t step = 0; step < steps_here; step++)
                for (std::size_t block = 0; block < outer; block++)
                    std::memcpy(room.data() + (block * steps_here + step) * unit,
                                from + (static_cast<std::size_t>(begin) + step) * bytes + block * unit, unit);
        }
        made.data = room.data();
        return made;
    }

    /* Compares row `row` of a recorded tensor with values of which entry i stands at place(i). */
    template <class Place>
    void compare(const std::string &tensor, const rnnx_tensor &recorded, std::int64_t row,
                 const bound &allowed, const rnnx_tensor &got, std::int64_t step, int batch, Place place)
    {
        const std::int64_t *shape = recorded.shape + 1;
        std::size_t count = rx_count_of(recorded.rank - 1, shape);
        for (std::size_t at = 0; at < count && failure.empty(); at++) {
            std::vector<std::int64_t> index(static_cast<std::size_t>(recorded.rank - 1));
            std::size_t rest = at, own = static_cast<std::size_t>(row) * count + at;
            for (std::size_t axis = index.size(); axis-- > 0; rest /= static_cast<std::size_t>(shape[axis]))
                index[axis] = static_cast<std::int64_t>(rest % static_cast<std::size_t>(shape[axis]));
            if (batch != NOT_AN_OUTPUT && lengths_) {
                std::size_t of = lengths_->rank && batch >= 0
                                     ? static_cast<std::size_t>(index[static_cast<std::size_t>(batch)])
                                     : 0;
                if (step >= rx_integer_at(RNNX_INT64, lengths_->data, of))
                    continue; /* its row has ended */
            }
            if (agrees(allowed, recorded, own, got, place(at)))
                continue;
            std::ostringstream said;
            said << "{\"tensor\": " << quoted(tensor) << ", \"step\": " << step << ", \"index\": [";
            for (std::size_t axis = 0; axis < index.size(); axis++)
                said << (axis ? ", " : "") << index[axis];
            said << "], \"expected\": " << number_at(recorded, own)
                 << ", \"got\": " << number_at(got, place(at)) << "}";
            failure = said.str();
        }
    }

    bool agrees(const bound &allowed, const rnnx_tensor &recorded, std::size_t own, const rnnx_tensor &got,
                std::size_t at)
    {
        double wanted = rx_value_at(recorded.dtype, recorded.data, own),
               have = rx_value_at(got.dtype, got.data, at);
        if (!std::isfinite(wanted) || !std::isfinite(have))
            return wanted == have || (std::isnan(wanted) && std::isnan(have));
        double error = std::fabs(have - wanted);
        max_error = std::fmax(max_error, error / (1 + std::fabs(wanted)));
        if (!rx_dtype_is_float(recorded.dtype))
            return rx_integer_at(recorded.dtype, recorded.data, own) ==
                   rx_integer_at(got.dtype, got.data, at);
        return error <= allowed.atol + allowed.rtol * std::fabs(wanted);
    }

    void compare_states(std::int64_t step)
    {
        for (std::size_t i = 0; i < contract_.state_count; i++) {
            rnnx::View state = stream_.state(contract_.states[i].name);
            compare("state." + std::string(state.name()), *trace_.states[i], step + 1, trace_.state_bounds[i],
                    state.tensor(), step, NOT_AN_OUTPUT, [](std::size_t at) { return at; });
        }
    }

    void compare_outputs(std::int64_t begin, std::int64_t end, bool stepped)
    {
        std::vector<rnnx::View> outputs = stream_.outputs();
        for (std::size_t i = 0; i < outputs.size(); i++) {
            const rnnx_spec &spec = contract_.outputs[i];
            const rnnx_tensor &got = outputs[i].tensor();
            rnnx_dim chunk[RNNX_MAX_RANK], single[RNNX_MAX_RANK];
            int time = rx_axis_of(rx_caller_shape(&contract_, &spec, true, chunk), chunk, TIME);
            int batch = rx_axis_of(rx_caller_shape(&contract_, &spec, false, single), single, BATCH);
            bool rows = !stepped && time >= 0; /* else one value, that of the last step */
            auto all = static_cast<std::size_t>(rows ? end - begin : 1);
            std::size_t unit = outputs[i].size() / all / (rows ? rx_count_of(time, got.shape) : 1);
            for (std::int64_t step = rows ? begin : end - 1; step < end; step++) {
                auto here = static_cast<std::size_t>(rows ? step - begin : 0);
                compare("output." + std::string(spec.name), *trace_.outputs[i], step, trace_.output_bounds[i],
                        got, step, batch,
                        [=](std::size_t at) { return (at / unit * all + here) * unit + at % unit; });
            }
        }
    }

    static constexpr int NOT_AN_OUTPUT = -2;
};

/* -- What the program can do */

struct Options {
    std::vector<std::string> words;
    std::map<std::string, std::string> values; /* by name, "--chunks" */
    bool json = false;

    bool has(const char *name) const
    {
        return values.count(name) != 0;
    }
    std::string get(const char *name, const char *otherwise) const
    {
        auto found = values.find(name);
        return found == values.end() ? otherwise : found->second;
    }
};

Bytes read(const std::string &path, const char *what)
{
    rnnx_error error;
    std::size_t size;
    std::unique_ptr<void, void (*)(void *)> data(rx_read_file(path.c_str(), what, &size, &error), std::free);
    if (!data)
        throw rnnx::Error(error);
    const auto *begin = static_cast<const std::uint8_t *>(data.get());
    return {begin, begin + size};
}

std::vector<std::int64_t> numbers(const std::string &text)
{
    std::vector<std::int64_t> found;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, ',');) {
        if (part.empty() || part.find_first_not_of("0123456789") != std::string::npos)
            fail("usage", "expected lengths of chunks; found " + text + "; fix: see docs/conformance.md");
        found.push_back(std::stoll(part));
    }
    return found;
}

int do_trace(const rnnx::Session &session, const Options &options)
{
    Trace trace(options.words[1], session.contract());
    Replay replay(session, trace.recorded);
    replay.run(numbers(options.get("--chunks", "1")));
    bool agrees = replay.failure.empty();
    if (options.json)
        std::printf(
            "{\"agrees\": %s, \"steps\": %lld, \"calls\": %lld, \"max_error\": %.17g, \"failure\": %s}\n",
            agrees ? "true" : "false", static_cast<long long>(replay.steps),
            static_cast<long long>(replay.calls), replay.max_error, agrees ? "null" : replay.failure.c_str());
    else
        std::cout << (agrees ? "agrees: " : "disagrees: ") << replay.failure << (agrees ? "" : "; ")
                  << replay.steps << " steps in " << replay.calls << " calls, largest error "
                  << replay.max_error << "\n";
    return agrees ? 0 : 1;
}

void print_position(const Options &options, std::uint64_t position)
{
    std::cout << (options.json ? "{\"position\": " : "position ") << position
              << (options.json ? "}\n" : "\n");
}

void do_snapshot(const rnnx::Session &session, const Options &options)
{
    Trace trace(options.words[1], session.contract());
    Replay replay(session, trace.recorded);
    std::int64_t after = std::stoll(options.get("--after", "0"));
    if (after > trace.recorded.steps)
        fail("usage", "expected steps of the trace; found more; fix: see docs/conformance.md");
    replay.to_start();
    for (std::int64_t step = 0; step < after; step++)
        replay.call(step, step + 1, true);
    Bytes bytes = replay.stream().snapshot();
    std::string path = options.get("--snapshot", "");
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush())
        fail("cannot-write", "expected to write " + path + "; found an error; fix: choose another place");
    print_position(options, replay.stream().position());
}

void do_restore(const rnnx::Session &session, const Options &options)
{
    Bytes bytes = read(options.get("--restore", ""), "a snapshot");
    rnnx::Stream stream(session);
    stream.restore(bytes.data(), bytes.size());
    print_position(options, stream.position());
}

void print_outputs(const rnnx::Stream &stream, bool as_json)
{
    std::cout << (as_json ? "{\"outputs\": {" : "");
    bool first = true;
    for (const rnnx::View &output : stream.outputs()) {
        std::cout << (first || !as_json ? "" : ", ") << quoted(std::string(output.name()))
                  << (as_json ? ": [" : " [");
        for (std::size_t at = 0; at < output.size(); at++)
            std::cout << (at ? ", " : "") << number_at(output.tensor(), at);
        std::cout << (as_json ? "]" : "]\n");
        first = false;
    }
    std::cout << (as_json ? "}}\n" : "");
}

/* Steps one stream from two threads at once until one is refused; throws what it was told. */
void misuse_threads(rnnx::Stream &stream, const std::vector<rnnx::Input> &inputs)
{
    constexpr int attempts = 1000000;
    std::atomic<bool> done{false};
    std::exception_ptr refused[2];
    auto step_on = [&](int own) {
        try {
            for (int i = 0; i < attempts && !done; i++)
                stream.step(inputs.data(), inputs.size());
        } catch (const rnnx::Error &) {
            refused[own] = std::current_exception();
            done = true;
        }
    };
    std::thread one(step_on, 0), other(step_on, 1);
    one.join();
    other.join();
    for (const std::exception_ptr &error : refused)
        if (error)
            std::rethrow_exception(error);
}

void do_feed(const rnnx::Session &session, const Options &options)
{
    tensor_file file{};
    std::unique_ptr<tensor_file, void (*)(tensor_file *)> owner(&file, rx_tensor_file_free);
    std::vector<rnnx::Input> inputs;
    if (options.has("--feed")) {
        Bytes bytes = read(options.get("--feed", ""), "a feed");
        rnnx_error error;
        if (!rx_tensor_file_read(&file, bytes.data(), bytes.size(), "a feed", &error))
            throw rnnx::Error(error);
        for (std::size_t i = 0; i < file.count; i++)
            inputs.emplace_back(file.tensors[i]);
    }
    rnnx::Stream stream(session);
    std::string misuse = options.get("--misuse", "");
    if (misuse == "threads")
        return misuse_threads(stream, inputs);
    if (misuse == "closed")
        stream.close();
    for (long long i = std::stoll(options.get("--times", "1")); i > 0; i--)
        stream.step(inputs.data(), inputs.size());
    print_outputs(stream, options.json);
}

/* Runs ids through the model: a prompt as a chunk, or one symbol as a step. */
void read_ids(rnnx::Stream &stream, const rnnx_contract &contract, std::vector<std::int64_t> &ids,
              bool stepped)
{
    const rnnx_spec &spec = contract.inputs[contract.vocabulary_input];
    rnnx_dim shape[RNNX_MAX_RANK];
    rnnx::Input token(spec.name, {}, ids.data());
    token.rank = rx_caller_shape(&contract, &spec, !stepped, shape);
    for (int axis = 0; axis < token.rank; axis++)
        token.shape[axis] = shape[axis].index == TIME ? static_cast<std::int64_t>(ids.size()) : 1;
    if (stepped)
        stream.step(&token, 1);
    else
        stream.run(&token, 1);
}

void do_text(const rnnx::Session &session, const Options &options)
{
    const rnnx_contract &contract = session.contract();
    rnnx::Stream stream(session);
    rnnx::Sampler sampler(std::stoull(options.get("--seed", "0")),
                          std::stod(options.get("--temperature", "1")));
    std::vector<std::int64_t> ids = rnnx::encode(contract, options.get("--text", ""));
    std::string text;
    if (ids.empty())
        fail("prompt-empty",
             "expected a prompt of at least one character; found none; fix: give the characters the "
             "text should begin with");
    read_ids(stream, contract, ids, false);
    for (long long i = std::stoll(options.get("--length", "0")); i > 0; i--) {
        rnnx::View scores = stream.outputs()[contract.vocabulary_output];
        ids.assign(1, static_cast<std::int64_t>(sampler.sample(scores, contract.symbol_count)));
        text += rnnx::decode(contract, ids[0]);
        read_ids(stream, contract, ids, true);
    }
    std::cout << (options.json ? "{\"text\": " + quoted(text) + "}" : text) << "\n";
}

void do_draw(const Options &options)
{
    std::vector<double> weights;
    std::istringstream in(options.get("--draw", ""));
    for (std::string part; std::getline(in, part, ',');)
        weights.push_back(std::stod(part));
    rnnx::Sampler sampler(std::stoull(options.get("--seed", "0")));
    std::string drawn;
    for (long long i = std::stoll(options.get("--count", "1")); i > 0; i--)
        drawn += std::to_string(sampler.sample_weights(weights)) + (i == 1 ? "" : options.json ? ", " : " ");
    std::cout << (options.json ? "{\"draws\": [" + drawn + "]}" : drawn) << "\n";
}

Options parse(int count, char **arguments)
{
    static const char *const known[] = {"--chunks",   "--provider",    "--feed", "--misuse", "--restore",
                                        "--snapshot", "--text",        "--draw", "--times",  "--after",
                                        "--length",   "--temperature", "--seed", "--count"};
    Options options;
    for (int i = 1; i < count; i++) {
        std::string word = arguments[i];
        bool named = false;
        for (const char *name : known)
            named |= word == name;
        if (word == "--json")
            options.json = true;
        else if (named && i + 1 < count)
            options.values[word] = arguments[++i];
        else if (word[0] == '-')
            fail("usage",
                 "expected arguments as docs/conformance.md has them; found " + word + "; fix: see there");
        else
            options.words.push_back(word);
    }
    return options;
}

int act(const Options &options)
{
    if (options.has("--draw"))
        return do_draw(options), 0;
    if (options.words.empty())
        fail("usage", "expected a model; found none; fix: see docs/conformance.md");
    std::string provider = options.get("--provider", "cpu");
    rnnx::Options how{};
    how.provider = provider.c_str();
    rnnx::Session session(options.words[0], how);
    if (options.has("--feed") || options.has("--misuse"))
        return do_feed(session, options), 0;
    if (options.has("--restore"))
        return do_restore(session, options), 0;
    if (options.has("--text"))
        return do_text(session, options), 0;
    if (options.words.size() < 2)
        fail("usage", "expected a trace, or one of --feed, --misuse, --restore, --text; found none; fix: see "
                      "docs/conformance.md");
    if (options.has("--snapshot"))
        return do_snapshot(session, options), 0;
    return do_trace(session, options);
}

} // namespace

int main(int count, char **arguments)
{
    bool as_json = false;
    for (int i = 1; i < count; i++)
        as_json |= std::string_view(arguments[i]) == "--json";
    try {
        return act(parse(count, arguments));
    } catch (const rnnx::Error &error) {
        if (as_json)
            std::cout << "{\"error\": {\"code\": " << quoted(error.code())
                      << ", \"text\": " << quoted(error.what()) << "}}\n";
        else
            std::cerr << "error[" << error.code() << "]: " << error.what() << "\n";
    } catch (const std::exception &error) { /* a number that is none, no memory */
        std::cerr << "error[usage]: " << error.what() << "\n";
    }
    return 2;
}
