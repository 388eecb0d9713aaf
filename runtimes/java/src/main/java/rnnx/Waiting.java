package rnnx;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import rnnx.Contract.Input;
import rnnx.Contract.Output;

/**
 * Entries that wait for a whole step: what {@code Stream.feed} was given and no step has taken yet. A step takes N entries
 * along an {@code N*time} axis; blocks of other lengths are joined here. Never changed.
 *
 * @param values by input, in the shape of a chunk; of an input without time the latest value
 */
record Waiting(Contract contract, Map<String, Tensor> values) {
    /** An input with time that was given: how many entries it has, and how many of them a step takes. */
    record Timed(Input input, int axis, int entries, int factor) {}

    List<Timed> timed() {
        List<Timed> found = new ArrayList<>();
        for (Input input : contract.inputs()) {
            List<Axis> shape = contract.callerShape(input, true);
            int axis = Shapes.axisIndex(shape, "time");
            Tensor value = values.get(input.name());
            if (value != null && axis >= 0) {
                found.add(new Timed(input, axis, value.sizes()[axis], shape.get(axis).factor()));
            }
        }
        return found;
    }

    /** How many entries of each input wait, without those of which none does. */
    Map<String, Integer> counts() {
        Map<String, Integer> counts = new LinkedHashMap<>();
        for (Timed timed : timed()) {
            if (timed.entries > 0) {
                counts.put(timed.input.name(), timed.entries);
            }
        }
        return counts;
    }

    /** Refuse what would take entries out of their order. */
    void requireNone() {
        if (values.isEmpty()) {
            return;
        }
        counts().forEach((name, count) -> {
            throw new RnnxException(
                    "entries-waiting",
                    "no entries waiting for a whole step",
                    count + " of '" + name + "'",
                    "flush first, or reset the whole stream");
        });
    }

    /** What waits with inputs behind it, checked as if it were run. */
    Waiting joined(Map<String, Tensor> inputs, Map<String, Integer> sizes) {
        Map<String, Tensor> every = new HashMap<>(values);
        every.putAll(inputs);
        Checks.checkNames(contract, every);
        Map<String, Tensor> made = new HashMap<>(values);
        for (Input input : contract.inputs()) {
            Tensor value = inputs.get(input.name());
            if (value == null) {
                continue;
            }
            if (input.isLength()) {
                throw new RnnxException(
                        "feed-length",
                        "no lengths in feed, of which all entries count",
                        "'" + input.name() + "'",
                        "leave it out, or give the whole sequence to run");
            }
            if (value.dtype() != input.dtype()) {
                throw Checks.wrongDtype(input, value);
            }
            List<Axis> shape = contract.callerShape(input, true);
            Tensor before = values.get(input.name());
            if (!fits(shape, value, before, sizes)) {
                throw Checks.misfit(input, shape, value.sizes(), sizes, true);
            }
            int axis = Shapes.axisIndex(shape, "time");
            made.put(input.name(), before != null && axis >= 0 ? joined(axis, before, value) : value.copy());
        }
        Waiting waiting = new Waiting(contract, made);
        int steps = waiting.stepsToFlush();
        if (steps > 0) {
            Map<String, Tensor> taken = waiting.first(steps);
            Checks.matchInputs(contract, taken, sizes, true);
            Checks.checkValues(contract, taken, steps);
        }
        return waiting;
    }

    /** Steps that nobody gave, of which no entry is there yet; inputs without time are what they were. */
    Waiting nothing(Map<String, Integer> sizes) {
        Map<String, Tensor> made = new HashMap<>(values);
        for (Input input : contract.inputs()) {
            List<Axis> shape = contract.callerShape(input, true);
            if (Shapes.axisIndex(shape, "time") >= 0) {
                made.put(input.name(), Tensor.zeros(input.dtype(), sizesOf(shape, sizes)));
            }
        }
        return new Waiting(contract, made);
    }

    /** How many steps can be run: as many as the shortest of the inputs that were given has. */
    int wholeSteps() {
        return timed().stream().mapToInt(timed -> timed.entries / timed.factor).min().orElse(0);
    }

    /** How many steps take all that waits, the last of them filled up. */
    int stepsToFlush() {
        return timed().stream().mapToInt(timed -> (timed.entries + timed.factor - 1) / timed.factor).max().orElse(0);
    }

