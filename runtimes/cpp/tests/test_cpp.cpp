/* What C++ adds to C: ownership, types, exceptions. The argument is the folder of the golden models. */
#include <rnnx.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>

static_assert(!std::is_copy_constructible_v<rnnx::Session> && !std::is_copy_assignable_v<rnnx::Session>);
static_assert(!std::is_copy_constructible_v<rnnx::Stream> && !std::is_copy_assignable_v<rnnx::Stream>);
static_assert(std::is_nothrow_move_constructible_v<rnnx::Session> &&
              std::is_nothrow_move_assignable_v<rnnx::Stream>);
static_assert(rnnx::dtype_of<long long>() == RNNX_INT64 && rnnx::dtype_of<unsigned char>() == RNNX_UINT8);
static_assert(rnnx::dtype_of<bool>() == RNNX_BOOL && rnnx::dtype_of<rnnx::Half>() == RNNX_FLOAT16);

static std::string folder;

static void check(bool good, const char *what, int line)
{
    if (good)
        return;
    std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, line, what);
    std::exit(1);
}
#define CHECK(condition) check(condition, #condition, __LINE__)

template <class Call> static std::string code_of(Call call)
{
    try {
        call();
    } catch (const rnnx::Error &error) {
        CHECK(std::string(error.what()).find("expected ") == 0);
        return error.code();
    }
    return "";
}

static rnnx::Session open(const std::string &name)
{
    return rnnx::Session(folder + "/" + name + ".onnx");
}

static void a_refused_step_of_a_pool_moves_no_stream()
{
    const float frame[] = {1, 2, 3, 4};
    rnnx::Session session = open("gru"), other = open("gru");
    rnnx::Pool pool(session);
    rnnx::Stream first(session), second(session), alien(other);
    std::vector<rnnx::Input> x = {{"x", {1, 4}, frame}}, z = {{"z", {1, 4}, frame}};
    CHECK(code_of([&] { pool.step({{&first, x}, {&alien, x}}); }) == "streams-disagree");
    CHECK(code_of([&] { pool.step({{&first, x}, {&first, x}}); }) == "streams-disagree");
    CHECK(code_of([&] { pool.step({{&first, x}, {&second, z}}); }) == "unknown-input");
    CHECK(first.position() == 0);
    pool.step({{&first, x}, {&second, x}});
    CHECK(first.position() == 1);
    CHECK(first.output("y").to_vector<float>() == second.output("y").to_vector<float>());
    CHECK(code_of([&] { rnnx::Pool none(open("whole_only")); }) == "whole-only");
}

static void a_stream_moves_and_outlives_its_session()
{
    const float frame[] = {1, 2, 3, 4};
    auto session = std::make_unique<rnnx::Session>(open("gru"));
    rnnx::Stream first(*session);
    session.reset();
    first.step({{"x", {1, 4}, frame}});
    std::vector<float> y = first.output("y").to_vector<float>();
    CHECK((y.size() == 6 && first.output("y").shape() == std::vector<std::int64_t>{1, 6}));
    rnnx::Stream second = std::move(first);
    CHECK(second.position() == 1 && second.outputs().size() == 1);
    second.reset();
    second.step({{"x", {1, 4}, frame}});
    CHECK(second.output("y").to_vector<float>() == y);
}

static void types_are_checked()
{
    rnnx::Session session = open("gru");
    rnnx::Stream stream(session);
    const double frame[] = {1, 2, 3, 4};
    const float good[] = {1, 2, 3, std::numeric_limits<float>::infinity()};
    CHECK(code_of([&] { stream.step({{"x", {1, 4}, frame}}); }) == "wrong-dtype");
    CHECK(code_of([&] { stream.step({{"x", {1, 4}, good}}); }) == "non-finite");
    CHECK(code_of([&] { stream.run({{"x", {1, 4}, good}}); }) == "wrong-shape");
    CHECK(code_of([&] { stream.output("y"); }) == "unknown-output");
    stream.step({{"x", {1, 4}, std::vector<float>(4).data()}});
    CHECK(code_of([&] { stream.output("y").data<double>(); }) == "wrong-dtype");
    CHECK(code_of([&] { rnnx::Session("nowhere.onnx"); }) == "file-missing");
    CHECK(code_of([&] { rnnx::Session("x", 1); }) == "not-onnx");
    rnnx::StreamOptions none;
    none.batch = 0;
    CHECK(code_of([&] { rnnx::Stream(session, none); }) == "empty-batch");
}

static void states_are_read_set_and_reset()
{
    rnnx::Session session = open("two_layers");
    rnnx::StreamOptions two;
    two.batch = 2;
    rnnx::Stream stream(session, two);
    std::vector<float> ones(24, 1), frame(8, 0.5f);
    CHECK(stream.state("state.h").size() == 24);
    stream.set_states({{"state.h", {2, 2, 6}, ones.data()}});
    CHECK(stream.state("state.h").to_vector<float>() == ones &&
          stream.state("state.c").data<float>()[0] == 0);
    CHECK(code_of([&] { stream.set_states({{"h", {2, 2, 6}, ones.data()}}); }) == "unknown-state");
    CHECK(code_of([&] { stream.state("h"); }) == "unknown-state");
    stream.reset({1});
    CHECK(stream.state("state.h").data<float>()[0] == 1 && stream.state("state.h").data<float>()[6] == 0);
    stream.reset(std::vector<std::int64_t>{});
    CHECK(stream.state("state.h").data<float>()[0] == 1);
    CHECK(code_of([&] { stream.reset({2}); }) == "row-range");
    stream.close();
    CHECK(code_of([&] { stream.reset(); }) == "stream-closed" &&
          code_of([&] { stream.state("h"); }) == "stream-closed");
}

static void a_snapshot_continues()
{
    rnnx::Session session = open("lstm");
    rnnx::Stream stream(session), other(session);
    const float frame[] = {1, -1, 0.5f, 2};
    stream.step({{"x", {1, 4}, frame}});
    std::vector<std::uint8_t> saved = stream.snapshot();
    stream.step({{"x", {1, 4}, frame}});
    CHECK(!other.restore(saved.data(), saved.size()) && other.position() == 1);
    other.step({{"x", {1, 4}, frame}});
    CHECK(other.output("y").to_vector<float>() == stream.output("y").to_vector<float>());
    CHECK(code_of([&] { other.restore(saved.data(), saved.size() - 1); }) == "not-safetensors");
}

static void bytes_and_text()
{
    std::ifstream file(folder + "/characters.onnx", std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    rnnx::Session session(bytes.data(), bytes.size());
    std::vector<std::int64_t> ids = rnnx::encode(session.contract(), "caf\u00e9");
    CHECK(ids.size() == 4 && rnnx::decode(session.contract(), ids[3]) == "\u00e9");
    CHECK(code_of([&] { rnnx::encode(session.contract(), "Z"); }) == "character-outside-vocabulary");
    CHECK(code_of([&] { rnnx::encode(session.contract(), "\xff"); }) == "character-outside-vocabulary");
    CHECK(code_of([&] { rnnx::decode(session.contract(), 37); }) == "id-outside-vocabulary");
    CHECK(rnnx::Sampler(7).sample_weights({1, 2, 3, 4}) == 2);
}

int main(int, char **arguments)
{
    folder = arguments[1];
    a_refused_step_of_a_pool_moves_no_stream();
    a_stream_moves_and_outlives_its_session();
    types_are_checked();
    states_are_read_set_and_reset();
    a_snapshot_continues();
    bytes_and_text();
    std::puts("cpp: all good");
}
