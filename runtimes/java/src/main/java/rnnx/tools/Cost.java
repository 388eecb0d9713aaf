package rnnx.tools;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import rnnx.Contract;
import rnnx.DType;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;

/**
 * What a step costs over the binding called by hand: {@code java -cp target/rnnx.jar rnnx.tools.Cost MODEL [STEPS]}.
 *
 * <p>For a model with one float32 input. Blocks of steps take turns, and the best block of each counts. Prints
 * microseconds a step as JSON.
 */
public final class Cost {
    private static final int BLOCK = 1000;

    private Cost() {}

    /** Runs the program. */
    public static void main(String[] words) throws OrtException {
        int steps = words.length > 1 ? Integer.parseInt(words[1]) : 20_000;
        try (Session session = Session.open(Path.of(words[0])); Stream stream = session.stream()) {
            Contract.Input input = session.contract().inputs().get(0);
            int[] shape = input.stepShape(name -> 1);
            int count = Arrays.stream(shape).reduce(1, (one, two) -> one * two);
            ByteBuffer frame = ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder());
            Map<String, Tensor> inputs = Map.of(input.name(), Tensor.wrap(DType.FLOAT32, frame, shape));
            ByHand byHand = new ByHand(words[0], session.contract());
            double oursMicroseconds = Double.MAX_VALUE;
            double handMicroseconds = Double.MAX_VALUE;
            for (int turn = 0; turn < Math.max(steps / BLOCK, 2); turn++) {
                frame.putFloat(0, turn / 100f);
                long start = System.nanoTime();
                for (int step = 0; step < BLOCK; step++) {
                    stream.step(inputs);
                }
                oursMicroseconds = Math.min(oursMicroseconds, (System.nanoTime() - start) / 1e3 / BLOCK);
                start = System.nanoTime();
                for (int step = 0; step < BLOCK; step++) {
                    byHand.step(frame);
                }
                handMicroseconds = Math.min(handMicroseconds, (System.nanoTime() - start) / 1e3 / BLOCK);
            }
            System.out.printf("{\"step_us\": %.3f, \"by_hand_us\": %.3f}%n", oursMicroseconds, handMicroseconds);
        }
    }

    /** The binding as one would write it: everything made once, two sets of maps that take turns. */
    private static final class ByHand {
        private final OrtSession session;
        private final ByteBuffer input;
        private final List<Map<String, OnnxTensor>> given = List.of(new HashMap<>(), new HashMap<>());
        private final List<Map<String, OnnxTensor>> taken = List.of(new HashMap<>(), new HashMap<>());
        private int side;

        ByHand(String path, Contract contract) throws OrtException {
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            options.addConfigEntry("session.intra_op.allow_spinning", "0");
            session = OrtEnvironment.getEnvironment().createSession(path, options);
            Contract.Input first = contract.inputs().get(0);
            input = buffer(first);
            OnnxTensor fed = tensor(first, input.asFloatBuffer());
            given.forEach(map -> map.put(first.name(), fed));
            for (Contract.Output output : contract.outputs()) {
                OnnxTensor result = tensor(output, buffer(output).asFloatBuffer());
                taken.forEach(map -> map.put(output.name(), result));
            }
            for (Contract.State state : contract.states()) {
                for (int read = 0; read < 2; read++) {
                    OnnxTensor value = tensor(state, buffer(state).asFloatBuffer());
                    given.get(read).put(state.input(), value);
                    taken.get(1 - read).put(state.output(), value);
                }
            }
        }

        private static ByteBuffer buffer(Contract.Spec spec) {
            int count = Arrays.stream(spec.chunkShape(1, name -> 1)).reduce(1, (one, two) -> one * two);
            return ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder());
        }

        private static OnnxTensor tensor(Contract.Spec spec, FloatBuffer data) throws OrtException {
            long[] shape = Arrays.stream(spec.chunkShape(1, name -> 1)).asLongStream().toArray();
            return OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), data, shape);
        }

        void step(ByteBuffer frame) throws OrtException {
            input.put(0, frame, 0, frame.limit());
            session.run(given.get(side), Set.of(), taken.get(side)).close();
            side = 1 - side;
        }
    }
}
