package rnnx;

import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import rnnx.Contract.Input;
import rnnx.Contract.Output;
import rnnx.Contract.Spec;
import rnnx.Contract.State;

/**
 * Recorded inputs, outputs and states, by name: the test vectors that all languages share.
 *
 * @param steps number of steps recorded
 * @param sizes of batch and free dimensions
 * @param inputs [step, ...], or once for inputs without time; none where the default was taken
 * @param outputs [step, ...]
 * @param states [step+1, ...], row 0 the start
 * @param bounds of {@code output.NAME} and {@code state.NAME}
 */
public record Trace(
        int steps,
        Map<String, Integer> sizes,
        Map<String, Tensor> inputs,
        Map<String, Tensor> outputs,
        Map<String, Tensor> states,
        Map<String, Bound> bounds) {

    /** How far a value may be off: {@code |got - expected| <= absolute + relative * |expected|}. */
    public record Bound(double absolute, double relative) {}

    /**
     * Read a trace and check it against the model it is for.
     *
     * @throws RnnxException {@code not-safetensors}, {@code not-a-trace}, {@code trace-newer},
     *     {@code trace-of-another-model} or {@code trace-invalid}
     */
    public static Trace decode(byte[] data, Contract contract) {
        TensorFile file = TensorFile.decode(data, "a trace");
        file.check("trace", contract.id());
        Map<String, Bound> bounds = bounds(file.metadata().getOrDefault("tolerances", ""));
        Reader reader = new Reader(file, new TreeMap<>());
        Map<String, Tensor> inputs = new LinkedHashMap<>();
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        Map<String, Tensor> states = new LinkedHashMap<>();
        for (Input input : contract.inputs()) {
            if (input.isRequired() || file.tensors().containsKey("input." + input.name())) {
                String first = contract.isStepped(input) ? "step" : "";
                inputs.put(input.name(), reader.take("input", input, Shapes.step(input.shape()), first));
            }
        }
        for (Output output : contract.outputs()) {
            outputs.put(output.name(), reader.take("output", output, Shapes.step(output.shape()), "step"));
        }
        for (State state : contract.states()) {
            states.put(state.name(), reader.take("state", state, state.shape(), "step+1"));
        }
        outputs.keySet().forEach(name -> require(bounds, "output." + name));
        states.keySet().forEach(name -> require(bounds, "state." + name));
        Map<String, Integer> sizes = new HashMap<>(reader.sizes());
        Integer steps = sizes.remove("step");
        if (steps == null) {
            throw invalid("at least one step", "none");
        }
        return new Trace(steps, sizes, inputs, outputs, states, bounds);
    }

    private static Map<String, Bound> bounds(String text) {
        Map<String, Bound> bounds = new TreeMap<>();
        try {
            ContractReader.parse(text).getAsJsonObject().entrySet().forEach(entry -> {
                JsonObject fields = entry.getValue().getAsJsonObject();
                double absolute = fields.get("atol").getAsDouble();
                bounds.put(entry.getKey(), new Bound(absolute, fields.get("rtol").getAsDouble()));
            });
        } catch (RuntimeException error) {
            throw invalid("tolerances as JSON", "'" + text.substring(0, Math.min(text.length(), 60)) + "'");
        }
        return bounds;
    }

    private static void require(Map<String, Bound> bounds, String name) {
        if (!bounds.containsKey(name)) {
            String found = bounds.isEmpty() ? "none" : String.join(", ", new TreeSet<>(bounds.keySet()));
            throw invalid("a tolerance for '" + name + "'", found);
        }
    }

    /** Takes tensors out of a trace, checking that all agree on steps, batch and free dimensions. */
    private record Reader(TensorFile file, TreeMap<String, Integer> sizes) {
        /** The tensor {@code kind.NAME}, of {@code shape} behind a first axis: "step", "step+1" or none. */
        Tensor take(String kind, Spec spec, List<Axis> shape, String first) {
            String name = kind + "." + spec.name();
            Tensor tensor = file.tensors().get(name);
            if (tensor == null) {
                throw invalid("a tensor '" + name + "'", file.names());
            }
            Map<String, Integer> fitted = fit(tensor, shape, first);
            if (fitted == null || tensor.dtype() != spec.dtype()) {
                List<String> wanted = new ArrayList<>(first.isEmpty() ? List.of() : List.of(first));
                shape.forEach(axis -> wanted.add(axis.toString()));
                List<String> known = new ArrayList<>();
                sizes.forEach((key, size) -> known.add(key + " " + size));
                String where = known.isEmpty() ? "" : " where " + String.join(", ", known);
                throw invalid("'" + name + "' as " + spec.dtype() + wanted + where, Shapes.describe(tensor));
            }
            sizes.putAll(fitted);
            return tensor;
        }

        private Map<String, Integer> fit(Tensor tensor, List<Axis> shape, String first) {
            int[] actual = tensor.sizes();
            if (first.isEmpty()) {
                return Shapes.fit(shape, actual, sizes);
            }
            if (actual.length == 0) {
                return null;
            }
            int steps = first.equals("step") ? actual[0] : actual[0] - 1;
            if (steps < 1 || sizes.getOrDefault("step", steps) != steps) {
                return null;
            }
            int[] rest = java.util.Arrays.copyOfRange(actual, 1, actual.length);
            return Shapes.fit(shape, rest, Shapes.with(sizes, "step", steps));
        }
    }

    /** Steps begin..end-1 of {@code rows}, [step, ...], as a chunk of {@code spec}. */
    public static Tensor toChunk(Contract contract, Spec spec, Tensor rows, int begin, int end) {
        Tensor chunk = Tensor.zeros(rows.dtype(), chunkShape(contract, spec, rows.row(begin).sizes(), end - begin));
        Shapes.Pieces pieces = pieces(contract, spec, chunk);
        for (int step = begin; step < end; step++) {
            pieces.put(chunk.data(), step - begin, rows.row(step).data());
        }
        return chunk;
    }

    /** A chunk of {@code spec} as [step, ...], with rows of {@code row}'s shape: the inverse of {@link #toChunk}. */
    public static Tensor toRows(Contract contract, Spec spec, Tensor chunk, Tensor row, int steps) {
        int[] shape = new int[row.sizes().length + 1];
        shape[0] = steps;
        System.arraycopy(row.sizes(), 0, shape, 1, row.sizes().length);
        Tensor rows = Tensor.zeros(chunk.dtype(), shape);
        Shapes.Pieces pieces = pieces(contract, spec, chunk);
        for (int step = 0; step < steps; step++) {
            pieces.take(chunk.data(), step, rows.row(step).data());
        }
        return rows;
    }

    private static int[] chunkShape(Contract contract, Spec spec, int[] row, int steps) {
        List<Axis> axes = contract.callerShape(spec, true);
        int[] shape = new int[axes.size()];
        int next = 0;
        for (int axis = 0; axis < shape.length; axis++) {
            boolean isTime = axes.get(axis).name().equals("time");
            shape[axis] = isTime ? axes.get(axis).factor() * steps : row[next];
            next += isTime && !axes.get(axis).isMultiple() ? 0 : 1;
        }
        return shape;
    }

    private static Shapes.Pieces pieces(Contract contract, Spec spec, Tensor chunk) {
        List<Axis> axes = contract.callerShape(spec, true);
        int axis = Shapes.axisIndex(axes, "time");
        return Shapes.Pieces.of(chunk.sizes(), axis, axes.get(axis).factor(), chunk.dtype().size);
    }

    private static RnnxException invalid(String expected, String found) {
        return new RnnxException(
                "trace-invalid",
                "a trace with " + expected,
                found,
                "record it again with 'rnnx export', or use the trace that belongs to this model");
    }
}
