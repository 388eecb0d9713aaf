package rnnx;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntPredicate;
import rnnx.Contract.Input;
import rnnx.Contract.Output;
import rnnx.Contract.State;

/** A trace replayed through a stream of its own: whether a model gives what was recorded. */
public final class Replayer implements AutoCloseable {
    private final Contract contract;
    private final Trace trace;
    private final Stream stream;
    private int steps;
    private int calls;
    private double maxError;
    private Failure failure;

    /**
     * The first value that does not agree.
     *
     * @param tensor {@code output.NAME} or {@code state.NAME}
     * @param step -1 for the start of a state
     * @param index in the shape of one step
     * @param expected a number, or {@code nan}, {@code inf} or {@code -inf} as text
     * @param got as {@code expected}
     */
    public record Failure(String tensor, int step, int[] index, Object expected, Object got) {}

    /**
     * How a replay went.
     *
     * @param steps that were replayed
     * @param calls that took
     * @param maxError the largest |got - expected| / (1 + |expected|)
     * @param failure null if everything agrees
     */
    public record Verdict(int steps, int calls, double maxError, Failure failure) {
        /** Whether everything agrees. */
        public boolean agrees() {
            return failure == null;
        }

        /** In one line, for people. */
        @Override
        public String toString() {
            String told = String.format(
                    java.util.Locale.ROOT, "%d steps in %d calls, largest error %.1e", steps, calls, maxError);
            if (agrees()) {
                return "agrees: " + told;
            }
            return String.format(
                    "disagrees: %s at step %d, index %s: expected %s, got %s; %s",
                    failure.tensor, failure.step, Arrays.toString(failure.index), failure.expected, failure.got, told);
        }
    }

    /** Open a stream for a trace. Throws as {@code Stream.Builder.open}. */
    public Replayer(Session session, Trace trace) {
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

    /**
     * Replay all of it in chunks of these lengths, in turn, 0 for all that is left; stop where something disagrees. A
     * model of whole sequences takes all of it at once.
     */
    public Verdict run(List<Integer> chunks) {
        begin();
        for (int turn = 0; steps < trace.steps() && failure == null; turn++) {
            int length = contract.wholeOnly() != null ? 0 : chunks.get(turn % chunks.size());
            int end = length == 0 ? trace.steps() : Math.min(steps + length, trace.steps());
            compare(call(steps, end), end);
        }
        return verdict();
    }

    /**
     * Replay all of it through {@code feed}, in blocks of so many entries, in turn, and then {@code flush}, which has to
     * fill up the last entries of each input that are left out.
     */
    public Verdict runBlocks(List<Integer> blocks, int omitted) {
        begin();
        Map<String, Tensor> left = inputs(0, trace.steps(), false);
        contract.inputs().forEach(input -> left.computeIfPresent(input.name(), (name, value) -> {
            int axis = timeAxis(input);
            return axis < 0 ? value : Waiting.cut(axis, value, 0, value.sizes()[axis] - omitted, 0);
        }));
        int taken = 1;
        for (int turn = 0; taken > 0 && failure == null; turn++) {
            Map<String, Tensor> block = new HashMap<>(left);
            int length = blocks.get(turn % blocks.size());
            taken = 0;
            for (Input input : contract.inputs()) {
                int axis = timeAxis(input);
                Tensor value = left.get(input.name());
                if (value == null || axis < 0) {
                    continue;
                }
                int all = value.sizes()[axis];
                int count = length == 0 ? all : Math.min(length, all);
                block.put(input.name(), Waiting.cut(axis, value, 0, count, 0));
                left.put(input.name(), Waiting.cut(axis, value, count, all, 0));
                taken += count;
            }
            int before = (int) stream.position();
            Map<String, Tensor> outputs = taken > 0 ? stream.feed(block) : stream.flush();
            int end = (int) stream.position();
            calls++;
            if (end > before) {
                compare(rows(outputs, end - before, false), end);
            }
        }
        return verdict();
    }

    private int timeAxis(Input input) {
        return Shapes.axisIndex(contract.callerShape(input, true), "time");
    }

    private Verdict verdict() {
        return new Verdict(steps, calls, maxError, failure);
    }

    private void compare(Map<String, Tensor> outputs, int end) {
        steps = end;
        compareOutputs(outputs, end);
        compareStates(end - 1, end);
    }

    /** Replay the first steps, one at a time; the stream goes with this. */
    public Stream toStep(int count) {
        begin();
        for (int step = 0; step < count; step++) {
            call(step, step + 1);
        }
        return stream;
    }

    @Override
    public void close() {
        stream.close();
    }

    /** Compare how all states start, and set them to row 0. */
    private void begin() {
        compareStates(-1, 0);
        trace.states().forEach((name, rows) -> stream.setState(name, rows.row(0)));
    }

    /** Run steps begin..end-1; return each output as [step, ...], one row for those without time. */
    private Map<String, Tensor> call(int begin, int end) {
        boolean isStep = end - begin == 1 && contract.wholeOnly() == null;
        Map<String, Tensor> inputs = inputs(begin, end, isStep);
        calls++;
        return rows(isStep ? stream.step(inputs) : stream.run(inputs), end - begin, isStep);
    }

    /** The recorded inputs of steps begin..end-1, as {@code step} or {@code run} takes them. */
    private Map<String, Tensor> inputs(int begin, int end, boolean isStep) {
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
        return inputs;
    }

    /** The outputs of some steps as [step, ...], one row for those without time. */
    private Map<String, Tensor> rows(Map<String, Tensor> outputs, int count, boolean isStep) {
        Map<String, Tensor> rows = new HashMap<>();
        for (Output output : contract.outputs()) {
            Tensor got = outputs.get(output.name());
            Tensor row = trace.outputs().get(output.name()).row(0);
            rows.put(output.name(), !isStep && contract.isStepped(output)
                    ? Trace.toRows(contract, output, got, row, count)
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
                int[] index = Checks.indexOf(expected.shape(), flat);
                failure = new Failure(tensor, step, index, plain(expected, flat), plain(got, flat));
            }
        }
    }

    /** A number as JSON can hold it. */
    public static Object plain(Tensor tensor, int index) {
        double number = tensor.number(index);
        if (tensor.dtype() == DType.INT64) {
            return tensor.longs()[index];
        }
        if (!tensor.dtype().isFloat()) {
            return (long) number;
        }
        return Double.isFinite(number) ? number : Double.isNaN(number) ? "nan" : number > 0 ? "inf" : "-inf";
    }
}
