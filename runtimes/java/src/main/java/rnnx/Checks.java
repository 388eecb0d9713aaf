package rnnx;

import static rnnx.Shapes.describe;
import static rnnx.Shapes.filled;
import static rnnx.Shapes.join;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import rnnx.Contract.Input;
import rnnx.Contract.Range;
import rnnx.Contract.Spec;
import rnnx.Contract.State;

/**
 * What a caller hands in, held against the contract before the engine sees it: engines read out of bounds, or abort the
 * process, on values that do not fit.
 */
final class Checks {
    private Checks() {}

    /** The sizes a stream is opened with, batch included. */
    static Map<String, Integer> openSizes(Contract contract, int batch, Map<String, Integer> dims) {
        Set<String> free = contract.freeDimensions();
        new TreeMap<>(dims).forEach((name, size) -> {
            if (!free.contains(name)) {
                throw unknown("dimension", name, free);
            }
            if (size < 1) {
                throw new RnnxException("wrong-dimension", name + " as a number of 1 or more", size.toString(), "change it");
            }
        });
        if (batch < 1) {
            String found = String.valueOf(batch);
            throw new RnnxException("empty-batch", "batch as a number of 1 or more", found, "change it");
        }
        if (batch != 1 && !contract.hasBatch()) {
            throw new RnnxException(
                    "no-batch",
                    "batch 1, since the model has no batch axis",
                    String.valueOf(batch),
                    "open one stream per sequence, or export with a batch axis");
        }
        contract.states().forEach(state -> checkSizes(state, dims));
        Map<String, Integer> sizes = Shapes.with(dims, "batch", batch);
        contract.states().forEach(state -> checkBytes(state, sizes));
        return sizes;
    }

    /** Refuse a state of more bytes than a buffer can have. */
    private static void checkBytes(State state, Map<String, Integer> sizes) {
        double bytes = state.dtype().size;
        for (Axis axis : state.shape()) {
            bytes *= (double) axis.factor() * sizes.getOrDefault(axis.name(), 1);
        }
        if (bytes > Integer.MAX_VALUE) {
            String found = "state '" + state.name() + "' as " + state.dtype() + filled(state.shape(), sizes);
            String expected = "sizes whose states fit into memory";
            throw new RnnxException("out-of-memory", expected, found, "open the stream with smaller ones");
        }
    }

    private static void checkSizes(State state, Map<String, Integer> dims) {
        for (Axis axis : state.shape()) {
            if (!Set.of("", "batch").contains(axis.name()) && !dims.containsKey(axis.name())) {
                throw new RnnxException(
                        "missing-dimension",
                        "the size of '" + axis.name() + "', which state '" + state.name() + "' has",
                        "dims with " + (dims.isEmpty() ? "nothing" : join(new TreeSet<>(dims.keySet()))),
                        "bind it when opening the stream");
            }
        }
    }

    /** The refusal of what a model of whole sequences cannot do. */
    static RnnxException wholeOnly(Contract contract, String found) {
        return new RnnxException(
                "whole-only",
                "the whole sequence in one call of run, because of " + contract.wholeOnly(),
                found,
                "give the whole sequence to run, and reset before the next one");
    }

    /** The size of every dimension, once names, dtypes and shapes fit: of a chunk if {@code whole}, else of one step. */
    static Map<String, Integer> matchInputs(
            Contract contract, Map<String, Tensor> inputs, Map<String, Integer> known, boolean whole) {
        checkNames(contract, inputs);
        Map<String, Integer> sizes = whole ? known : Shapes.with(known, "time", 1);
        for (Input input : contract.inputs()) {
            Tensor tensor = inputs.get(input.name());
            if (tensor == null) {
                continue;
            }
            if (tensor.dtype() != input.dtype()) {
                throw wrongDtype(input, tensor);
            }
            List<Axis> shape = contract.callerShape(input, whole);
            Map<String, Integer> fitted = Shapes.fit(shape, tensor.sizes(), sizes);
            if (fitted == null || Arrays.stream(tensor.sizes()).anyMatch(size -> size == 0)) {
                throw misfit(input, shape, tensor.sizes(), sizes, whole);
            }
            sizes = fitted;
            checkCount(input, shape, tensor, sizes);
        }
        List<String> needed = new ArrayList<>(List.of("time"));
        needed.addAll(contract.freeDimensions());
        for (String name : needed) {
            if (!sizes.containsKey(name)) {
                throw new RnnxException(
                        "missing-dimension",
                        "an input that tells the size of '" + name + "'",
                        "none given that has such an axis",
                        name.equals("time") ? "give one of the optional inputs" : "bind it when opening the stream");
            }
        }
        return sizes;
    }

