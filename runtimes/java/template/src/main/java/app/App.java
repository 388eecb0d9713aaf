package app;

import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import rnnx.Contract;
import rnnx.RnnxException;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;
import rnnx.TextStream;

/** Opens a model and runs it: text if it has a vocabulary, else steps on zeros. Arguments: [MODEL] [PROMPT]. */
public final class App {
    private App() {}

    public static void main(String[] arguments) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Path model = Path.of(arguments.length > 0 ? arguments[0] : "model.onnx");
        try (Session session = Session.open(model)) {
            if (session.contract().vocabulary() != null) {
                write(session, arguments.length > 1 ? arguments[1] : null, out);
            } else {
                step(session, out);
            }
        } catch (RnnxException error) {
            System.err.println("error[" + error.code() + "]: " + error.getMessage());
            System.exit(2);
        }
    }

    /** Print 200 symbols that continue the prompt. */
    private static void write(Session session, String prompt, PrintStream out) {
        String start = prompt != null ? prompt : session.contract().vocabulary().decode(0);
        try (TextStream text = session.text(7, 0.8)) {
            text.read(start);
            out.println(start + text.write(200));
        }
    }

    /** Print the outputs of five steps on zeros; a model of whole sequences takes them as one chunk. */
    private static void step(Session session, PrintStream out) {
        Contract contract = session.contract();
        boolean isWhole = contract.wholeOnly() != null;
        Stream.Builder builder = session.streamWith();
        contract.freeDimensions().forEach(name -> builder.dim(name, 1));
        Map<String, Tensor> inputs = new HashMap<>();
        for (Contract.Input input : contract.inputs()) {
            if (input.isRequired()) {
                int[] shape = isWhole ? input.chunkShape(5, name -> 1) : input.stepShape(name -> 1);
                inputs.put(input.name(), Tensor.zeros(input.dtype(), shape));
            }
        }
        try (Stream stream = builder.open()) {
            for (int call = 0; call < (isWhole ? 1 : 5); call++) {
                Map<String, Tensor> outputs = isWhole ? stream.run(inputs) : stream.step(inputs);
                outputs.forEach((name, value) -> {
                    double[] first = Arrays.copyOf(value.doubles(), Math.min(value.count(), 6));
                    out.println(name + " " + Arrays.toString(value.shape()) + ": " + Arrays.toString(first));
                });
            }
        }
    }
}
