package rnnx;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import rnnx.ModelFile.Field;
import rnnx.ModelFile.Malformed;

/**
 * Tensors of a model whose values lie in other files: found wherever a tensor may stand, and read from the model's own
 * folder alone. Field numbers are those of onnx.proto.
 */
final class External {
    private static final int DEEPEST = 100; // messages in messages, as protobuf reads them
    private static final long SHARED = 4; // how many tensors may share values, on average

    /** Bits of an entry by TensorProto.DataType; 0 for types without a size. */
    private static final int[] BITS = {
        0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8
    };

    /** The kinds of messages that lead to tensors; {@link #inside} says which holds which. */
    private enum Kind {
        MODEL,
        TRAINING,
        FUNCTION,
        GRAPH,
        NODE,
        ATTRIBUTE,
        SPARSE,
        TENSOR;

        /** The kind of message that a field of this one holds; null if it leads to no tensor. */
        Kind inside(int number) {
            return switch (this) {
                case MODEL -> number == 7 ? GRAPH : number == 20 ? TRAINING : number == 25 ? FUNCTION : null;
                case TRAINING -> number == 1 || number == 2 ? GRAPH : null;
                case FUNCTION -> number == 7 ? NODE : number == 11 ? ATTRIBUTE : null;
                case GRAPH -> number == 1 ? NODE : number == 5 ? TENSOR : number == 15 ? SPARSE : null;
                case NODE -> number == 5 ? ATTRIBUTE : null;
                case ATTRIBUTE -> switch (number) {
                    case 5, 10 -> TENSOR;
                    case 6, 11 -> GRAPH;
                    case 22, 23 -> SPARSE;
                    default -> null;
                };
                case SPARSE -> number == 1 || number == 2 ? TENSOR : null;
                case TENSOR -> null;
            };
        }
    }

    /** A tensor whose values lie in another file. */
    private record Tensor(String location, BigInteger offset, BigInteger bytes) {}

    private External() {}

    /**
     * Hold the external tensors of a model against the files in its folder.
     *
     * @param path null for a model that is bytes alone
     * @return whether there are any
     * @throws RnnxException {@code external-data-missing} or {@code external-data-refused}
     */
    static boolean check(ByteBuffer model, Path path) throws Malformed {
        List<Tensor> tensors = new ArrayList<>();
        walk(model, Kind.MODEL, DEEPEST, tensors);
        if (tensors.isEmpty()) {
            return false;
        }
        if (path == null) {
            throw missing(tensors.get(0).location(), "bytes without a folder", null);
        }
        Map<String, BigInteger> files = new LinkedHashMap<>();
        BigInteger wanted = BigInteger.ZERO;
        for (Tensor tensor : tensors) {
            if (!files.containsKey(tensor.location())) {
                files.put(tensor.location(), sizeOf(path.toAbsolutePath().getParent(), tensor.location()));
            }
            BigInteger size = files.get(tensor.location());
            if (tensor.offset().add(tensor.bytes()).compareTo(size) > 0) {
                String expected = tensor.bytes() + " bytes from " + tensor.offset() + " on in " + quoted(tensor.location());
                throw refused(expected, "a file of " + size);
            }
            wanted = wanted.add(tensor.bytes());
        }
        BigInteger held = files.values().stream().reduce(BigInteger.ZERO, BigInteger::add);
        if (wanted.compareTo(held.multiply(BigInteger.valueOf(SHARED))) > 0) {
            throw refused("at most " + SHARED + " times the " + held + " bytes of the files that hold it", "" + wanted);
        }
        return true;
    }

    private static void walk(ByteBuffer message, Kind kind, int left, List<Tensor> found) throws Malformed {
        if (left < 0) {
            throw new Malformed("messages more than " + DEEPEST + " deep");
        }
        if (kind == Kind.TENSOR) {
            readTensor(message, found);
            return;
        }
        for (Field field : ModelFile.fields(message)) {
            Kind inner = kind.inside(field.number());
            if (inner != null && field.isBytes()) {
                walk(field.bytes(), inner, left - 1, found);
            }
        }
    }

