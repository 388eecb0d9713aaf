package rnnx;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import java.io.IOException;
import java.io.StringReader;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import rnnx.Contract.Constant;

/** Reading the JSON of a contract into its types. */
final class ContractReader {
    private static final int VERSION = 1;
    private static final Set<String> KNOWN_REQUIREMENTS = Set.of();

    private final JsonObject fields;
    private final String path;

    private ContractReader(JsonElement value, String path) {
        if (!(value instanceof JsonObject object)) {
            throw mismatch("object", value, path);
        }
        this.fields = object;
        this.path = path;
    }

    static Contract read(String text) {
        ContractReader top = new ContractReader(parse(text), "$");
        if (!top.text("format").equals("rnnx")) {
            throw Contract.invalid("Invalid enum value '" + top.text("format") + "' - at `$.format`");
        }
        long version = top.integer("version");
        if (version > VERSION) {
            throw new RnnxException(
                    "contract-newer",
                    "a contract of version " + VERSION + " at most",
                    "version " + version,
                    "install a newer rnnx, or export the model again with this one");
        }
        List<String> unknown = top.has("requires") ? new ArrayList<>(top.texts("requires")) : new ArrayList<>();
        unknown.removeAll(KNOWN_REQUIREMENTS);
        if (!unknown.isEmpty()) {
            throw new RnnxException(
                    "contract-requires",
                    "a contract that requires only what this rnnx knows",
                    "requires " + String.join(", ", unknown),
                    "install a newer rnnx");
        }
        if (version < 1) {
            throw Contract.invalid("version " + version);
        }
        return new Contract(
                top.textOr("id", ""),
                top.textOr("name", ""),
                top.list("inputs", ContractReader::input),
                top.list("outputs", ContractReader::output),
                top.list("states", ContractReader::state),
                top.has("steps_per_second") ? top.number("steps_per_second") : null,
                top.has("whole_only") ? top.text("whole_only") : null,
                top.has("vocabulary") ? new ContractReader(top.fields.get("vocabulary"), "$.vocabulary").vocabulary() : null,
                top.fields.get("user") instanceof JsonObject user ? user : new JsonObject());
    }

    /** JSON as its standard has it, with nothing behind. */
    static JsonElement parse(String text) {
        try {
            JsonReader reader = new JsonReader(new StringReader(text));
            reader.setStrictness(Strictness.STRICT);
            JsonElement value = JsonParser.parseReader(reader);
            if (reader.peek() != JsonToken.END_DOCUMENT) {
                throw Contract.invalid("JSON is malformed: trailing characters");
            }
            return value;
        } catch (JsonParseException | IOException | IllegalStateException | NumberFormatException error) {
            throw Contract.invalid("JSON is malformed: " + error.getMessage());
        }
    }

    private Contract.Input input() {
        Contract.Input input = new Contract.Input(text("name"), dtype(), shape(), null, false, null);
        boolean isLength = has("role");
        if (isLength && !text("role").equals("length")) {
            throw Contract.invalid("Invalid enum value '" + text("role") + "' - at `" + path + ".role`");
        }
        Constant standIn = has("default") ? constant("default", input) : null;
        Contract.Range range = has("range") ? range() : null;
        return new Contract.Input(input.name(), input.dtype(), input.shape(), standIn, isLength, range);
    }

    private Contract.Range range() {
        JsonArray bounds = array("range");
        for (JsonElement bound : bounds) {
            if (!isNumber(bound)) {
                throw mismatch("float", bound, path + ".range[...]");
            }
        }
        if (bounds.size() != 2) {
            throw Contract.invalid("Expected two numbers - at `" + path + ".range`");
        }
        return new Contract.Range(bounds.get(0).getAsDouble(), bounds.get(1).getAsDouble());
    }

    private Contract.Output output() {
        return new Contract.Output(text("name"), dtype(), shape(), has("delay") ? integer("delay") : 0);
    }

    private Contract.State state() {
        Constant zero = new Constant(new int[0], new double[] {0});
        boolean isEnd = has("role");
        if (isEnd && !text("role").equals("ended")) {
            throw Contract.invalid("Invalid enum value '" + text("role") + "' - at `" + path + ".role`");
        }
        Contract.State state =
                new Contract.State(text("name"), text("input"), text("output"), dtype(), shape(), zero, isEnd);
        if (!has("initial")) {
            return state;
        }
        Constant initial = constant("initial", state);
        return new Contract.State(
                state.name(), state.input(), state.output(), state.dtype(), state.shape(), initial, isEnd);
    }

    private DType dtype() {
        String name = text("dtype");
        for (DType dtype : DType.values()) {
            if (dtype.toString().equals(name)) {
                return dtype;
            }
        }
        throw Contract.invalid("Invalid enum value '" + name + "' - at `" + path + ".dtype`");
    }

    private List<Axis> shape() {
        String in = " in the shape of '" + text("name") + "'";
        List<Axis> shape = new ArrayList<>();
        for (JsonElement entry : array("shape")) {
            if (isText(entry)) {
                Axis axis = Axis.parse(entry.getAsString());
                if (axis == null) {
                    String found = "dimension '" + entry.getAsString() + "' is no number, name or multiple of time";
                    throw Contract.invalid(found + in);
                }
                shape.add(axis);
            } else if (isWhole(entry)) {
                if (entry.getAsLong() < 1) {
                    throw Contract.invalid("dimension " + entry + " is not positive" + in);
                }
                if (entry.getAsLong() > Integer.MAX_VALUE) {
                    throw Contract.invalid("dimension " + entry + " is larger than this runtime takes" + in);
                }
                shape.add(Axis.of((int) entry.getAsLong()));
            } else {
                throw mismatch("int | str", entry, path + ".shape[...]");
            }
        }
        return List.copyOf(shape);
    }

