/* rnnx: networks with memory, run one time step at a time from C++17. One header over rnnx.h, the C runtime.
 *
 *     std::vector<float> frame(257);
 *     rnnx::Session session("denoiser.onnx");
 *     rnnx::Stream stream(session);
 *     stream.step({{"x", {1, 257}, frame.data()}});      // [batch, 257]: a step has no time axis
 *     const float *y = stream.output("y").data<float>(); // [1, 257], until the next call on this stream
 *     std::printf("%g\n", y[0]);
 *
 * Errors are thrown as rnnx::Error, by this header alone: no exception crosses the library's border. What
 * fails changes nothing. Sessions and streams own what they are handles of; they move and do not copy. A
 * session may be used by any number of threads at once, a stream by one at a time. A stream keeps its session
 * alive. */
#ifndef RNNX_HPP
#define RNNX_HPP

#include <rnnx.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace rnnx
{

/* Something that was expected and not found. what() says both, and how to mend it; code() is stable and the
 * same in every language. */
class Error : public std::runtime_error
{
  public:
    explicit Error(const rnnx_error &error) : std::runtime_error(error.text), code_(error.code)
    {
    }
    Error(std::string code, const std::string &text) : std::runtime_error(text), code_(std::move(code))
    {
    }
    const std::string &code() const noexcept
    {
        return code_;
    }

  private:
    std::string code_;
};

/* IEEE binary16 by its bits. */
struct Half {
    std::uint16_t bits;
};

/* The dtype of a C++ type. */
template <class T> constexpr rnnx_dtype dtype_of()
{
    if constexpr (std::is_same_v<T, Half>)
        return RNNX_FLOAT16;
    else if constexpr (std::is_same_v<T, float>)
        return RNNX_FLOAT32;
    else if constexpr (std::is_same_v<T, double>)
        return RNNX_FLOAT64;
    else if constexpr (std::is_same_v<T, bool>)
        return RNNX_BOOL;
    else {
        static_assert(std::is_integral_v<T>, "a type that no tensor of a model has");
        constexpr rnnx_dtype kinds[] = {RNNX_INT8,  RNNX_INT16,  RNNX_INT32,  RNNX_INT64,
                                        RNNX_UINT8, RNNX_UINT16, RNNX_UINT32, RNNX_UINT64};
        constexpr int size = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
        return kinds[size + (std::is_unsigned_v<T> ? 4 : 0)];
    }
}

/* A named array to be read: a view, which owns nothing. */
struct Input : rnnx_tensor {
    template <class T> Input(const char *label, std::initializer_list<std::int64_t> sizes, const T *values)
    {
        if (sizes.size() > RNNX_MAX_RANK)
            throw Error("wrong-shape", std::string("expected '") + label +
                                           "' with fewer axes; found too many; fix: reshape it");
        name = label;
        dtype = dtype_of<T>();
        rank = 0;
        for (std::int64_t size : sizes)
            shape[rank++] = size;
        data = const_cast<T *>(values); /* the C runtime only reads it */
    }
    explicit Input(const rnnx_tensor &tensor) : rnnx_tensor(tensor)
    {
    }
};
static_assert(sizeof(Input) == sizeof(rnnx_tensor), "an array of inputs is an array of tensors");

/* An output, or a state: a view into a stream, valid until its next call. */
class View
{
  public:
    explicit View(const rnnx_tensor &tensor) noexcept : tensor_(&tensor)
    {
    }
    std::string_view name() const noexcept
    {
        return tensor_->name;
    }
    std::vector<std::int64_t> shape() const
    {
        return {tensor_->shape, tensor_->shape + tensor_->rank};
    }
    std::size_t size() const noexcept
    {
        std::size_t count = 1;
        for (int axis = 0; axis < tensor_->rank; axis++)
            count *= static_cast<std::size_t>(tensor_->shape[axis]);
        return count;
    }
    /* The values, size() of them; the last axis runs fastest. Throws `wrong-dtype` for another type than
     * theirs. */
    template <class T> const T *data() const
    {
        if (tensor_->dtype != dtype_of<T>())
            throw Error("wrong-dtype",
                        "expected '" + std::string(name()) +
                            "' to be read in its own dtype; found another type; fix: read it as "
                            "the contract says");
        return static_cast<const T *>(tensor_->data);
    }
    template <class T> std::vector<T> to_vector() const
    {
        return {data<T>(), data<T>() + size()};
    }
    const rnnx_tensor &tensor() const noexcept
    {
        return *tensor_;
    }

  private:
    const rnnx_tensor *tensor_;
};

namespace detail
{

inline void check(bool good, const rnnx_error &error)
{
    if (!good)
        throw Error(error);
}

} // namespace detail

using Options = rnnx_options; /* Options{} for the defaults */

/* A loaded model, immutable. */
class Session
{
  public:
    /* Loads a model from a file. Throws Error with the codes of rnnx_open. */
    explicit Session(const std::string &path, const Options &options = Options())
    {
        rnnx_error error;
        handle_.reset(rnnx_open(path.c_str(), &options, &error));
        detail::check(handle_ != nullptr, error);
    }
    /* Loads a model from its bytes, which are not needed any more afterwards. */
    Session(const void *bytes, std::size_t size, const Options &options = Options())
    {
        rnnx_error error;
        handle_.reset(rnnx_open_bytes(bytes, size, &options, &error));
        detail::check(handle_ != nullptr, error);
    }
    /* What the model takes, gives and carries; lives as long as the session. */
    const rnnx_contract &contract() const noexcept
    {
        return *rnnx_session_contract(handle_.get());
    }
    /* Replays the trace that was exported beside a model. Throws Error with the codes of rnnx_replay. */
    rnnx_verdict replay(const std::string &path) const
    {
        rnnx_verdict verdict;
        rnnx_error error;
        detail::check(rnnx_replay(handle_.get(), path.c_str(), &verdict, &error), error);
        return verdict;
    }
    rnnx_session *handle() const noexcept
    {
        return handle_.get();
    }

  private:
    struct Closer {
        void operator()(rnnx_session *session) const noexcept
        {
            rnnx_close(session);
        }
    };
    std::unique_ptr<rnnx_session, Closer> handle_;
};

/* How a stream is opened. */
struct StreamOptions {
    std::int64_t batch = 1;
    std::vector<std::pair<std::string, std::int64_t>> dims = {}; /* free dimensions */
    std::vector<Input> initial = {}; /* other starts than the contract's, in full shape */
};

/* Text to ids and back. Throws `not-symbols`, `character-outside-vocabulary`, `id-outside-vocabulary`. */
inline std::vector<std::int64_t> encode(const rnnx_contract &contract, std::string_view text)
{
    std::vector<std::int64_t> ids(text.size() + 1);
    std::size_t count = 0;
    rnnx_error error;
    detail::check(rnnx_encode(&contract, text.data(), text.size(), ids.data(), &count, &error), error);
    ids.resize(count);
    return ids;
}

inline std::string decode(const rnnx_contract &contract, std::int64_t id)
{
    char text[5];
    rnnx_error error;
    detail::check(rnnx_decode(&contract, id, text, &error), error);
    return text;
}

/* Draws symbols, the same for the same seed in every language. */
class Sampler
{
  public:
    explicit Sampler(std::uint64_t seed = 0, double temperature = 1) noexcept : sampler_{seed, temperature}
    {
    }
    /* Draws from the scores of the last step. Throws `scores-invalid` or `temperature-invalid`. */
    std::size_t sample(const View &scores, std::size_t symbols)
    {
        std::size_t drawn;
        rnnx_error error;
        detail::check(rnnx_sample(&sampler_, &scores.tensor(), symbols, &drawn, &error), error);
        return drawn;
    }
    /* Draws an index with a probability proportional to its weight. Throws `weights-invalid`. */
    std::size_t sample_weights(const std::vector<double> &weights)
    {
        std::size_t drawn;
        rnnx_error error;
        detail::check(rnnx_sample_weights(&sampler_, weights.data(), weights.size(), &drawn, &error), error);
        return drawn;
    }
    std::uint64_t state() const noexcept
    {
        return sampler_.state;
    }

  private:
    rnnx_sampler sampler_;
};

/* One sequence, or a fixed batch of them, being run; it owns the states. */
class Stream
{
  public:
    /* Opens a stream with the states at their start. Throws Error with the codes of rnnx_stream_open. */
    explicit Stream(const Session &session, const StreamOptions &options = StreamOptions())
        : contract_(&session.contract())
    {
        std::vector<rnnx_size> dims;
        for (const auto &[name, size] : options.dims)
            dims.push_back({name.c_str(), size});
        rnnx_stream_options how{};
        how.batch = options.batch ? options.batch : -1; /* to C, 0 means the default */
        how.dims = dims.data();
        how.dim_count = dims.size();
        how.initial = options.initial.data();
        how.initial_count = options.initial.size();
        rnnx_error error;
        handle_.reset(rnnx_stream_open(session.handle(), &how, &error));
        detail::check(handle_ != nullptr, error);
    }

    /* Runs one time step: inputs without the time axis. Nothing is allocated as long as the sizes are those
     * of the step before. Throws Error with the codes of rnnx_step. */
    void step(std::initializer_list<Input> inputs)
    {
        step(inputs.begin(), inputs.size());
    }
    void step(const Input *inputs, std::size_t count)
    {
        rnnx_error error;
        detail::check(rnnx_step(handle_.get(), inputs, count, &error), error);
    }

    /* Runs a chunk of steps: the same with the time axis. Any chunks give together what one long one gives.
     */
    void run(std::initializer_list<Input> inputs)
    {
        run(inputs.begin(), inputs.size());
    }
    void run(const Input *inputs, std::size_t count)
    {
        rnnx_error error;
        detail::check(rnnx_run(handle_.get(), inputs, count, &error), error);
    }

    /* Runs the steps that are whole, and keeps what is over for the next call: inputs with any number of entries
     * along time. As rnnx_feed; if no step ran, outputs with time have 0 entries, and none has data. */
    void feed(std::initializer_list<Input> inputs)
    {
        feed(inputs.begin(), inputs.size());
    }
    void feed(const Input *inputs, std::size_t count)
    {
        rnnx_error error;
        detail::check(rnnx_feed(handle_.get(), inputs, count, &error), error);
    }
    /* Runs what waits as whole steps, the last one filled up with zeros; as rnnx_flush. */
    void flush()
    {
        rnnx_error error;
        detail::check(rnnx_flush(handle_.get(), &error), error);
    }
    /* How many entries of an input wait for a whole step. */
    std::size_t waiting(const char *input) const noexcept
    {
        return rnnx_waiting(handle_.get(), input);
    }

    /* An output of the latest step or chunk. Throws `unknown-output`. */
    View output(const char *name) const
    {
        const rnnx_tensor *found = rnnx_output(handle_.get(), name);
        if (!found)
            throw Error("unknown-output",
                        std::string("expected an output of a step or chunk that was run; found "
                                    "none called '") +
                            name + "'; fix: 'rnnx inspect' lists the outputs");
        return View(*found);
    }
    /* All outputs, in the order of the contract; none before the first call. */
    std::vector<View> outputs() const
    {
        const rnnx_tensor *found = rnnx_outputs(handle_.get());
        return found ? std::vector<View>(found, found + contract_->output_count) : std::vector<View>();
    }

    /* Puts the states back to their start: all of them and the position, or those of some rows. */
    void reset()
    {
        rnnx_error error;
        detail::check(rnnx_reset(handle_.get(), nullptr, 0, &error), error);
    }
    void reset(const std::vector<std::int64_t> &rows)
    {
        static const std::int64_t none = 0;
        rnnx_error error;
        detail::check(rnnx_reset(handle_.get(), rows.empty() ? &none : rows.data(), rows.size(), &error),
                      error);
    }

    /* A state as it is. Throws `unknown-state`, or `stream-closed`. */
    View state(std::string_view name) const
    {
        const rnnx_tensor *states = rnnx_states(handle_.get());
        for (std::size_t i = 0; states && i < contract_->state_count; i++)
            if (name == states[i].name)
                return View(states[i]);
        throw Error(states ? "unknown-state" : "stream-closed",
                    "expected a state of an open stream; found none called '" + std::string(name) +
                        "'; fix: 'rnnx inspect' lists the states");
    }
    /* Overwrites states, in full shape: all of them or, if one is refused, none. */
    void set_states(const std::vector<Input> &states)
    {
        rnnx_error error;
        detail::check(rnnx_states_set(handle_.get(), states.data(), states.size(), &error), error);
    }

    /* Number of steps since the stream was opened or reset as a whole. */
    std::uint64_t position() const noexcept
    {
        return rnnx_position(handle_.get());
    }

    /* All that is needed to continue elsewhere, in any language. */
    std::vector<std::uint8_t> snapshot(const rnnx_sampling *sampling = nullptr)
    {
        std::size_t size;
        rnnx_error error;
        std::unique_ptr<void, void (*)(void *)> bytes(rnnx_snapshot(handle_.get(), sampling, &size, &error),
                                                      rnnx_free);
        detail::check(bytes != nullptr, error);
        const auto *begin = static_cast<const std::uint8_t *>(bytes.get());
        return {begin, begin + size};
    }
    /* Continues where a snapshot was made; returns where sampling stopped, if it says so. The arrays of what
     * is returned belong to the stream, until its next restore. Throws Error with the codes of rnnx_restore.
     */
    std::optional<rnnx_sampling> restore(const void *bytes, std::size_t size)
    {
        rnnx_sampling found;
        rnnx_error error;
        detail::check(rnnx_restore(handle_.get(), bytes, size, &found, &error), error);
        return found.generator ? std::optional<rnnx_sampling>(found) : std::nullopt;
    }

    /* Lets go of the buffers before the stream itself ends; what is called afterwards throws `stream-closed`.
     */
    void close()
    {
        rnnx_error error;
        detail::check(rnnx_stream_close(handle_.get(), &error), error);
    }
    rnnx_stream *handle() const noexcept
    {
        return handle_.get();
    }

  private:
    struct Closer {
        void operator()(rnnx_stream *stream) const noexcept
        {
            rnnx_stream_free(stream);
        }
    };
    const rnnx_contract *contract_; /* the session's, which the stream keeps alive */
    std::unique_ptr<rnnx_stream, Closer> handle_;
};

/* A stream and the inputs of its next step. */
struct Row {
    Stream *stream;
    std::vector<Input> inputs;
};

/* Steps many streams of a session, each of batch 1, as the rows of one batch. Which streams step is free at each
 * call: those that are left out stay as they are. */
class Pool
{
  public:
    /* Opens a pool. Throws Error with the codes of rnnx_pool_open. */
    explicit Pool(const Session &session)
    {
        rnnx_error error;
        handle_.reset(rnnx_pool_open(session.handle(), &error));
        detail::check(handle_ != nullptr, error);
    }

    /* Runs one step of each stream; its outputs are then, to rounding, what it gives alone. If anything is refused no
     * stream has moved. Throws Error with the codes of rnnx_pool_step. */
    void step(const std::vector<Row> &rows)
    {
        streams_.clear();
        inputs_.clear();
        counts_.clear();
        for (const Row &row : rows) {
            streams_.push_back(row.stream->handle());
            inputs_.push_back(row.inputs.data());
            counts_.push_back(row.inputs.size());
        }
        rnnx_error error;
        detail::check(rnnx_pool_step(handle_.get(), streams_.data(), inputs_.data(), counts_.data(), rows.size(), &error),
                      error);
    }

  private:
    struct Closer {
        void operator()(rnnx_pool *pool) const noexcept
        {
            rnnx_pool_free(pool);
        }
    };
    std::unique_ptr<rnnx_pool, Closer> handle_;
    std::vector<rnnx_stream *> streams_;
    std::vector<const rnnx_tensor *> inputs_;
    std::vector<std::size_t> counts_;
};

} // namespace rnnx

#endif
