package rnnx;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtProvider;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.providers.OrtCUDAProviderOptions;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** ONNX Runtime behind a session, and tensors of its that share memory with ours. */
final class Engine implements AutoCloseable {
    private final OrtSession session;

    private Engine(OrtSession session) {
        this.session = session;
    }

    /**
     * Load a model on a provider and nowhere else.
     *
     * @param path null for a model that has its bytes alone; else weights beside it are found
     */
    static Engine load(byte[] data, Path path, String provider, int threads, String label) {
        OrtEnvironment environment;
        try {
            // What goes wrong is thrown; nothing is printed beside it.
            environment = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL, "rnnx");
            // Official builds report their use over the network. ORT_DISABLE_TELEMETRY=1 keeps them from beginning
            // to, which a Java program cannot set for itself; this ends it.
            environment.setTelemetry(false);
        } catch (LinkageError | RuntimeException | OrtException error) {
            throw new RnnxException(
                    "onnxruntime-missing",
                    "the native library of ONNX Runtime",
                    "none that can be loaded (" + firstLine(error) + ")",
                    "use the artifact com.microsoft.onnxruntime:onnxruntime, which has it for this system",
                    error);
        }
        boolean isCuda = provider.equals("cuda");
        if (isCuda && !OrtEnvironment.getAvailableProviders().contains(OrtProvider.CUDA)) {
            throw noCuda("an ONNX Runtime built without CUDA", null);
        }
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(threads);
            options.setInterOpNumThreads(1);
            options.addConfigEntry("session.intra_op.allow_spinning", "0");
            options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL);
            if (isCuda) {
                addCuda(options);
            }
            return new Engine(
                    path != null
                            ? environment.createSession(path.toString(), options)
                            : environment.createSession(data, options));
        } catch (OrtException error) {
            if (isCuda && firstLine(error).contains("CUDA")) {
                throw noCuda(firstLine(error), error);
            }
            throw new RnnxException(
                    "engine-refused",
                    label + " to load in ONNX Runtime",
                    firstLine(error),
                    "export it again, or install a newer ONNX Runtime",
                    error);
        }
    }

    private static void addCuda(OrtSession.SessionOptions options) {
        try (OrtCUDAProviderOptions cuda = new OrtCUDAProviderOptions(0)) {
            cuda.add("use_tf32", "0");
            options.addCUDA(cuda);
        } catch (OrtException error) {
            throw noCuda(firstLine(error), error);
        }
    }

    private static RnnxException noCuda(String found, Throwable cause) {
        return new RnnxException(
                "provider-unavailable",
                "CUDA to work on this machine",
                found,
                "install ONNX Runtime with CUDA (in Python: rnnx[cuda], without onnxruntime), or use provider cpu",
                cause);
    }

    private static RnnxException failed(Throwable error) {
        return new RnnxException(
                "engine-failed",
                "ONNX Runtime to compute the step",
                firstLine(error),
                "the states are unchanged; check that the contract fits the graph, or export the model again",
                error);
    }

    private static String firstLine(Throwable error) {
        String text = String.valueOf(error.getMessage()).strip();
        return text.lines().findFirst().orElse(error.getClass().getSimpleName());
    }

    @Override
    public void close() {
        try {
            session.close();
        } catch (OrtException error) {
            throw failed(error);
        }
    }

    /** A tensor of the engine in the memory of one of ours, which must stay alive as long. */
    private static OnnxTensor share(Tensor tensor) {
        long[] shape = Arrays.stream(tensor.sizes()).asLongStream().toArray();
        try {
            return OnnxTensor.createTensor(OrtEnvironment.getEnvironment(), tensor.data(), shape, type(tensor.dtype()));
        } catch (OrtException error) {
            throw failed(error);
        }
    }

    private static OnnxJavaType type(DType dtype) {
        return switch (dtype) {
            case FLOAT16 -> OnnxJavaType.FLOAT16;
            case FLOAT32 -> OnnxJavaType.FLOAT;
            case FLOAT64 -> OnnxJavaType.DOUBLE;
            case INT8 -> OnnxJavaType.INT8;
            case INT16 -> OnnxJavaType.INT16;
            case INT32 -> OnnxJavaType.INT32;
            case INT64 -> OnnxJavaType.INT64;
            case UINT8 -> OnnxJavaType.UINT8;
            case BOOL -> OnnxJavaType.BOOL;
            case UINT16, UINT32, UINT64 -> throw new RnnxException(
                    "engine-refused",
                    "tensors that ONNX Runtime for Java can make",
                    "one of " + dtype,
                    "export the model with int64 there");
        };
    }

    /** Refuse a contract with dtypes that the binding lacks. */
    static void checkTypes(Contract contract) {
        contract.inputs().forEach(input -> type(input.dtype()));
        contract.outputs().forEach(output -> type(output.dtype()));
        contract.states().forEach(state -> type(state.dtype()));
    }

    /** Inputs, outputs and states bound for calls of one size: a step binds nothing anew. */
    static final class Bound implements AutoCloseable {
        private final Engine engine;
        private final Map<String, OnnxTensor> tensors = new HashMap<>();
        private final List<Map<String, OnnxTensor>> given; // one map for each side that is read
        private final List<Map<String, OnnxTensor>> taken;
        private final Set<String> loose = new HashSet<>();

        /**
         * @param sides both hold the states in the order of the contract
         * @param outputs null for one whose size is known only after a run
         */
        Bound(Engine engine, Contract contract, List<List<Tensor>> sides, List<Tensor> inputs, List<Tensor> outputs) {
            this.engine = engine;
            given = List.of(new HashMap<>(), new HashMap<>());
            taken = List.of(new HashMap<>(), new HashMap<>());
            for (int side = 0; side < 2; side++) {
                for (int index = 0; index < inputs.size(); index++) {
                    String name = contract.inputs().get(index).name();
                    given.get(side).put(name, shared("input." + name, inputs.get(index)));
                }
                for (int index = 0; index < outputs.size(); index++) {
                    String name = contract.outputs().get(index).name();
                    if (outputs.get(index) == null) {
                        loose.add(name);
                    } else {
                        taken.get(side).put(name, shared("output." + name, outputs.get(index)));
                    }
                }
                for (int index = 0; index < contract.states().size(); index++) {
                    Contract.State state = contract.states().get(index);
                    given.get(side).put(state.input(), shared(side + state.name(), sides.get(side).get(index)));
                    taken.get(side).put(state.output(), shared(1 - side + state.name(), sides.get(1 - side).get(index)));
                }
            }
        }

        private OnnxTensor shared(String key, Tensor tensor) {
            return tensors.computeIfAbsent(key, absent -> share(tensor));
        }

        /**
         * Compute from the states of {@code side} into those of the other.
         *
         * @return copies of the outputs whose size was not known, in the shape of the graph
         */
        Map<String, Tensor> run(int side, Contract contract) {
            try (OrtSession.Result result = engine.session.run(given.get(side), loose, taken.get(side))) {
                if (loose.isEmpty()) {
                    return Map.of(); // our memory holds the others
                }
                Map<String, Tensor> copies = new HashMap<>();
                for (Contract.Output output : contract.outputs()) {
                    if (loose.contains(output.name())) {
                        copies.put(output.name(), copyOf(output.dtype(), (OnnxTensor) result.get(output.name()).orElseThrow()));
                    }
                }
                return copies;
            } catch (OrtException error) {
                throw failed(error);
            }
        }

        private static Tensor copyOf(DType dtype, OnnxTensor value) {
            int[] shape = Arrays.stream(value.getInfo().getShape()).mapToInt(Math::toIntExact).toArray();
            Tensor tensor = Tensor.zeros(dtype, shape);
            tensor.data().put(0, value.getByteBuffer(), 0, tensor.data().limit());
            return tensor;
        }

        @Override
        public void close() {
            tensors.values().forEach(OnnxTensor::close);
        }
    }
}
