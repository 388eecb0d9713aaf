package rnnx;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** Shapes with named axes, and how those of a chunk, of one step and of the graph hang together. */
final class Shapes {
    private Shapes() {}

    static int axisIndex(List<Axis> shape, String name) {
        for (int index = 0; index < shape.size(); index++) {
            if (shape.get(index).name().equals(name)) {
                return index;
            }
        }
        return -1;
    }

    static int count(int[] shape) {
        int product = 1;
        for (int size : shape) {
            product = Math.multiplyExact(product, size);
        }
        return product;
    }

    /** A shape in numbers; every name must be in {@code sizes}. */
    static int[] resolve(List<Axis> shape, Map<String, Integer> sizes) {
        return shape.stream().mapToInt(axis -> axis.factor() * (axis.isNamed() ? sizes.get(axis.name()) : 1)).toArray();
    }

    /** The shape of one step: no {@code time} axis; an {@code N*time} axis has N entries there. */
    static List<Axis> step(List<Axis> shape) {
        return shape.stream()
                .filter(axis -> axis.isMultiple() || !axis.name().equals("time"))
                .map(axis -> axis.isMultiple() ? Axis.of(axis.factor()) : axis)
                .toList();
    }

    /** The shape of a chunk of a step model: time right after the batch, first without one. */
    static List<Axis> withTime(List<Axis> shape) {
        List<Axis> chunk = new ArrayList<>(shape);
        chunk.add(axisIndex(shape, "batch") + 1, new Axis("time", 1, false));
        return chunk;
    }

    /** {@code sizes} with the names that {@code actual} settles; null where it contradicts shape or sizes. */
    static Map<String, Integer> fit(List<Axis> shape, int[] actual, Map<String, Integer> sizes) {
        if (shape.size() != actual.length) {
            return null;
        }
        Map<String, Integer> known = new HashMap<>(sizes);
        for (int index = 0; index < actual.length; index++) {
            Axis axis = shape.get(index);
            int count = axis.isNamed() ? known.computeIfAbsent(axis.name(), absent(actual[index] / axis.factor())) : 1;
            if (count * axis.factor() != actual[index]) {
                return null;
            }
        }
        return known;
    }

    private static java.util.function.Function<String, Integer> absent(int size) {
        return name -> size;
    }

    static Map<String, Integer> with(Map<String, Integer> sizes, String name, int size) {
        Map<String, Integer> more = new HashMap<>(sizes);
        more.put(name, size);
        return more;
    }

    /** A shape for a message, with the sizes that are known: {@code [batch=2, 4*time, 3]}. */
    static String filled(List<Axis> shape, Map<String, Integer> sizes) {
        return shape.stream()
                .map(axis -> sizes.containsKey(axis.name()) ? axis + "=" + axis.factor() * sizes.get(axis.name()) : axis.toString())
                .collect(Collectors.joining(", ", "[", "]"));
    }

    /** {@code float32[batch, 3]}: how a tensor is written in messages. */
    static String describe(Tensor tensor) {
        return tensor.dtype() + Arrays.toString(tensor.sizes());
    }

    static String join(Iterable<?> parts) {
        List<String> texts = new ArrayList<>();
        parts.forEach(part -> texts.add(part.toString()));
        return String.join(", ", texts);
    }

    /**
     * Where the values of one step lie in those of a chunk.
     *
     * @param outer number of pieces
     * @param size bytes of a piece
     * @param stride bytes from one piece to the next in the chunk
     */
    record Pieces(int outer, int size, int stride) {
        /** Along {@code axis} of a tensor of these sizes, {@code factor} entries a step. */
        static Pieces of(int[] sizes, int axis, int factor, int entryBytes) {
            int inner = count(Arrays.copyOfRange(sizes, axis + 1, sizes.length)) * entryBytes;
            return new Pieces(count(Arrays.copyOf(sizes, axis)), factor * inner, sizes[axis] * inner);
        }

        /** Copy a step of {@code chunk} to {@code row}, which is contiguous. */
        void take(ByteBuffer chunk, int step, ByteBuffer row) {
            for (int index = 0; index < outer; index++) {
                row.put(index * size, chunk, index * stride + step * size, size);
            }
        }

        /** Copy {@code row} to a step of {@code chunk}. */
        void put(ByteBuffer chunk, int step, ByteBuffer row) {
            for (int index = 0; index < outer; index++) {
                chunk.put(index * stride + step * size, row, index * size, size);
            }
        }
    }
}
