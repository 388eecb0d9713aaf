package rnnx.tools;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import rnnx.RnnxException;
import rnnx.WithGoldens;

@WithGoldens
class ReplayTest {
    private static JsonArray read(String path) throws IOException {
        return JsonParser.parseString(Files.readString(Path.of(path))).getAsJsonArray();
    }

    @Test
    void everyGoldenAgreesInEveryChunking() throws IOException {
        List<String> models;
        try (Stream<Path> paths = Files.list(Path.of(""))) {
            models = paths.map(Path::toString).filter(name -> name.endsWith(".onnx")).sorted().toList();
        }
        assertTrue(models.size() >= 15, models.toString());
        for (String model : models) {
            String trace = model.replace(".onnx", ".trace.safetensors");
            for (String chunks : List.of("1", "0", "3", "3,1,0")) {
                Map<String, Object> result = Replay.run(model, trace, "--chunks", chunks);
                assertEquals(true, result.get("agrees"), model + " in chunks of " + chunks + ": " + result);
                assertTrue((int) result.get("steps") > 0, result.toString());
            }
        }
    }

    @Test
    void everyErrorHasItsCodeAndText() throws IOException {
        JsonArray faults = read("errors.json");
        assertTrue(faults.size() > 30);
        for (JsonElement element : faults) {
            JsonObject fault = element.getAsJsonObject();
            if (fault.getAsJsonObject("except").has("java")) {
                continue;
            }
            String[] arguments = new Gson().fromJson(fault.get("arguments"), String[].class);
            RnnxException error = assertThrows(RnnxException.class, () -> Replay.run(arguments), fault.toString());
            assertEquals(fault.get("code").getAsString(), error.code(), fault.toString());
            if (!fault.get("text").isJsonNull()) {
                assertEquals(fault.get("text").getAsString(), error.getMessage());
            }
        }
    }

    @Test
    void textsAndDrawsAreTheSameAsEverywhere() throws IOException {
        for (JsonElement element : read("texts.json")) {
            JsonObject text = element.getAsJsonObject();
            Map<String, Object> result = Replay.run(
                    text.get("model").getAsString(), "--text", text.get("prompt").getAsString(),
                    "--length", text.get("length").getAsString(), "--seed", text.get("seed").getAsString(),
                    "--temperature", text.get("temperature").getAsString());
            assertEquals(text.get("text").getAsString(), result.get("text"));
        }
        for (JsonElement element : read("draws.json")) {
            JsonObject draw = element.getAsJsonObject();
            String weights = StreamSupport.stream(draw.getAsJsonArray("weights").spliterator(), false)
                    .map(JsonElement::getAsString)
                    .collect(Collectors.joining(","));
            Map<String, Object> result = Replay.run(
                    "--draw", weights, "--seed", draw.get("seed").getAsString(), "--count", draw.get("count").getAsString());
            assertEquals(draw.get("draws"), new Gson().toJsonTree(result.get("draws")));
        }
    }

    /** Change one bit of a tensor of a trace. */
    private static String spoil(Path folder, String tensor, int at) throws IOException {
        byte[] data = Files.readAllBytes(Path.of("gru.trace.safetensors"));
        int size = (int) ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).getLong();
        String header = new String(data, 8, size, StandardCharsets.UTF_8);
        JsonObject entry = JsonParser.parseString(header).getAsJsonObject().getAsJsonObject(tensor);
        data[8 + size + entry.getAsJsonArray("data_offsets").get(0).getAsInt() + at] ^= 0x40;
        return Files.write(folder.resolve("spoiled.safetensors"), data).toString();
    }

    @Test
    void aNumberThatIsOffIsFoundWhereItIs(@TempDir Path folder) throws IOException {
        int entry = 2 * 2 * 6 + 4; // of output.y, [step, 2, 6]: step 2, row 0, entry 4
        Map<String, Object> result = Replay.run("gru.onnx", spoil(folder, "output.y", entry * 4 + 3), "--chunks", "3");
        assertEquals(false, result.get("agrees"), result.toString());
        JsonObject failure = new Gson().toJsonTree(result.get("failure")).getAsJsonObject();
        assertEquals("output.y 2 [0,4]", failure.get("tensor").getAsString() + " " + failure.get("step") + " " + failure.get("index"));
        result = Replay.run("gru.onnx", spoil(folder, "state.state.h", 3));
        failure = new Gson().toJsonTree(result.get("failure")).getAsJsonObject();
        assertEquals("state.state.h -1", failure.get("tensor").getAsString() + " " + failure.get("step"));
    }
}
