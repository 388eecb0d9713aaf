/* A trace replayed through a stream in C++, and compared: what the conformance program does with one. Traces are
 * read by the C library. */
#ifndef RNNX_REPLAY_COMPARISON_HPP
#define RNNX_REPLAY_COMPARISON_HPP

#include <rnnx.hpp>

extern "C" {
#include "../../c/src/trace.h"
}

#include <cmath>
#include <cstdio>
#include <cstring>
#include <sstream>

namespace
{

using Bytes = std::vector<std::uint8_t>;

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

struct Trace {
    recording recorded;
    Trace(const std::string &path, const rnnx_contract &contract)
    {
        rnnx_error error;
        if (!rx_trace_read(&recorded, path.c_str(), &contract, &error))
            throw rnnx::Error(error);
    }
    Trace(const Trace &) = delete;
    ~Trace()
    {
        rx_trace_free(&recorded);
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

    /* Replays all of it through feed, in blocks of so many entries, and then flush, which has to fill up the last
     * entries of each input that are left out. */
    void run_blocks(const std::vector<std::int64_t> &blocks, std::int64_t omitted)
    {
        compare_states(-1);
        to_start();
        std::vector<Bytes> rooms(contract_.input_count);
        std::vector<rnnx::Input> whole;
        for (std::size_t i = 0; i < contract_.input_count; i++)
            if (trace_.inputs[i])
                whole.push_back(
                    cut(contract_.inputs[i], *trace_.inputs[i], 0, trace_.steps, false, rooms[i]));
        std::vector<std::int64_t> begins(whole.size());
        bool ended = false;
        for (std::size_t turn = 0; !ended && failure.empty(); turn++) {
            std::vector<Bytes> pieces(whole.size());
            std::vector<rnnx::Input> block = whole;
            ended = true;
            for (std::size_t i = 0; i < whole.size(); i++) {
                int axis = time_of(whole[i].name);
                if (axis < 0)
                    continue;
                std::int64_t length = blocks[turn % blocks.size()], all = whole[i].shape[axis] - omitted;
                std::int64_t end = length && begins[i] + length < all ? begins[i] + length : all;
                ended = ended && end == begins[i];
                block[i] = entries(whole[i], axis, begins[i], end, pieces[i]);
                begins[i] = end;
            }
            if (ended)
                stream_.flush();
            else
                stream_.feed(block.data(), block.size());
            std::int64_t begin = steps;
            steps = static_cast<std::int64_t>(stream_.position());
            calls++;
            if (steps > begin) {
                compare_outputs(begin, steps, false);
                compare_states(steps - 1);
            }
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

    /* Where time stands in a chunk of an input, or -1. */
    int time_of(const char *name) const
    {
        rnnx_dim shape[RNNX_MAX_RANK];
        const rnnx_spec *spec = rx_spec_named(contract_.inputs, contract_.input_count, name);
        return rx_axis_of(rx_caller_shape(&contract_, spec, true, shape), shape, TIME);
    }

    /* Entries begin..end-1 along an axis; `room` holds them. */
    static rnnx::Input entries(const rnnx::Input &whole, int axis, std::int64_t begin, std::int64_t end,
                               Bytes &room)
    {
        rnnx::Input part(whole);
        part.shape[axis] = end - begin;
        std::size_t outer = rx_count_of(axis, whole.shape);
        std::size_t unit =
            rx_count_of(whole.rank - axis - 1, whole.shape + axis + 1) * rx_dtype_size(whole.dtype);
        std::size_t count = static_cast<std::size_t>(end - begin) * unit;
        room.resize(outer * count + 1); /* data that is NULL is an input left out */
        for (std::size_t run = 0; run < outer; run++)
            std::memcpy(
                room.data() + run * count,
                static_cast<const std::uint8_t *>(whole.data) +
                    (run * static_cast<std::size_t>(whole.shape[axis]) + static_cast<std::size_t>(begin)) *
                        unit,
                count);
        part.data = room.data();
        return part;
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
        bool rows = rx_has_steps(&contract_, &spec);
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

} // namespace

#endif