    static void checkNames(Contract contract, Map<String, Tensor> inputs) {
        List<String> known = contract.inputs().stream().map(Input::name).toList();
        for (String name : new TreeSet<>(inputs.keySet())) {
            if (!known.contains(name)) {
                throw unknown("input", name, known);
            }
        }
        List<String> needed = contract.inputs().stream().filter(Input::isRequired).map(Input::name).toList();
        for (String name : needed) {
            if (inputs.get(name) == null) {
                throw new RnnxException(
                        "missing-input",
                        "a value for each of the inputs " + join(needed),
                        "none for '" + name + "'",
                        "add '" + name + "'");
            }
        }
    }

    /** Check the values of inputs whose shapes fit. */
    static void checkValues(Contract contract, Map<String, Tensor> inputs, int time) {
        for (Input input : contract.inputs()) {
            Tensor tensor = inputs.get(input.name());
            Check check = Check.of(contract, input, time);
            int flat = tensor == null ? -1 : check.firstWrong(tensor);
            if (flat >= 0) {
                throw check.problem(input, tensor, flat);
            }
        }
    }

    /**
     * What is checked about the values of one input.
     *
     * @param isFinite whether NaN and infinity are refused
     * @param kind what integers are, {@code symbol}, {@code length} or {@code value}; null if any will do
     * @param within where those must lie
     */
    record Check(boolean isFinite, String kind, Range within) {
        private static final Map<String, String[]> WORDS = Map.of(
                "symbol", new String[] {"ids", "encode the text with the model's own vocabulary"},
                "length", new String[] {"lengths", "give the number of valid steps of each row in this call"},
                "value", new String[] {"values", "give values in the range that the model was exported for"});

        static Check of(Contract contract, Input input, int time) {
            Vocabulary vocabulary = contract.vocabulary();
            if (vocabulary != null && vocabulary.input().equals(input.name())) {
                return new Check(false, "symbol", new Range(0, vocabulary.symbols().size() - 1));
            }
            if (input.isLength()) {
                return new Check(false, "length", new Range(0, time));
            }
            Range bounds = input.bounds();
            return new Check(input.dtype().isFloat(), bounds == null ? null : "value", bounds);
        }

        /** Index of the first value that may not reach the engine, or -1. */
        int firstWrong(Tensor tensor) {
            int count = isFinite || kind != null ? tensor.count() : 0;
            for (int index = 0; index < count; index++) {
                double value = tensor.number(index);
                if (isFinite ? !Double.isFinite(value) : !within.has(value)) {
                    return index;
                }
            }
            return -1;
        }

        RnnxException problem(Spec spec, Tensor tensor, int flat) {
            String code = isFinite ? "non-finite" : kind + "-range";
            String allowed = "finite values";
            String fix = "mend the source of the NaN or infinity; one of them would spoil every later step";
            if (!isFinite) {
                String[] words = WORDS.get(kind);
                allowed = words[0] + " in " + shown(within.least()) + ".." + shown(within.largest());
                fix = words[1];
            }
            String place = tensor.sizes().length == 0 ? "as its value" : "at index " + index(tensor, flat);
            String found = shown(tensor.number(flat)) + " " + place;
            return new RnnxException(code, allowed + " in '" + spec.name() + "'", found, fix);
        }
    }

    private static String index(Tensor tensor, int flat) {
        return Arrays.toString(indexOf(tensor.sizes(), flat));
    }

