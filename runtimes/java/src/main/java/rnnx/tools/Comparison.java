package rnnx.tools;

import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntPredicate;
import rnnx.Axis;
import rnnx.Contract;
import rnnx.Contract.Input;
import rnnx.Contract.Output;
import rnnx.Contract.State;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;
import rnnx.Trace;

/** A trace being replayed through a stream, and compared with it. */
final class Comparison implements AutoCloseable {
    private final Contract contract;
    private final Trace trace;
    private final Stream stream;
    private int calls;
    private double maxError;
    private Map<String, Object> failure; // the first value that does not agree

    Comparison(Session session, Trace trace) {
        this.contract = session.contract();
        this.trace = trace;
        Stream.Builder builder = session.streamWith();
        trace.sizes().forEach((name, size) -> {
            if (name.equals("batch")) {
                builder.batch(size);
            } else if (contract.freeDimensions().contains(name)) {
                builder.dim(name, size);
            }
        });
        stream = builder.open();
    }

    /** Replay all of it in chunks of these lengths, in turn; stop where something disagrees. */
    Map<String, Object> run(List<Integer> chunks) {
        compareStates(-1, 0);
        begin();
        int begin = 0;
        for (int turn = 0; begin < trace.steps() && failure == null; turn++) {
            int length = contract.wholeOnly() != null ? 0 : chunks.get(turn % chunks.size());
            int end = length == 0 ? trace.steps() : Math.min(begin + length, trace.steps());
            compareOutputs(call(begin, end), end);
            compareStates(end - 1, end);
            begin = end;
        }
        Map<String, Object> verdict = new LinkedHashMap<>();
        verdict.put("agrees", failure == null);
        verdict.put("steps", begin);
        verdict.put("calls", calls);
        verdict.put("max_error", maxError);
        verdict.put("failure", failure);
        return verdict;
    }

    /** Replay the first steps, one at a time. */
    Stream toStep(int steps) {
        begin();
        for (int step = 0; step < steps; step++) {
            call(step, step + 1);
        }
        return stream;
    }

    @Override
    public void close() {
        stream.close();
    }

    /** Set all states to row 0. */
    private void begin() {
        trace.states().forEach((name, rows) -> stream.setState(name, rows.row(0)));
    }

    /** Run steps begin..end-1; return each output as [step, ...], one row for those without time. */
    private Map<String, Tensor> call(int begin, int end) {
        boolean isStep = end - begin == 1 && contract.wholeOnly() == null;
        Map<String, Tensor> inputs = new HashMap<>();
        for (Input input : contract.inputs()) {
            Tensor recorded = trace.inputs().get(input.name());
            if (recorded == null) {
                continue;
            }
            if (input.isLength()) {
                long[] left = recorded.longs();
                Arrays.setAll(left, row -> Math.min(Math.max(left[row] - begin, 0), end - begin));
                inputs.put(input.name(), Tensor.of(left, recorded.shape()));
            } else if (!contract.isStepped(input)) {
                inputs.put(input.name(), recorded);
            } else if (isStep) {
                inputs.put(input.name(), recorded.row(begin));
            } else {
                inputs.put(input.name(), Trace.toChunk(contract, input, recorded, begin, end));
            }
        }
        calls++;
        Map<String, Tensor> outputs = isStep ? stream.step(inputs) : stream.run(inputs);
        Map<String, Tensor> rows = new HashMap<>();
        for (Output output : contract.outputs()) {
            Tensor got = outputs.get(output.name());
            Tensor row = trace.outputs().get(output.name()).row(0);
            rows.put(output.name(), !isStep && contract.isStepped(output)
                    ? Trace.toRows(contract, output, got, row, end - begin)
                    : got.reshaped(oneRow(row.shape())));
        }
        return rows;
    }

    private static int[] oneRow(int[] shape) {
        int[] more = new int[shape.length + 1];
        more[0] = 1;
        System.arraycopy(shape, 0, more, 1, shape.length);
        return more;
    }

    private void compareOutputs(Map<String, Tensor> outputs, int end) {
        for (Output output : contract.outputs()) {
            Tensor expected = trace.outputs().get(output.name());
            Tensor got = outputs.get(output.name());
            int first = end - got.shape()[0];
            for (int step = first; step < end; step++) {
                IntPredicate isKept = isKept(output, expected.row(step).shape(), step);
                compare("output." + output.name(), step, expected.row(step), got.row(step - first), isKept);
            }
        }
    }

    private void compareStates(int step, int row) {
        for (State state : contract.states()) {
            Tensor expected = trace.states().get(state.name()).row(row);
            compare("state." + state.name(), step, expected, stream.state(state.name()), flat -> true);
        }
    }

    /** Whether the row of an entry of an output has not ended before {@code step}. */
    private IntPredicate isKept(Output output, int[] shape, int step) {
        for (Input input : contract.inputs()) {
            Tensor lengths = input.isLength() ? trace.inputs().get(input.name()) : null;
            if (lengths == null) {
                continue;
            }
            List<String> axes = output.shape().stream()
                    .filter(axis -> axis.isMultiple() || !axis.name().equals("time"))
                    .map(Axis::name)
                    .toList();
            int batch = lengths.shape().length == 0 ? -1 : axes.indexOf("batch");
            if (batch < 0) {
                return flat -> step < lengths.number(0);
            }
            int inner = Arrays.stream(shape, batch + 1, shape.length).reduce(1, (one, two) -> one * two);
            return flat -> step < lengths.number(flat / inner % shape[batch]);
        }
        return flat -> true;
    }

    /** Compare one row of a tensor, where {@code isKept}. */
    private void compare(String tensor, int step, Tensor expected, Tensor got, IntPredicate isKept) {
        Trace.Bound bound = trace.bounds().get(tensor);
        for (int flat = 0; flat < expected.count(); flat++) {
            if (!isKept.test(flat)) {
                continue;
            }
            double wanted = expected.number(flat);
            double have = got.number(flat);
            double off = Math.abs(have - wanted);
            boolean agrees = have == wanted || Double.isNaN(have) && Double.isNaN(wanted);
            if (Double.isFinite(off)) {
                maxError = Math.max(maxError, off / (1 + Math.abs(wanted)));
                boolean isNear = off <= bound.absolute() + bound.relative() * Math.abs(wanted);
                agrees = agrees || expected.dtype().isFloat() && isNear;
            }
            if (!agrees && failure == null) {
                failure = new LinkedHashMap<>();
                failure.put("tensor", tensor);
                failure.put("step", step);
                failure.put("index", indexOf(expected.shape(), flat));
                failure.put("expected", Replay.plain(expected, flat));
                failure.put("got", Replay.plain(got, flat));
            }
        }
    }

    private static int[] indexOf(int[] shape, int flat) {
        int[] index = new int[shape.length];
        int rest = flat;
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            index[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        return index;
    }
}