    private static void readTensor(ByteBuffer message, List<Tensor> found) throws Malformed {
        boolean isExternal = false;
        BigInteger entries = BigInteger.ONE;
        int bits = 0;
        Map<String, String> said = new HashMap<>();
        List<Long> sizes = new ArrayList<>();
        for (Field field : ModelFile.fields(message)) {
            isExternal |= field.number() == 13 || (field.number() == 14 && !field.isBytes() && field.value() == 1);
            if (field.number() == 1) {
                sizes.addAll(field.isBytes() ? ModelFile.varints(field.bytes()) : List.of(field.value()));
            } else if (field.number() == 2 && !field.isBytes()) {
                bits = field.value() >= 0 && field.value() < BITS.length ? BITS[(int) field.value()] : 0;
            } else if (field.number() == 13 && field.isBytes()) {
                String[] entry = ModelFile.entry(field.bytes());
                said.put(entry[0], entry[1]);
            }
        }
        if (!isExternal) {
            return;
        }
        if (bits == 0) {
            throw refused("an external tensor of a dtype with a size", "one of another");
        }
        // More dimensions than these have a size that no file has, unless one of them is 0.
        boolean isEmpty = sizes.contains(0L);
        for (long size : isEmpty ? List.of(0L) : sizes) {
            entries = entries.bitLength() > 64 ? entries : entries.multiply(new BigInteger(Long.toUnsignedString(size)));
        }
        BigInteger bytes = entries.multiply(BigInteger.valueOf(bits)).add(BigInteger.valueOf(7)).shiftRight(3);
        BigInteger offset = size("offset", said, BigInteger.ZERO);
        BigInteger length = size("length", said, bytes);
        if (!length.equals(bytes)) {
            throw refused("an external tensor of " + bytes + " bytes, as its shape has", "length " + length);
        }
        found.add(new Tensor(said.getOrDefault("location", ""), offset, bytes));
    }

    private static BigInteger size(String name, Map<String, String> said, BigInteger otherwise) {
        String text = said.get(name);
        if (text == null) {
            return otherwise;
        }
        if (!text.matches("[0-9]{1,19}")) {
            String found = "'" + text.substring(0, Math.min(text.length(), 40)) + "'";
            throw refused("a whole number of bytes as " + name + " of an external tensor", found);
        }
        return new BigInteger(text);
    }

    /** The size of the plain file that a location names, with all links followed: none may lead out of the folder. */
    private static BigInteger sizeOf(Path folder, String location) {
        String expected = "external data in a file of the model's folder";
        if (leadsOut(location)) {
            throw refused(expected, quoted(location));
        }
        try {
            Path home = folder.toRealPath();
            Path place = home.resolve(location).toRealPath();
            if (!place.startsWith(home)) {
                throw refused(expected, "a link out of it: " + quoted(location));
            }
            if (!Files.isRegularFile(place)) {
                throw refused("a plain file at " + quoted(location), "a folder, pipe or device");
            }
            return BigInteger.valueOf(Files.size(place));
        } catch (IOException | InvalidPathException error) {
            throw missing(location, isAbsent(error) ? "no such file" : "one that cannot be read", error);
        }
    }

    private static boolean isAbsent(Exception error) {
        boolean isFolderMissing = error instanceof FileSystemException reason
                && "Not a directory".equals(reason.getReason());
        return error instanceof NoSuchFileException || error instanceof FileNotFoundException || isFolderMissing;
    }

    /** Whether a location leads out of a folder by its words alone, in the ways of any system. */
    private static boolean leadsOut(String location) {
        return location.isEmpty()
                || location.indexOf('\0') >= 0
                || "/\\".indexOf(location.charAt(0)) >= 0
                || location.startsWith(":", 1)
                || Arrays.asList(location.split("[/\\\\]")).contains("..");
    }

    private static String quoted(String location) {
        return "'" + location.substring(0, Math.min(location.length(), 80)) + "'";
    }

    private static RnnxException missing(String location, String found, Exception cause) {
        return new RnnxException(
                "external-data-missing",
                "the model's weights in " + quoted(location) + " beside it",
                found,
                "keep both files together and load the model by its path",
                cause);
    }

    private static RnnxException refused(String expected, String found) {
        return new RnnxException(
                "external-data-refused", expected, found, "export the model again, or ask whoever made it");
    }
}
