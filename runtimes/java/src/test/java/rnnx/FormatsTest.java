package rnnx;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

class FormatsTest {
    private static void expect(String code, Executable action) {
        assertEquals(code, assertThrows(RnnxException.class, action).code());
    }

    @Test
    void drawsAreThoseOfTheContractDocument() {
        Sampler sampler = new Sampler(7, 1);
        for (long number : new long[] {0x63cbe1e459320dd7L, 0x044c3cd7f43c661cL, 0xe6984080bab12a02L}) {
            assertEquals(number, sampler.nextLong());
        }
        assertEquals(0.3898297483912715, new Sampler(7, 1).uniform());
        sampler = new Sampler(7, 1);
        for (int wanted : new int[] {2, 0, 3, 2, 2, 1, 2, 2}) {
            assertEquals(wanted, sampler.sampleWeights(1, 2, 3, 4));
        }
        // The seed whose first number is 0: u = 0 must not draw a weight of zero.
        assertEquals(1, new Sampler(0x61C8864680B583EBL, 1).sampleWeights(0, 1));
    }

    @Test
    void weightsAndScoresThatMeanNothingAreRefused() {
        Sampler sampler = new Sampler(7, 0);
        double max = Double.MAX_VALUE;
        for (double[] weights : new double[][] {{}, {0, 0}, {1, -1}, {Double.NaN}, {max, max}, {1e-310}}) {
            expect("weights-invalid", () -> sampler.sampleWeights(weights));
        }
        double inf = Double.POSITIVE_INFINITY;
        for (double[] scores : new double[][] {{}, {Double.NaN, 0}, {inf, 0}, {-inf, -inf}}) {
            expect("scores-invalid", () -> sampler.sample(Tensor.of(scores, scores.length)));
        }
        assertEquals(1, sampler.sample(Tensor.of(new float[] {1, 3, 3, Float.NEGATIVE_INFINITY}, 4)));
        assertEquals(7, sampler.state(), "no number was taken");
        expect("temperature-invalid", () -> new Sampler(7, -1));
    }

    @Test
    @WithGoldens
    void aTextGoesOnFromItsSnapshot() {
        try (Session session = Session.open(Path.of("characters.onnx"));
                TextStream text = session.text(3, 0.8);
                TextStream other = session.text(99, 0)) {
            Vocabulary vocabulary = session.contract().vocabulary();
            assertEquals("é😀", vocabulary.decode(vocabulary.encode("é😀", "text")));
            expect("id-outside-vocabulary", () -> vocabulary.decode(37));
            expect("prompt-empty", text::nextInt);
            text.read("abc");
            assertEquals(20, text.write(20).codePoints().count());
            other.restore(text.snapshot());
            assertEquals(text.write(20), other.write(20));
        }
    }

    @Test
    @WithGoldens
    void halfFloatsRoundToNearest() {
        for (int bits = 0; bits < 1 << 16; bits++) {
            double number = Half.toDouble((short) bits);
            if (!Double.isNaN(number)) {
                assertEquals((short) bits, Half.of(number));
            }
        }
        Map<Double, Integer> rounded = new TreeMap<>(Map.of(
                1 + 0x1p-11, 0x3c00, 1 + 0x3p-11, 0x3c02, 65519.0, 0x7bff, 65520.0, 0x7c00,
                0x1p-25, 0, 0x1.8p-25, 1, -2.0, 0xc000, 2047.9999, 0x6800));
        rounded.forEach((number, wanted) -> assertEquals(wanted, Half.of(number) & 0xffff, number.toString()));
        try (Session session = Session.open(Path.of("half.onnx")); Stream stream = session.stream()) {
            double[] x = {.5, .5, .5};
            Tensor y = stream.step(Map.of("x", Tensor.of(DType.FLOAT16, x, 1, 3))).get("y");
            assertNotEquals(0, y.number(0));
            expect("wrong-dtype", y::floats);
            x[1] = Double.POSITIVE_INFINITY;
            expect("non-finite", () -> stream.step(Map.of("x", Tensor.of(DType.FLOAT16, x, 1, 3))));
        }
    }

    private static void contract(String inputs, String rest) {
        Contract.parse("{\"format\": \"rnnx\", \"version\": 1, \"inputs\": [" + inputs + "], \"outputs\": [], \"states\": []" + rest + "}");
    }

