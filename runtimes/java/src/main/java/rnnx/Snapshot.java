package rnnx;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import rnnx.Contract.State;

/**
 * All that is needed to continue a stream elsewhere, in one layout for all languages.
 *
 * @param states in the order of the contract
 * @param sampling null if nothing is sampled
 */
record Snapshot(long position, List<Tensor> states, Sampling sampling) {
    /**
     * Where sampling stopped, one entry for each row.
     *
     * @param generator uint64 [batch]
     * @param temperature float64 [batch]
     * @param scores [batch, symbols], in the dtype of the vocabulary's output
     */
    record Sampling(Tensor generator, Tensor temperature, Tensor scores) {}

    byte[] encode(Contract contract) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        for (int index = 0; index < states.size(); index++) {
            tensors.put("state." + contract.states().get(index).name(), states.get(index));
        }
        if (sampling != null) {
            tensors.put("sampling.generator", sampling.generator());
            tensors.put("sampling.temperature", sampling.temperature());
            tensors.put("sampling.scores", sampling.scores());
        }
        Map<String, String> metadata = new LinkedHashMap<>();
        metadata.put("format", "rnnx-snapshot");
        metadata.put("version", "1");
        metadata.put("model", contract.id());
        metadata.put("position", Long.toUnsignedString(position));
        return new TensorFile(tensors, metadata).encode();
    }

    /** Read a snapshot and check it against the model and the sizes of the stream it is for. */
    static Snapshot decode(byte[] data, Contract contract, Map<String, Integer> sizes) {
        TensorFile file = TensorFile.decode(data, "a snapshot");
        file.check("snapshot", contract.id());
        String position = file.metadata().getOrDefault("position", "");
        if (!position.matches("[0-9]{1,18}")) {
            throw invalid("a position in decimal", "'" + position + "'");
        }
        List<Tensor> states = new ArrayList<>();
        for (State state : contract.states()) {
            Tensor tensor = file.tensors().get("state." + state.name());
            if (tensor == null) {
                throw invalid("a tensor 'state." + state.name() + "'", file.names());
            }
            int[] shape = Shapes.resolve(state.shape(), sizes);
            if (tensor.dtype() != state.dtype() || !Arrays.equals(shape, tensor.sizes())) {
                String wanted = state.dtype() + Arrays.toString(shape);
                throw invalid("state '" + state.name() + "' as " + wanted, Shapes.describe(tensor));
            }
            String place = Checks.nanIn(tensor); // one engine keeps it, another takes it for a number
            if (place != null && Arrays.stream(state.initial().numbers()).noneMatch(Double::isNaN)) {
                throw new RnnxException(
                        "snapshot-invalid",
                        "a snapshot with state '" + state.name() + "' without NaN",
                        place,
                        "take an earlier snapshot: when this one was written, the network had overflowed already");
            }
            states.add(tensor);
        }
        return new Snapshot(Long.parseLong(position), states, sampling(file, contract, sizes.get("batch")));
    }

    /** The three sampling tensors, which are there together or not at all. */
    private static Sampling sampling(TensorFile file, Contract contract, int batch) {
        Vocabulary vocabulary = contract.vocabulary();
        if (vocabulary == null || !file.tensors().containsKey("sampling.generator")) {
            return null;
        }
        DType dtype = contract.outputs().stream()
                .filter(output -> output.name().equals(vocabulary.output()))
                .findFirst()
                .orElseThrow()
                .dtype();
        return new Sampling(
                take(file, "sampling.generator", DType.UINT64, batch),
                take(file, "sampling.temperature", DType.FLOAT64, batch),
                take(file, "sampling.scores", dtype, batch, vocabulary.symbols().size()));
    }

    private static Tensor take(TensorFile file, String name, DType dtype, int... shape) {
        Tensor tensor = file.tensors().get(name);
        if (tensor == null || tensor.dtype() != dtype || !Arrays.equals(shape, tensor.sizes())) {
            String found = tensor == null ? "none" : Shapes.describe(tensor);
            throw invalid("a tensor '" + name + "' of shape " + Arrays.toString(shape), found);
        }
        return tensor;
    }

    private static RnnxException invalid(String expected, String found) {
        return new RnnxException(
                "snapshot-invalid",
                "a snapshot with " + expected,
                found,
                "open the stream with the batch and dims that the snapshot was made with");
    }
}
