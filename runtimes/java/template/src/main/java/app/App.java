package app;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import rnnx.Contract;
import rnnx.Contract.Spec;
import rnnx.Replayer;
import rnnx.RnnxException;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;
import rnnx.TextStream;

/**
 * Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
 *
 * <pre>
 * App [MODEL]                 prove it, and say what a frame is
 * App MODEL INPUT OUTPUT      read frame, step, write frame; - for standard input and output
 * App MODEL Once              a model over symbols continues a prompt
 * </pre>
 */
public final class App {
    private App() {}

    public static void main(String[] arguments) {
        String model = arguments.length > 0 ? arguments[0] : "model.onnx";
        String source = arguments.length > 1 ? arguments[1] : null;
        try (Session session = Session.open(Path.of(model))) {
            if (!run(session, model, source, arguments.length > 2 ? arguments[2] : "-")) {
                System.exit(1);
            }
        } catch (RnnxException error) {
            say("error[" + error.code() + "]: " + error.getMessage());
            System.exit(2);
        } catch (IOException error) {
            say("error: " + error);
            System.exit(2);
        }
    }

    /** Print a line on standard error: standard output is for what the model gives. */
    private static void say(String text) {
        System.err.println(text);
    }

    /** False if the model disagrees with its trace. */
    private static boolean run(Session session, String model, String source, String target) throws IOException {
        Contract contract = session.contract();
        if (!prove(session, Path.of(model.replaceFirst("\\.onnx$", "") + ".trace.safetensors"))) {
            return false;
        }
        if (contract.vocabulary() != null) {
            write(session, source);
        } else if (contract.wholeOnly() != null) {
            say("it takes whole sequences: give them to run, not to step (" + contract.wholeOnly() + ")");
        } else if (source != null) {
            try (InputStream in = source.equals("-") ? System.in : Files.newInputStream(Path.of(source));
                    OutputStream out = target.equals("-") ? System.out : Files.newOutputStream(Path.of(target));
                    OutputStream buffered = new BufferedOutputStream(out)) {
                runFrames(session, in, buffered);
            }
        } else {
            say("a frame in:  " + described(required(contract)));
            say("a frame out: " + described(contract.outputs()));
            if (contract.stepsPerSecond() != null) {
                say("frames a second: " + contract.stepsPerSecond());
            }
            say("run it: mvn -q exec:java -Dexec.args=\"" + model + " in.raw out.raw\"");
        }
        return true;
    }

    /** Replay the trace beside the model. */
    private static boolean prove(Session session, Path path) {
        if (!Files.exists(path)) {
            say("not proved: there is no trace at " + path);
            return true;
        }
        Replayer.Verdict verdict = session.replay(path);
        say(verdict.agrees()
                ? String.format("agrees: %d steps, %.1e", verdict.steps(), verdict.maxError())
                : verdict.toString());
        return verdict.agrees();
    }

    /** Print 200 symbols that continue the prompt. */
    private static void write(Session session, String prompt) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        String start = prompt != null ? prompt : session.contract().vocabulary().decode(0);
        try (TextStream text = session.text(7, 0.8)) {
            text.read(start);
            out.println(start + text.write(200));
        }
    }

    private static List<Contract.Input> required(Contract contract) {
        return contract.inputs().stream().filter(Contract.Input::isRequired).toList();
    }

    /** What one step takes or gives, one tensor behind the other, batch 1: {@code x float32[1, 3]}. */
    private static String described(List<? extends Spec> specs) {
        return specs.stream()
                .map(spec -> spec.name() + " " + spec.dtype() + Arrays.toString(spec.stepShape(name -> 1)))
                .collect(Collectors.joining(", "));
    }

    /** Read a frame, step, write a frame, until the input ends; then a frame that is not whole gets zeros. */
    private static void runFrames(Session session, InputStream in, OutputStream out) throws IOException {
        Contract contract = session.contract();
        Stream.Builder builder = session.streamWith();
        contract.freeDimensions().forEach(name -> builder.dim(name, 1));
        Map<String, Tensor> inputs = new HashMap<>();
        int size = 0;
        for (Contract.Input input : required(contract)) {
            Tensor tensor = Tensor.zeros(input.dtype(), input.stepShape(name -> 1));
            inputs.put(input.name(), tensor);
            size += tensor.buffer().remaining();
        }
        try (Stream stream = builder.open()) {
            for (byte[] frame = in.readNBytes(size); frame.length > 0; frame = in.readNBytes(size)) {
                if (frame.length < size) {
                    say("the last frame had " + frame.length + " of " + size + " bytes: zeros stand for the others");
                    frame = Arrays.copyOf(frame, size);
                }
                int begin = 0;
                for (Contract.Input input : required(contract)) {
                    int count = inputs.get(input.name()).buffer().remaining();
                    inputs.get(input.name()).buffer().put(frame, begin, count);
                    begin += count;
                }
                Map<String, Tensor> outputs = stream.step(inputs); // here your data goes through the model
                for (Contract.Output output : contract.outputs()) {
                    byte[] bytes = new byte[outputs.get(output.name()).buffer().remaining()];
                    outputs.get(output.name()).buffer().get(bytes);
                    out.write(bytes);
                }
            }
            say(stream.position() + " steps");
        }
    }
}
