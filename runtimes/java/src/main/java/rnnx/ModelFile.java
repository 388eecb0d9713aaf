package rnnx;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * Reading an ONNX file as far as a contract goes: metadata, and the signature of its graph. Field numbers are those of
 * onnx.proto; the encoding is protobuf's.
 */
final class ModelFile {
    /** A graph input or output as the file declares it; a dimension of "" is left open. */
    private record GraphValue(String dtype, List<String> shape) {}

    private final TreeMap<String, GraphValue> inputs = new TreeMap<>();
    private final TreeMap<String, GraphValue> outputs = new TreeMap<>();
    private final Set<String> initializers = new HashSet<>();
    private String contract;

    private boolean isExternal;

    private ModelFile() {}

    /**
     * What is known of a model before an engine sees it.
     *
     * @param isExternal whether values of tensors lie in other files, which are as they should be
     */
    record Read(Contract contract, boolean isExternal) {}

    /**
     * Read the contract inside a model, checked against its graph. Throws {@code not-onnx},
     * {@code external-data-missing}, {@code external-data-refused}, {@code no-contract}, {@code contract-invalid},
     * {@code contract-newer}, {@code contract-requires} or {@code contract-graph}.
     *
     * @param path null for a model that is bytes alone
     */
    static Read read(byte[] data, Path path, String label) {
        ModelFile file = new ModelFile();
        try {
            file.read(ByteBuffer.wrap(data));
            file.isExternal = External.check(ByteBuffer.wrap(data), path);
        } catch (Malformed error) {
            throw new RnnxException(
                    "not-onnx",
                    "an ONNX model in " + label,
                    data.length + " bytes that are none, or are cut short",
                    "name a file that 'rnnx export' wrote, or export it again",
                    error);
        }
        if (file.contract == null) {
            throw new RnnxException(
                    "no-contract",
                    "an rnnx contract in " + label,
                    "an ONNX model without one",
                    "export it with 'rnnx export'");
        }
        Contract contract = Contract.parse(file.contract);
        TreeMap<String, Contract.Spec> given = new TreeMap<>();
        TreeMap<String, Contract.Spec> taken = new TreeMap<>();
        contract.inputs().forEach(input -> given.put(input.name(), input));
        contract.outputs().forEach(output -> taken.put(output.name(), output));
        contract.states().forEach(state -> given.put(state.input(), state));
        contract.states().forEach(state -> taken.put(state.output(), state));
        agree(label, "input", given, file.inputs);
        agree(label, "output", taken, file.outputs);
        return new Read(contract, file.isExternal);
    }

    private static void agree(
            String label, String kind, TreeMap<String, Contract.Spec> named, TreeMap<String, GraphValue> graph) {
        if (!named.keySet().equals(graph.keySet())) {
            throw disagreement(label, "the " + kind + "s", orNone(named.keySet()), orNone(graph.keySet()));
        }
        named.forEach((name, spec) -> {
            GraphValue value = graph.get(name);
            List<String> shape = spec.shape().stream().map(Axis::toString).toList();
            boolean fits = spec.dtype().toString().equals(value.dtype()) && shape.size() == value.shape().size();
            for (int index = 0; fits && index < shape.size(); index++) {
                String theirs = value.shape().get(index);
                fits = theirs.isEmpty() || theirs.equals(shape.get(index));
            }
            if (!fits) {
                String ours = spec.dtype() + shape.toString();
                throw disagreement(label, kind + " '" + name + "'", ours, value.dtype() + value.shape());
            }
        });
    }

    private static RnnxException disagreement(String label, String expected, String ours, String theirs) {
        return new RnnxException(
                "contract-graph",
                "contract and graph of " + label + " to agree on " + expected,
                ours + " in the contract, " + theirs + " in the graph",
                "export the model again with 'rnnx export'");
    }

    private static String orNone(Set<String> names) {
        return names.isEmpty() ? "none" : String.join(", ", names);
    }

    private void read(ByteBuffer model) throws Malformed {
        boolean hasVersion = false;
        boolean hasOperators = false;
        ByteBuffer graph = null;
        for (Field field : fields(model)) {
            switch (field.number()) {
                case 1 -> hasVersion = field.value() != 0;
                case 7 -> graph = field.bytes();
                case 8 -> hasOperators = true;
                case 14 -> metadata(field.bytes());
                default -> {}
            }
        }
        if (graph == null || !hasVersion || !hasOperators) {
            throw new Malformed("no graph, version or operator set");
        }
        for (Field field : fields(graph)) {
            switch (field.number()) {
                case 5 -> {
                    for (Field inner : fields(field.bytes())) {
                        if (inner.number() == 8) {
                            initializers.add(inner.text());
                        }
                    }
                }
                case 11 -> valueInfo(field.bytes(), inputs);
                case 12 -> valueInfo(field.bytes(), outputs);
                default -> {}
            }
        }
        inputs.keySet().removeAll(initializers);
    }