    @Test
    void aContractThatBreaksARuleIsRefused() {
        String x = "{\"name\": \"x\", \"dtype\": \"float32\", \"shape\": [\"batch\", \"time\"]}";
        contract(x, ", \"news\": [1]"); // unknown fields are ignored
        expect("contract-invalid", () -> Contract.parse("[]"));
        expect("contract-invalid", () -> Contract.parse("{"));
        expect("contract-invalid", () -> Contract.parse("{\"format\": \"rnnx\"}"));
        expect("contract-newer", () -> Contract.parse("{\"format\": \"rnnx\", \"version\": 2}"));
        expect("contract-requires", () -> Contract.parse("{\"format\": \"rnnx\", \"version\": 1, \"requires\": [\"a\"]}"));
        expect("contract-invalid", () -> Contract.parse("{\"format\": \"rnnx\", \"version\": 0}"));
        for (String inputs : List.of(
                "'name': 'x', 'dtype': 'float8', 'shape': []",
                "'name': 'x', 'dtype': 'float32', 'shape': [0]",
                "'name': 'x', 'dtype': 'float32', 'shape': [1.5]",
                "'name': 'x', 'dtype': 'float32', 'shape': [2147483648]",
                "'name': 'x', 'dtype': 'float32', 'shape': ['2147483648*time']",
                "'name': 'x', 'dtype': 'float32', 'shape': ['2*batch']",
                "'name': 'x', 'dtype': 'float32', 'shape': ['batch', 'batch']",
                "'name': 'x', 'dtype': 'float32', 'shape': [2], 'default': [1, 2, 3]",
                "'name': 'x', 'dtype': 'float32', 'shape': ['batch'], 'default': [1, 2]",
                "'name': 'x', 'dtype': 'float32', 'shape': [2, 2], 'default': [[1, 2], [3]]",
                "'name': 'x', 'dtype': 'int64', 'shape': [3], 'role': 'length'",
                "'name': 'x', 'dtype': 'int64'",
                "'name': '', 'dtype': 'int64', 'shape': []")) {
            expect("contract-invalid", () -> contract("{" + inputs.replace('\'', '"') + "}", ""));
        }
        expect("contract-invalid", () -> contract(x + "," + x, ""));
        String vocabulary = ", \"vocabulary\": {\"input\": \"x\", \"output\": \"y\", \"symbols\": []}";
        expect("contract-invalid", () -> contract(x, vocabulary));
    }

    /** ONNX Runtime would read them where the program runs. */
    @Test
    @WithGoldens
    void aModelThatIsBytesHasNoWeightsBesideIt() throws IOException {
        for (String name : List.of("weights-missing", "weights-above", "weights-elsewhere")) {
            byte[] data = Files.readAllBytes(Path.of("faults", name + ".onnx"));
            expect("external-data-missing", () -> Session.of(data));
        }
    }

    private static TensorFile file(String header, int... body) {
        byte[] text = header.replace('\'', '"').getBytes(StandardCharsets.UTF_8);
        ByteBuffer data = ByteBuffer.allocate(8 + text.length + body.length).order(ByteOrder.LITTLE_ENDIAN);
        data.putLong(text.length).put(text);
        Arrays.stream(body).forEach(value -> data.put((byte) value));
        return TensorFile.decode(data.array(), "a file");
    }

    @Test
    @WithGoldens
    void tensorFilesAreReadWithCare() throws IOException {
        String header = "{'a':{'dtype':'BOOL','shape':[3],'data_offsets':[0,3]}}";
        assertArrayEquals(new double[] {0, 1, 1}, file(header, 0, 1, 7).tensors().get("a").doubles());
        expect("not-safetensors", () -> file(header, 0, 1));
        expect("not-safetensors", () -> file(header, 0, 1, 1, 1));
        for (String wrong : List.of(
                "[]", "{", "{'__metadata__':{'a':1}}",
                "{'a':{'dtype':'F8','shape':[3],'data_offsets':[0,3]}}",
                "{'a':{'dtype':'BOOL','shape':[4],'data_offsets':[0,3]}}",
                "{'a':{'dtype':'BOOL','shape':[3],'data_offsets':[3,0]}}",
                "{'a':{'dtype':'I64','shape':[4611686018427387904,4],'data_offsets':[0,3]}}",
                "{'a':{'dtype':'BOOL','shape':[-3],'data_offsets':[0,3]}}")) {
            expect("not-safetensors", () -> file(wrong, 0, 1, 1));
        }
        byte[] data = Files.readAllBytes(Path.of("gru.trace.safetensors"));
        for (int size = 0; size < data.length; size += 61) {
            byte[] part = Arrays.copyOf(data, size);
            expect("not-safetensors", () -> TensorFile.decode(part, "a file"));
        }
        assertEquals("\"<é😀>\\\"\\\\\\n\\u0001\"", TensorFile.quoted("<é😀>\"\\\n\u0001"));
    }
}
