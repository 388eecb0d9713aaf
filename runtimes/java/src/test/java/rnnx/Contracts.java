package rnnx;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/**
 * Reads a path from each line of its input, and says of that model "ok" or "error CODE": all that is looked at before
 * the engine. What scripts/fuzz feeds.
 */
final class Contracts {
    private Contracts() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Path path = Path.of(line);
            try {
                Engine.checkTypes(ModelFile.read(Session.readFile(path, "an ONNX model"), path, line).contract());
                System.out.println("ok");
            } catch (RnnxException error) {
                System.out.println("error " + error.code());
            }
        }
    }
}
