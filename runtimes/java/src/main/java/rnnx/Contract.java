package rnnx;

import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.DoublePredicate;
import java.util.function.ToIntFunction;

/**
 * What a model takes, gives and carries; see docs/contract.md.
 *
 * @param id identity of the model, {@code sha256:...}
 * @param name for people
 * @param inputs what the caller gives
 * @param outputs what the caller gets
 * @param states what is carried from one step to the next
 * @param stepsPerSecond rate of the steps, null where they have none
 * @param wholeOnly the reason why the model takes only whole sequences, or null
 * @param vocabulary what the ids of a model over symbols mean, or null
 * @param user what the author handed on, as it is
 */
public record Contract(
        String id,
        String name,
        List<Input> inputs,
        List<Output> outputs,
        List<State> states,
        Double stepsPerSecond,
        String wholeOnly,
        Vocabulary vocabulary,
        JsonObject user) {

    /** A tensor of the model: name, dtype, and shape with named axes. */
    public sealed interface Spec permits Input, Output, State {
        /** Its name: of an input or output the one in the graph, of a state what the user calls it. */
        String name();

        /** The dtype of its entries. */
        DType dtype();

        /** As in the contract. */
        List<Axis> shape();

        /** The shape of one step in numbers, each name replaced by its size. */
        default int[] stepShape(ToIntFunction<String> size) {
            return numbers(Shapes.step(shape()), size);
        }

        /** The shape of a chunk of a model with time in numbers, each other name replaced by its size. */
        default int[] chunkShape(int steps, ToIntFunction<String> size) {
            return numbers(shape(), name -> name.equals("time") ? steps : size.applyAsInt(name));
        }

        private static int[] numbers(List<Axis> shape, ToIntFunction<String> size) {
            return shape.stream()
                    .mapToInt(axis -> axis.factor() * (axis.isNamed() ? size.applyAsInt(axis.name()) : 1))
                    .toArray();
        }
    }

    /**
     * What the caller gives.
     *
     * @param standIn what stands in for the input if it is left out; null if it must be given
     * @param isLength whether it counts the valid steps of each row
     * @param range what it was made for: other integers are refused, floats not; null if that is not said
     */
    public record Input(
            String name, DType dtype, List<Axis> shape, Constant standIn, boolean isLength, Range range)
            implements Spec {
        /** Whether a caller has to give it. */
        public boolean isRequired() {
            return standIn == null && !isLength;
        }

        /** The range that integers are held to, or null: that of floats says only what to test with. */
        Range bounds() {
            return dtype.isFloat() ? null : range;
        }

        /** Check that the range is one of numbers of the dtype, and that the default fits the shape and lies in it. */
        private void checkValues(boolean takesSymbols) {
            if (range != null) {
                String bounded = isLength ? "lengths" : takesSymbols ? "symbols" : null;
                String other = dtype == DType.BOOL ? "truth values" : bounded;
                if (other != null) {
                    throw invalid("a range of '" + name + "', which takes " + other);
                }
                if (!range.isOf(dtype)) {
                    throw invalid("a range of '" + name + "' that is not the least and the largest of " + dtype);
                }
            }
            if (standIn != null) {
                DoublePredicate isIn = number -> bounds() == null || range.has(Math.rint(number));
                if (!standIn.fits(this) || !Arrays.stream(standIn.numbers()).allMatch(isIn)) {
                    throw misfit(this);
                }
            }
        }
    }

    /** The least and the largest of some values. */
    public record Range(double least, double largest) {
        boolean has(double number) {
            return least <= number && number <= largest;
        }

        /** Whether the bounds are finite, the least first; of integers whole, and below 2^53, where they are exact. */
        private boolean isOf(DType dtype) {
            DoublePredicate isExact =
                    number -> number == Math.rint(number) && Math.abs(number) < 0x1p53 && dtype.holds(number);
            DoublePredicate isBound = dtype.isFloat() ? Double::isFinite : isExact;
            return isBound.test(least) && isBound.test(largest) && least <= largest;
        }
    }

    /**
     * What the caller gets.
     *
     * @param delay how many steps late it comes
     */
    public record Output(String name, DType dtype, List<Axis> shape, long delay) implements Spec {}

    /**
     * What is carried from one step to the next.
     *
     * @param input the graph input that takes its value
     * @param output the graph output that gives its next value
     * @param initial what it starts as
     * @param isEnd whether 1 in it says that the sequence is over
     */
    public record State(
            String name, String input, String output, DType dtype, List<Axis> shape, Constant initial, boolean isEnd)
            implements Spec {}

    /** How many steps late outputs come, and which state says that a sequence is over. */
    record End(int late, int state) {}

    /** How outputs come late, null if they do not. */
    End end() {
        int late = (int) outputs.stream().mapToLong(Output::delay).max().orElse(0);
        if (late <= 0) {
            return null;
        }
        for (int index = 0; index < states.size(); index++) {
            if (states.get(index).isEnd()) {
                return new End(late, index);
            }
        }
        throw new RnnxException(
                "no-end",
                "a model that can give the last " + late + " steps, which its outputs are late by",
                "one whose network ends a sequence otherwise than with zeros",
                "do without them, or give the whole sequence to a model that was exported without delay");
    }

    /** A number, or nested lists of numbers that broadcast to a shape. */
    public record Constant(int[] shape, double[] numbers) {
        /** Whether it broadcasts to the shape, varies along no named axis, and fits the dtype. */
        boolean fits(Spec spec) {
            if (!Arrays.stream(numbers).allMatch(spec.dtype()::holds)) {
                return false;
            }
            List<Axis> wanted = spec.shape();
            int first = wanted.size() - shape.length;
            for (int index = 0; index < shape.length; index++) {
                if (first < 0 || shape[index] != 1 && !wanted.get(first + index).equals(Axis.of(shape[index]))) {
                    return false;
                }
            }
            return true;
        }

        /** The numbers broadcast to {@code sizes}, as numpy does: aligned at the last axis. */
        Tensor fill(DType dtype, int[] sizes) {
            Tensor tensor = Tensor.zeros(dtype, sizes);
            for (int flat = 0; flat < tensor.count(); flat++) {
                int rest = flat;
                int index = 0;
                int stride = 1;
                for (int axis = sizes.length - 1; axis >= 0; axis--) {
                    int own = axis - sizes.length + shape.length;
                    if (own >= 0 && shape[own] != 1) {
                        index += rest % sizes[axis] * stride;
                        stride *= shape[own];
                    }
                    rest /= sizes[axis];
                }
                tensor.set(flat, numbers[index]);
            }
            return tensor;
        }
    }

    /** Read and check the JSON of a contract. Throws {@code contract-invalid}, {@code -newer} or {@code -requires}. */
    public static Contract parse(String json) {
        Contract contract = ContractReader.read(json);
        contract.check();
        return contract;
    }

    /** Whether the graph itself has a time axis. Without one it is a step model. */
    public boolean hasTime() {
        return inputs.stream().anyMatch(input -> Shapes.axisIndex(input.shape(), "time") >= 0);
    }

    /** Whether several sequences can run side by side. */
    public boolean hasBatch() {
        return inputsAndStates().stream().anyMatch(spec -> Shapes.axisIndex(spec.shape(), "batch") >= 0);
    }

    /** Names, other than batch and time, that inputs and states have, in order. */
    public Set<String> freeDimensions() {
        Set<String> names = new LinkedHashSet<>();
        inputsAndStates().forEach(spec -> spec.shape().forEach(axis -> names.add(axis.name())));
        names.removeAll(Set.of("", "batch", "time"));
        return names;
    }

    private List<Spec> inputsAndStates() {
        List<Spec> specs = new ArrayList<>(inputs);
        specs.addAll(states);
        return specs;
    }

    /** The shape of an input or output as a caller sees it: of a chunk if {@code whole}, else of one step. */
    List<Axis> callerShape(Spec spec, boolean whole) {
        if (!whole) {
            return Shapes.step(spec.shape());
        }
        boolean isLength = spec instanceof Input input && input.isLength();
        return hasTime() || isLength ? spec.shape() : Shapes.withTime(spec.shape());
    }

    /** Whether each step of a chunk has its own value of {@code spec}; else one value holds for the whole chunk. */
    public boolean isStepped(Spec spec) {
        return Shapes.axisIndex(callerShape(spec, true), "time") >= 0;
    }

    /** Check what the types cannot say. */
    private void check() {
        List<String> given = new ArrayList<>(inputs.stream().map(Input::name).toList());
        List<String> taken = new ArrayList<>(outputs.stream().map(Output::name).toList());
        states.forEach(state -> given.add(state.input()));
        states.forEach(state -> taken.add(state.output()));
        unique("input", given);
        unique("output", taken);
        unique("state", states.stream().map(State::name).toList());
        List<Spec> specs = inputsAndStates();
        specs.addAll(outputs);
        for (Spec spec : specs) {
            for (String reserved : List.of("batch", "time")) {
                if (spec.shape().stream().filter(axis -> axis.name().equals(reserved)).count() > 1) {
                    throw invalid("'" + spec.name() + "' has two " + reserved + " axes");
                }
            }
        }
        for (State state : states) {
            if (Shapes.axisIndex(state.shape(), "time") >= 0) {
                throw invalid("state '" + state.name() + "' has a time axis");
            }
            if (!state.initial().fits(state)) {
                throw misfit(state);
            }
        }
        for (Input input : inputs) {
            input.checkValues(vocabulary != null && vocabulary.input().equals(input.name()));
            boolean isAlone = input.shape().isEmpty() || input.shape().equals(List.of(new Axis("batch", 1, false)));
            if (input.isLength() && (input.dtype() != DType.INT64 || !isAlone)) {
                String found = input.dtype() + input.shape().toString();
                throw invalid("length input '" + input.name() + "' is " + found + ", not int64[batch]");
            }
        }
        if (vocabulary != null) {
            checkVocabulary();
        }
    }

    private void checkVocabulary() {
        if (inputs.stream().noneMatch(input -> input.name().equals(vocabulary.input()))) {
            throw invalid("vocabulary input '" + vocabulary.input() + "' is no input");
        }
        if (outputs.stream().noneMatch(output -> output.name().equals(vocabulary.output()))) {
            throw invalid("vocabulary output '" + vocabulary.output() + "' is no output");
        }
        Input taken = inputs.stream().filter(input -> input.name().equals(vocabulary.input())).findFirst().orElseThrow();
        if (taken.dtype() != DType.INT64) {
            throw invalid("vocabulary input '" + taken.name() + "' is not int64");
        }
        Spec given = outputs.stream().filter(output -> output.name().equals(vocabulary.output())).findFirst().orElseThrow();
        int count = vocabulary.symbols().size();
        if (given.shape().isEmpty() || !given.shape().get(given.shape().size() - 1).equals(Axis.of(count))) {
            throw invalid(count + " symbols, and not as many scores in '" + given.name() + "'");
        }
        unique("symbol", vocabulary.symbols().stream().map(Character::toString).toList());
    }

    private static void unique(String kind, List<String> names) {
        Set<String> seen = new HashSet<>();
        for (String name : names) {
            if (name.isEmpty()) {
                throw invalid("an " + kind + " without a name");
            }
            if (!seen.add(name)) {
                throw invalid("two entries for " + kind + " '" + name + "'");
            }
        }
    }

    static RnnxException misfit(Spec spec) {
        return invalid("initial or default of '" + spec.name() + "' does not fit " + spec.dtype() + spec.shape());
    }

    static RnnxException invalid(String found) {
        return new RnnxException(
                "contract-invalid",
                "a contract as docs/contract.md describes",
                found,
                "export the model again with 'rnnx export'");
    }
}
