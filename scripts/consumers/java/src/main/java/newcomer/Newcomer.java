package newcomer;

import java.nio.file.Path;
import java.util.Map;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;

/** Steps a model and prints what comes out, a line for each step. */
public final class Newcomer {
    public static void main(String[] words) {
        try (Session session = Session.open(Path.of(words[0])); Stream stream = session.stream()) {
            for (int step = 0; step < 5; step++) {
                float[] frame = new float[4];
                for (int at = 0; at < 4; at++) {
                    frame[at] = (step * 31 + at * 7) % 19 / 9.5f - 1;
                }
                StringBuilder line = new StringBuilder();
                for (float value : stream.step(Map.of("x", Tensor.of(frame, 1, 4))).get("y").floats()) {
                    line.append(value).append(' ');
                }
                System.out.println(line);
            }
        }
    }
}
