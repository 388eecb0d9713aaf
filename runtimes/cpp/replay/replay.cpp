/* The conformance program of C++, as docs/conformance.md says, over rnnx.hpp. Exit codes: 0 fine, 1 a
 * trace disagrees, 2 an error. */
#include "comparison.hpp"

#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <sstream>
#include <thread>

namespace
{

[[noreturn]] void fail(const char *code, const std::string &text)
{
    throw rnnx::Error(code, text);
}

/* -- What the program can do */

struct Options {
    std::vector<std::string> words;
    std::map<std::string, std::string> values; /* by name, "--chunks" */
    bool json = false, flush = false;

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
    if (options.has("--entries"))
        replay.run_blocks(numbers(options.get("--entries", "")), std::stoll(options.get("--omit", "0")));
    else
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

/* The tensors of a file. */
struct Feed {
    explicit Feed(const std::string &path)
    {
        Bytes bytes = read(path, "a feed");
        rnnx_error error;
        if (!rx_tensor_file_read(&file, bytes.data(), bytes.size(), "a feed", &error))
            throw rnnx::Error(error);
        for (std::size_t i = 0; i < file.count; i++)
            inputs.emplace_back(file.tensors[i]);
    }
    Feed(const Feed &) = delete;
    Feed &operator=(const Feed &) = delete;
    ~Feed()
    {
        rx_tensor_file_free(&file);
    }
    tensor_file file{};
    std::vector<rnnx::Input> inputs;
};

/* Steps a stream for each of the files as one batch; each begins and pauses in rounds of its own. */
void do_together(const rnnx::Session &session, const Options &options)
{
    rnnx::Pool pool(session);
    std::vector<std::unique_ptr<Feed>> feeds;
    std::vector<rnnx::Stream> streams;
    std::istringstream in(options.get("--together", ""));
    for (std::string path; std::getline(in, path, ',');) {
        feeds.push_back(std::make_unique<Feed>(path));
        streams.emplace_back(session);
    }
    std::size_t times = std::stoull(options.get("--times", "1"));
    for (std::size_t turn = 0; turn < times; turn++) {
        std::vector<rnnx::Row> rows;
        for (std::size_t place = 0; place < streams.size() && place <= turn; place++)
            if ((turn + place) % 3 != 2)
                rows.push_back({&streams[place], feeds[place]->inputs});
        pool.step(rows);
    }
    std::cout << (options.json ? "{\"streams\": [" : "");
    for (std::size_t place = 0; place < streams.size(); place++) {
        std::cout << (options.json && place ? ", " : "");
        print_outputs(streams[place], options.json);
    }
    std::cout << (options.json ? "]}\n" : "");
}

void do_feed(const rnnx::Session &session, const Options &options)
{
    std::unique_ptr<Feed> feed;
    if (options.has("--feed"))
        feed = std::make_unique<Feed>(options.get("--feed", ""));
    std::vector<rnnx::Input> inputs = feed ? feed->inputs : std::vector<rnnx::Input>();
    rnnx::Stream stream(session);
    std::string misuse = options.get("--misuse", "");
    if (misuse == "threads")
        return misuse_threads(stream, inputs);
    if (misuse == "part")
        stream.run(inputs.data(), inputs.size());
    if (misuse == "waiting")
        stream.feed(inputs.data(), inputs.size());
    if (misuse == "closed")
        stream.close();
    for (long long i = std::stoll(options.get("--times", "1")); i > 0; i--)
        stream.step(inputs.data(), inputs.size());
    if (options.flush)
        stream.flush();
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
    static const char *const known[] = {"--entries", "--omit",        "--chunks",  "--provider",
                                        "--feed",    "--misuse",      "--restore", "--snapshot",
                                        "--text",    "--draw",        "--times",   "--after",
                                        "--length",  "--temperature", "--seed",    "--count",
                                        "--together"};
    Options options;
    for (int i = 1; i < count; i++) {
        std::string word = arguments[i];
        bool named = false;
        for (const char *name : known)
            named |= word == name;
        if (word == "--json")
            options.json = true;
        else if (word == "--flush")
            options.flush = true;
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
    if (options.has("--together"))
        return do_together(session, options), 0;
    if (options.has("--feed") || options.has("--misuse"))
        return do_feed(session, options), 0;
    if (options.has("--restore"))
        return do_restore(session, options), 0;
    if (options.has("--text"))
        return do_text(session, options), 0;
    if (options.words.size() < 2)
        fail("usage", "expected a trace, or one of --feed, --together, --misuse, --restore, --text; found none; fix: see "
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