    /** The index of entry {@code flat} in a tensor of {@code shape}. */
    static int[] indexOf(int[] shape, int flat) {
        int[] index = new int[shape.length];
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            index[axis] = flat % shape[axis];
            flat /= shape[axis];
        }
        return index;
    }

    /** A number as all languages write it in messages. */
    static String shown(double number) {
        if (Double.isNaN(number)) {
            return "nan";
        }
        if (Double.isInfinite(number)) {
            return number > 0 ? "inf" : "-inf";
        }
        return number == Math.rint(number) ? String.format("%.0f", number) : String.valueOf(number);
    }

    /** The position of a state, once a value for it has the right dtype and shape, and no NaN. */
    static int checkState(Contract contract, String name, Tensor value, Map<String, Integer> sizes) {
        int position = stateIndex(contract, name);
        State spec = contract.states().get(position);
        if (value.dtype() != spec.dtype()) {
            throw wrongDtype(spec, value);
        }
        if (!Arrays.equals(Shapes.resolve(spec.shape(), sizes), value.sizes())) {
            throw wrongShape(spec, spec.shape(), sizes, describe(value), null);
        }
        checkCount(spec, spec.shape(), value, sizes);
        String place = nanIn(value);
        if (place != null) {
            throw new RnnxException(
                    "non-finite",
                    "state '" + name + "' without NaN (infinities are allowed)",
                    place,
                    "mend where it comes from; a NaN stays in a state for ever");
        }
        return position;
    }

    /** Where the first NaN of a tensor stands, in words; null if there is none. */
    static String nanIn(Tensor value) {
        for (int flat = 0; value.dtype().isFloat() && flat < value.count(); flat++) {
            if (Double.isNaN(value.number(flat))) {
                return "nan at index " + index(value, flat);
            }
        }
        return null;
    }

    static int stateIndex(Contract contract, String name) {
        List<String> names = contract.states().stream().map(State::name).toList();
        if (!names.contains(name)) {
            throw unknown("state", name, names);
        }
        return names.indexOf(name);
    }

    /** The start of every state: the caller's where named there, else the contract's. */
    static List<Tensor> starts(Contract contract, Map<String, Integer> sizes, Map<String, Tensor> initial) {
        List<Tensor> starts = new ArrayList<>();
        for (State state : contract.states()) {
            starts.add(state.initial().fill(state.dtype(), Shapes.resolve(state.shape(), sizes)));
        }
        new TreeMap<>(initial)
                .forEach((name, value) -> starts.set(checkState(contract, name, value, sizes), value.copy()));
        return starts;
    }

    private static RnnxException unknown(String kind, String name, Iterable<String> known) {
        String listed = join(known);
        String fix = "use one of the names that 'rnnx inspect' lists as " + kind + "s";
        if (kind.equals("input")) {
            fix = "correct or remove it; 'rnnx inspect' lists the inputs";
        } else if (listed.isEmpty()) {
            listed = "(none)";
        }
        return new RnnxException("unknown-" + kind, kind + "s " + listed, "'" + name + "'", fix);
    }

    static RnnxException wrongDtype(Spec spec, Tensor tensor) {
        String expected = "'" + spec.name() + "' as " + spec.dtype();
        return new RnnxException("wrong-dtype", expected, describe(tensor), "convert it to " + spec.dtype());
    }

    private static RnnxException wrongShape(
            Spec spec, List<Axis> shape, Map<String, Integer> sizes, String found, String fix) {
        return new RnnxException(
                "wrong-shape",
                "'" + spec.name() + "' as " + spec.dtype() + filled(shape, sizes),
                found,
                fix != null ? fix : "reshape it, or open the stream with the batch and dims that you mean");
    }

    /** Check that there are as many entries as the shape says. */
    private static void checkCount(Spec spec, List<Axis> shape, Tensor tensor, Map<String, Integer> sizes) {
        if (tensor.count() != Shapes.count(tensor.sizes())) {
            String found = Arrays.toString(tensor.sizes()) + " with " + tensor.count() + " entries";
            throw wrongShape(spec, shape, sizes, found, null);
        }
    }

    /** The error for an input whose sizes do not fit {@code shape}, {@code sizes} or each other. */
    static RnnxException misfit(
            Spec spec, List<Axis> shape, int[] actual, Map<String, Integer> sizes, boolean whole) {
        String found = Arrays.toString(actual);
        for (String name : List.of("batch", "time")) {
            int axis = Shapes.axisIndex(shape, name);
            if (axis >= 0 && actual.length == shape.size() && actual[axis] == 0) {
                return new RnnxException(
                        "empty-" + name,
                        "'" + spec.name() + "' as " + spec.dtype() + filled(shape, sizes) + " with at least one entry",
                        found + ": a " + name + " of 0",
                        "leave the call out when there is nothing to run");
            }
        }
        if (actual.length == shape.size() + 1 && !whole) {
            found += ", which has one axis more than a step";
            return wrongShape(spec, shape, sizes, found, "use run for chunks");
        }
        int time = Shapes.axisIndex(shape, "time");
        if (whole && time >= 0 && actual.length == shape.size()) {
            int factor = shape.get(time).factor();
            int[] full = actual.clone();
            full[time] = (actual[time] + factor - 1) / factor * factor;
            if (full[time] != actual[time] && Shapes.fit(shape, full, sizes) != null) {
                found += ", where " + actual[time] + " is no multiple of " + factor;
                String fix = "fill it up to " + full[time] + ", or give it to feed, which keeps what is over";
                return wrongShape(spec, shape, sizes, found, fix);
            }
        }
        if (whole && withAxis("time", shape, actual, sizes) != null) {
            found += ", which has one axis less than a chunk";
            return wrongShape(spec, shape, sizes, found, "use step for one step");
        }
        int[] batched = withAxis("batch", shape, actual, sizes);
        if (batched != null) {
            String fix = "reshape it to " + Arrays.toString(batched) + ", a batch of one row";
            return wrongShape(spec, shape, sizes, found + ", which has no batch axis", fix);
        }
        return wrongShape(spec, shape, sizes, found, null);
    }

    /** Sizes with a 1 for the axis called {@code name}; null where they do not fit shape and sizes so. */
    private static int[] withAxis(String name, List<Axis> shape, int[] actual, Map<String, Integer> sizes) {
        int axis = Shapes.axisIndex(shape, name);
        if (axis < 0 || actual.length != shape.size() - 1) {
            return null;
        }
        int[] more = new int[shape.size()];
        System.arraycopy(actual, 0, more, 0, axis);
        more[axis] = 1;
        System.arraycopy(actual, axis, more, axis + 1, actual.length - axis);
        return Shapes.fit(shape, more, sizes) != null ? more : null;
    }
}