    private void metadata(ByteBuffer message) throws Malformed {
        String[] entry = entry(message);
        if (entry[0].equals("rnnx.contract")) {
            contract = entry[1];
        }
    }

    /** Key and value of a message of two texts. */
    static String[] entry(ByteBuffer message) throws Malformed {
        String[] entry = {"", ""};
        for (Field field : fields(message)) {
            if (field.number() == 1 || field.number() == 2) {
                entry[field.number() - 1] = field.text();
            }
        }
        return entry;
    }

    private static void valueInfo(ByteBuffer message, Map<String, GraphValue> values) throws Malformed {
        String name = "";
        String dtype = "";
        List<String> shape = new ArrayList<>();
        for (Field field : fields(message)) {
            if (field.number() == 1) {
                name = field.text();
            } else if (field.number() == 2) {
                for (Field tensor : fields(field.bytes())) {
                    for (Field inner : tensor.number() == 1 ? fields(tensor.bytes()) : List.<Field>of()) {
                        if (inner.number() == 1) {
                            dtype = dtype(inner.value());
                        } else if (inner.number() == 2) {
                            dimensions(inner.bytes(), shape);
                        }
                    }
                }
            }
        }
        values.put(name, new GraphValue(dtype, shape));
    }

    private static String dtype(long number) {
        for (DType dtype : DType.values()) {
            if (dtype.onnx == number) {
                return dtype.toString();
            }
        }
        return "another type";
    }

    private static void dimensions(ByteBuffer message, List<String> shape) throws Malformed {
        for (Field field : fields(message)) {
            if (field.number() == 1) {
                String text = "";
                for (Field inner : fields(field.bytes())) {
                    text = inner.number() == 1 ? Long.toString(inner.value()) : inner.number() == 2 ? inner.text() : text;
                }
                shape.add(text);
            }
        }
    }

    /** Bytes that are no protobuf message. */
    static final class Malformed extends Exception {
        private static final long serialVersionUID = 1;

        Malformed(String reason) {
            super(reason);
        }
    }

    /** A field of a message: a varint, or bytes. */
    record Field(int number, boolean isBytes, long value, ByteBuffer bytes) {
        String text() throws Malformed {
            try {
                return StandardCharsets.UTF_8.newDecoder().decode(bytes.duplicate()).toString();
            } catch (CharacterCodingException error) {
                throw new Malformed("text that is no UTF-8");
            }
        }
    }

    static List<Field> fields(ByteBuffer message) throws Malformed {
        List<Field> fields = new ArrayList<>();
        ByteBuffer rest = message.duplicate();
        while (rest.hasRemaining()) {
            long tag = varint(rest);
            long number = tag >>> 3;
            if (number == 0 || number > 0x1fffffff) {
                throw new Malformed("field number " + number);
            }
            long value = 0;
            long size = switch ((int) (tag & 7)) {
                case 0 -> {
                    value = varint(rest);
                    yield 0;
                }
                case 1 -> 8;
                case 2 -> varint(rest);
                case 5 -> 4;
                default -> -1;
            };
            if (size < 0 || size > rest.remaining()) {
                throw new Malformed("a field cut short");
            }
            fields.add(new Field((int) number, (tag & 7) == 2, value, rest.slice(rest.position(), (int) size)));
            rest.position(rest.position() + (int) size);
        }
        return fields;
    }

    /** The numbers of a packed field. */
    static List<Long> varints(ByteBuffer packed) throws Malformed {
        List<Long> numbers = new ArrayList<>();
        for (ByteBuffer rest = packed.duplicate(); rest.hasRemaining(); ) {
            numbers.add(varint(rest));
        }
        return numbers;
    }

    private static long varint(ByteBuffer rest) throws Malformed {
        long result = 0;
        for (int shift = 0; shift < 64 && rest.hasRemaining(); shift += 7) {
            byte next = rest.get();
            result |= (next & 0x7fL) << shift;
            if (next >= 0) {
                return result;
            }
        }
        throw new Malformed("a varint cut short");
    }
}
