package rnnx;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * safetensors bytes, written in one fixed order and read with care: what traces and snapshots are stored as.
 *
 * @param tensors by name, in the order of the header
 * @param metadata text by name
 */
public record TensorFile(Map<String, Tensor> tensors, Map<String, String> metadata) {
    private static final long LARGEST_HEADER = 100_000_000; // the format's own limit

    /**
     * Read safetensors bytes; {@code what} they should be stands in the message ("a trace").
     *
     * @throws RnnxException {@code not-safetensors} for anything that is not whole and well formed
     */
    public static TensorFile decode(byte[] data, String what) {
        try {
            return decode(data);
        } catch (RuntimeException error) {
            String reason = error instanceof Malformed ? error.getMessage() : "a malformed header";
            throw new RnnxException(
                    "not-safetensors",
                    what + ", in safetensors format",
                    data.length + " bytes that are not: " + reason,
                    "check the path; if the file was copied, copy it again whole",
                    error);
        }
    }

    private static final class Malformed extends RuntimeException {
        private static final long serialVersionUID = 1;

        Malformed(String reason) {
            super(reason);
        }
    }

    private static TensorFile decode(byte[] data) {
        if (data.length < 8) {
            throw new Malformed("too short for a header");
        }
        long size = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).getLong();
        if (size < 0 || size > Math.min(data.length - 8, LARGEST_HEADER)) {
            throw new Malformed("cut short in the header");
        }
        String text = new String(data, 8, (int) size, StandardCharsets.UTF_8);
        ByteBuffer body = ByteBuffer.wrap(data, 8 + (int) size, data.length - 8 - (int) size).slice();
        TensorFile file = new TensorFile(new LinkedHashMap<>(), new LinkedHashMap<>());
        int used = 0;
        long total = 0;
        for (Map.Entry<String, JsonElement> entry : ContractReader.parse(text).getAsJsonObject().entrySet()) {
            JsonObject fields = entry.getValue().getAsJsonObject();
            if (entry.getKey().equals("__metadata__")) {
                fields.entrySet().forEach(pair -> file.metadata.put(pair.getKey(), textOf(pair.getValue())));
                continue;
            }
            long[] offsets = numbers(fields, "data_offsets");
            file.tensors.put(entry.getKey(), tensor(entry.getKey(), fields, offsets, body));
            // Every byte belongs to one tensor, so that a file costs what it is long.
            total += offsets[1] - offsets[0];
            if (total > body.limit()) {
                throw new Malformed("tensors that share bytes");
            }
            used = Math.max(used, (int) offsets[1]);
        }
        if (used != body.limit()) {
            throw new Malformed(body.limit() - used + " bytes behind the last tensor");
        }
        if (total != body.limit()) {
            throw new Malformed("bytes between tensors");
        }
        return file;
    }

    private static String textOf(JsonElement value) {
        if (!value.isJsonPrimitive() || !value.getAsJsonPrimitive().isString()) {
            throw new Malformed("metadata that is not text");
        }
        return value.getAsString();
    }

    private static long[] numbers(JsonObject fields, String name) {
        List<Long> numbers = new ArrayList<>();
        fields.get(name).getAsJsonArray().forEach(entry -> numbers.add(Long.parseLong(entry.getAsString())));
        return numbers.stream().mapToLong(Long::longValue).toArray();
    }

    private static Tensor tensor(String name, JsonObject fields, long[] offsets, ByteBuffer body) {
        DType dtype = Arrays.stream(DType.values())
                .filter(known -> known.code.equals(fields.get("dtype").getAsString()))
                .findFirst()
                .orElseThrow();
        long[] shape = numbers(fields, "shape");
        long size = dtype.size;
        for (long extent : shape) {
            size = extent < 0 || extent > Integer.MAX_VALUE ? -1 : size < 0 ? -1 : Math.multiplyExact(size, extent);
        }
        if (offsets.length != 2 || offsets[0] < 0 || offsets[1] - offsets[0] != size) {
            throw new Malformed("tensor '" + name + "' of another size than its shape");
        }
        if (offsets[1] > body.limit()) {
            throw new Malformed("cut short in tensor '" + name + "'");
        }
        Tensor tensor = Tensor.zeros(dtype, Arrays.stream(shape).mapToInt(Math::toIntExact).toArray());
        tensor.data().put(0, body, (int) offsets[0], (int) size);
        swap(tensor.data(), dtype);
        for (int index = 0; dtype == DType.BOOL && index < size; index++) {
            tensor.set(index, tensor.number(index)); // 0 or 1, as the engine wants it
        }
        return tensor;
    }

    /** Turn entries around on machines that are not little-endian; works both ways. */
    private static void swap(ByteBuffer data, DType dtype) {
        if (ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN) {
            return;
        }
        for (int start = 0; start < data.limit(); start += dtype.size) {
            for (int low = start, high = start + dtype.size - 1; low < high; low++, high--) {
                byte kept = data.get(low);
                data.put(low, data.get(high)).put(high, kept);
            }
        }
    }

    /** safetensors bytes: tensors in the order given, largest entries first so that all are aligned. */
    byte[] encode() {
        List<Map.Entry<String, Tensor>> sorted = new ArrayList<>(tensors.entrySet());
        sorted.sort(Comparator.comparingInt(entry -> -entry.getValue().dtype().size));
        List<String> texts = new ArrayList<>();
        metadata.forEach((key, value) -> texts.add(quoted(key) + ":" + quoted(value)));
        List<String> entries = new ArrayList<>(List.of("\"__metadata__\":{" + String.join(",", texts) + "}"));
        int end = 0;
        for (Map.Entry<String, Tensor> entry : sorted) {
            Tensor tensor = entry.getValue();
            int start = end;
            end += tensor.data().limit();
            String shape = Arrays.toString(tensor.sizes()).replace(" ", "");
            entries.add(quoted(entry.getKey()) + ":{\"dtype\":\"" + tensor.dtype().code + "\",\"shape\":" + shape
                    + ",\"data_offsets\":[" + start + "," + end + "]}");
        }
        byte[] header = ("{" + String.join(",", entries) + "}").getBytes(StandardCharsets.UTF_8);
        int padded = (header.length + 7) / 8 * 8;
        ByteBuffer bytes = ByteBuffer.allocate(8 + padded + end).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(padded).put(header);
        while (bytes.position() < 8 + padded) {
            bytes.put((byte) ' ');
        }
        for (Map.Entry<String, Tensor> entry : sorted) {
            Tensor copied = entry.getValue().copy();
            swap(copied.data(), copied.dtype());
            bytes.put(copied.data());
        }
        return bytes.array();
    }

    /** A text as JSON, with no escape that is not needed. */
    static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char character : text.toCharArray()) {
            int named = "\"\\\b\f\n\r\t".indexOf(character);
            if (named >= 0) {
                quoted.append('\\').append("\"\\bfnrt".charAt(named));
            } else if (character < ' ') {
                quoted.append(String.format("\\u%04x", (int) character));
            } else {
                quoted.append(character);
            }
        }
        return quoted.append('"').toString();
    }

    /** The names of all tensors, for a message. */
    String names() {
        return tensors.isEmpty() ? "no tensors" : String.join(", ", tensors.keySet());
    }

    /** Check that the file is of a kind ("trace") in version 1, and belongs to the model at hand. */
    void check(String kind, String modelId) {
        String version = metadata.getOrDefault("version", "");
        if (!("rnnx-" + kind).equals(metadata.get("format")) || !version.matches("[0-9]+")) {
            throw new RnnxException(
                    "not-a-" + kind,
                    "a " + kind + " (metadata format 'rnnx-" + kind + "' and a version)",
                    "safetensors of format '" + metadata.getOrDefault("format", "") + "'",
                    "name a " + kind + " that rnnx wrote");
        }
        if (new java.math.BigInteger(version).bitLength() > 1) {
            String expected = "a " + kind + " of version 1 at most";
            throw new RnnxException(kind + "-newer", expected, "version " + version, "install a newer rnnx");
        }
        if (!modelId.equals(metadata.get("model"))) {
            throw new RnnxException(
                    kind + "-of-another-model",
                    "a " + kind + " of the model " + modelId,
                    "one of " + metadata.getOrDefault("model", "no model"),
                    "use the model file that it was made with");
        }
    }
}