    private Vocabulary vocabulary() {
        Map.of("scores", "logits", "unit", "codepoint").forEach((name, known) -> {
            if (!textOr(name, known).equals(known)) {
                throw Contract.invalid("Invalid enum value '" + text(name) + "' - at `" + path + "." + name + "`");
            }
        });
        List<Integer> symbols = new ArrayList<>();
        for (String text : texts("symbols")) {
            if (text.isEmpty()) {
                throw Contract.invalid("an symbol without a name");
            }
            if (text.codePointCount(0, text.length()) != 1) {
                throw Contract.invalid("a symbol that is not one code point");
            }
            symbols.add(text.codePointAt(0));
        }
        return new Vocabulary(text("input"), text("output"), List.copyOf(symbols));
    }

    private Constant constant(String name, Contract.Spec spec) {
        Constant constant = constantOf(fields.get(name));
        if (constant == null) {
            throw Contract.misfit(spec);
        }
        return constant;
    }

    /** Nested lists of numbers; null for anything else, and for lists of unequal lengths. */
    private static Constant constantOf(JsonElement value) {
        if (value instanceof JsonArray array) {
            List<Constant> parts = new ArrayList<>();
            for (JsonElement entry : array) {
                Constant part = constantOf(entry);
                if (part == null || !parts.isEmpty() && !Arrays.equals(part.shape(), parts.get(0).shape())) {
                    return null;
                }
                parts.add(part);
            }
            int[] inner = parts.isEmpty() ? new int[0] : parts.get(0).shape();
            int[] shape = new int[inner.length + 1];
            shape[0] = parts.size();
            System.arraycopy(inner, 0, shape, 1, inner.length);
            return new Constant(shape, parts.stream().flatMapToDouble(part -> Arrays.stream(part.numbers())).toArray());
        }
        Double number = null;
        if (isText(value)) {
            Map<String, Double> named =
                    Map.of("inf", Double.POSITIVE_INFINITY, "-inf", Double.NEGATIVE_INFINITY, "nan", Double.NaN);
            number = named.get(value.getAsString());
        } else if (value.isJsonPrimitive() && value.getAsJsonPrimitive().isBoolean()) {
            number = value.getAsBoolean() ? 1.0 : 0.0;
        } else if (value.isJsonPrimitive()) {
            number = value.getAsDouble();
        }
        return number == null ? null : new Constant(new int[0], new double[] {number});
    }

    private boolean has(String name) {
        return fields.has(name) && !fields.get(name).isJsonNull();
    }

    private JsonElement required(String name) {
        if (!fields.has(name)) {
            throw Contract.invalid("Object missing required field `" + name + "`" + at(path));
        }
        return fields.get(name);
    }

    private String text(String name) {
        JsonElement value = required(name);
        if (!isText(value)) {
            throw mismatch("str", value, path + "." + name);
        }
        return value.getAsString();
    }

    private String textOr(String name, String otherwise) {
        return fields.has(name) ? text(name) : otherwise;
    }

    private long integer(String name) {
        JsonElement value = required(name);
        if (!isWhole(value)) {
            throw mismatch("int", value, path + "." + name);
        }
        return value.getAsLong();
    }

    private double number(String name) {
        JsonElement value = required(name);
        if (!isNumber(value)) {
            throw mismatch("float", value, path + "." + name);
        }
        return value.getAsDouble();
    }

    private JsonArray array(String name) {
        JsonElement value = required(name);
        if (!(value instanceof JsonArray array)) {
            throw mismatch("array", value, path + "." + name);
        }
        return array;
    }

    private List<String> texts(String name) {
        List<String> texts = new ArrayList<>();
        for (JsonElement entry : array(name)) {
            if (!isText(entry)) {
                throw mismatch("str", entry, path + "." + name + "[...]");
            }
            texts.add(entry.getAsString());
        }
        return texts;
    }

    private <T> List<T> list(String name, Function<ContractReader, T> read) {
        List<T> values = new ArrayList<>();
        for (JsonElement entry : array(name)) {
            values.add(read.apply(new ContractReader(entry, path + "." + name + "[...]")));
        }
        return List.copyOf(values);
    }

    private static boolean isText(JsonElement value) {
        return value.isJsonPrimitive() && value.getAsJsonPrimitive().isString();
    }

    private static boolean isNumber(JsonElement value) {
        return value.isJsonPrimitive() && value.getAsJsonPrimitive().isNumber();
    }

    private static boolean isWhole(JsonElement value) {
        return isNumber(value)
                && value.getAsString().matches("-?[0-9]{1,18}");
    }

    private static RnnxException mismatch(String expected, JsonElement found, String path) {
        String kind = "null";
        if (found.isJsonObject()) {
            kind = "object";
        } else if (found.isJsonArray()) {
            kind = "array";
        } else if (isText(found)) {
            kind = "str";
        } else if (found.isJsonPrimitive()) {
            kind = found.getAsJsonPrimitive().isBoolean() ? "bool" : isWhole(found) ? "int" : "float";
        }
        return Contract.invalid("Expected `" + expected + "`, got `" + kind + "`" + at(path));
    }

    private static String at(String path) {
        return path.equals("$") ? "" : " - at `" + path + "`";
    }
}