    /** The inputs of the first steps, filled up with zeros, or what is nearest to 0 in a range. */
    Map<String, Tensor> first(int steps) {
        Map<String, Tensor> taken = new HashMap<>(values);
        for (Timed timed : timed()) {
            Contract.Range range = timed.input.range();
            double filling = range == null ? 0 : Math.min(Math.max(0, range.least()), range.largest());
            taken.computeIfPresent(
                    timed.input.name(), (name, value) -> cut(timed.axis, value, 0, steps * timed.factor, filling));
        }
        return taken;
    }

    /** What waits behind the first steps. */
    Waiting without(int steps) {
        Map<String, Tensor> left = new HashMap<>(values);
        for (Timed timed : timed()) {
            int begin = Math.min(timed.entries, steps * timed.factor);
            left.computeIfPresent(
                    timed.input.name(), (name, value) -> cut(timed.axis, value, begin, timed.entries, 0));
        }
        return new Waiting(contract, left);
    }

    /** The outputs of no steps: those with time, of length 0. A size that only a run tells is 0. */
    static Map<String, Tensor> noOutputs(Contract contract, Map<String, Integer> sizes) {
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        for (Output output : contract.outputs()) {
            if (contract.isStepped(output)) {
                int[] shape = sizesOf(contract.callerShape(output, true), sizes);
                outputs.put(output.name(), Tensor.zeros(output.dtype(), shape));
            }
        }
        return outputs;
    }

    /** A shape in numbers; of what is not known, such as time, 0. */
    private static int[] sizesOf(List<Axis> shape, Map<String, Integer> sizes) {
        return shape.stream()
                .mapToInt(axis -> axis.factor() * (axis.isNamed() ? sizes.getOrDefault(axis.name(), 0) : 1))
                .toArray();
    }

    /** Outputs of steps with those of the steps after them; of an output without time, the last. */
    static Map<String, Tensor> joinedOutputs(Contract contract, Map<String, Tensor> first, Map<String, Tensor> then) {
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        for (Output output : contract.outputs()) {
            int axis = Shapes.axisIndex(contract.callerShape(output, true), "time");
            Tensor before = first.get(output.name());
            Tensor last = then.get(output.name());
            outputs.put(output.name(), before != null && axis >= 0 ? joined(axis, before, last) : last);
        }
        return outputs;
    }

    /** Whether a tensor has the axes of a chunk, of the sizes that are known; any number along time. */
    private static boolean fits(List<Axis> shape, Tensor value, Tensor before, Map<String, Integer> sizes) {
        if (value.sizes().length != shape.size() || value.count() != Shapes.count(value.sizes())) {
            return false;
        }
        for (int index = 0; index < shape.size(); index++) {
            Axis axis = shape.get(index);
            Integer wanted = axis.isNamed() ? sizes.get(axis.name()) : Integer.valueOf(axis.factor());
            if (wanted == null && before != null) {
                wanted = before.sizes()[index];
            }
            if (!axis.name().equals("time") && wanted != null && wanted != value.sizes()[index]) {
                return false;
            }
        }
        return true;
    }

    /** Entries begin..end-1 along an axis; where there are fewer, {@code filling} stands for them. */
    static Tensor cut(int axis, Tensor tensor, int begin, int end, double filling) {
        int[] shape = tensor.shape();
        shape[axis] = end - begin;
        Tensor made = Tensor.zeros(tensor.dtype(), shape);
        for (int index = 0; filling != 0 && index < made.count(); index++) {
            made.set(index, filling);
        }
        copy(axis, tensor, begin, Math.max(0, Math.min(end, tensor.sizes()[axis]) - begin), made, 0);
        return made;
    }

    private static Tensor joined(int axis, Tensor first, Tensor second) {
        int count = first.sizes()[axis];
        int more = second.sizes()[axis];
        Tensor made = cut(axis, first, 0, count + more, 0);
        copy(axis, second, 0, more, made, count);
        return made;
    }

    /** Copy entries along an axis, from {@code begin} of one tensor to {@code at} of another. */
    private static void copy(int axis, Tensor from, int begin, int count, Tensor to, int at) {
        int bytes = from.dtype().size;
        Shapes.Pieces source = Shapes.Pieces.of(from.sizes(), axis, 1, bytes);
        Shapes.Pieces target = Shapes.Pieces.of(to.sizes(), axis, 1, bytes);
        ByteBuffer data = to.data();
        for (int piece = 0; piece < source.outer(); piece++) {
            int start = piece * target.stride() + at * target.size();
            data.put(start, from.data(), piece * source.stride() + begin * source.size(), count * source.size());
        }
    }
}
