package rnnx;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Set;

/** A loaded model. Threads may share it; close it, in any order with its streams. */
public final class Session implements AutoCloseable {
    private static final Set<String> PROVIDERS = Set.of("cpu", "cuda");

    private final Contract contract;
    private final Engine engine;
    private final String provider;
    private int streams; // that are open
    private boolean isClosed;

    /** How a model is loaded: {@code new Session.Options().provider("cuda").open(path)}. */
    public static final class Options {
        private String provider = "cpu";
        private int threads = 1;

        /** The provider cpu and one thread. */
        public Options() {}

        /** What computes a step: {@code cpu} or {@code cuda}. One that does not work is an error, never another one. */
        public Options provider(String name) {
            provider = name;
            return this;
        }

        /** Threads inside one operator; one is the fastest for a step of a small network. */
        public Options threads(int count) {
            threads = count;
            return this;
        }

        /** Load the model at {@code path}; see {@link Session#open}. */
        public Session open(Path path) {
            return new Session(readFile(path, "an ONNX model"), path, path.toString(), this);
        }

        /** Load a model from its bytes; one with weights in another file needs {@link #open}. */
        public Session of(byte[] data) {
            return new Session(data, null, "the model", this);
        }
    }

    private Session(byte[] data, Path path, String label, Options options) {
        if (!PROVIDERS.contains(options.provider)) {
            String found = "'" + options.provider + "'";
            throw new RnnxException("provider-unknown", "a provider out of cpu, cuda", found, "choose one of these");
        }
        ModelFile.Read model = ModelFile.read(data, path, label);
        contract = model.contract();
        Engine.checkTypes(contract);
        // With weights beside the file, ONNX Runtime has to find them by the file's place.
        engine = Engine.load(data, model.isExternal() ? path : null, options.provider, Math.max(options.threads, 1), label);
        provider = options.provider;
    }

    /**
     * Load the model at {@code path} on the CPU; weights in other files are read from its folder alone.
     *
     * @throws RnnxException {@code file-missing}, {@code cannot-read}, {@code not-onnx}, {@code external-data-missing},
     *     {@code external-data-refused}, {@code no-contract}, {@code contract-invalid}, {@code contract-newer},
     *     {@code contract-requires}, {@code contract-graph}, {@code onnxruntime-missing}, {@code provider-unknown},
     *     {@code provider-unavailable} or {@code engine-refused}
     */
    public static Session open(Path path) {
        return new Options().open(path);
    }

    /** Load a model from its bytes, on the CPU; see {@link #open}. */
    public static Session of(byte[] data) {
        return new Options().of(data);
    }

    /** What the model takes, gives and carries. */
    public Contract contract() {
        return contract;
    }

    /** Identity of the model; snapshots and traces are tied to it. */
    public String id() {
        return contract.id();
    }

    /** What computes a step. */
    public String provider() {
        return provider;
    }

    /** Open a stream of one sequence with states at their start; see {@link Stream.Builder#open}. */
    public Stream stream() {
        return streamWith().open();
    }

    /** Open a stream with a batch, free dimensions or other starts. */
    public Stream.Builder streamWith() {
        return new Stream.Builder(this);
    }

    /**
     * Open a pool, which steps many streams as one batch.
     *
     * @throws RnnxException {@code whole-only}, {@code no-batch}, {@code shared-state}, {@code shared-output} or
     *     {@code session-closed}
     */
    public Pool pool() {
        return new Pool(this);
    }

    /**
     * Start a text; the same seed gives the same text in every language.
     *
     * @param seed unsigned 64 bits
     * @throws RnnxException {@code not-symbols} for a model without vocabulary, {@code temperature-invalid}
     */
    public TextStream text(long seed, double temperature) {
        return new TextStream(this, seed, temperature);
    }

    /** Let go of the model, once the last of its streams is closed. Closing twice is fine. */
    @Override
    public synchronized void close() {
        if (!isClosed && streams == 0) {
            engine.close();
        }
        isClosed = true;
    }

    synchronized Engine join() {
        if (isClosed) {
            String found = "one that was closed";
            throw new RnnxException("session-closed", "a session that is open", found, "open the model again");
        }
        streams++;
        return engine;
    }

    synchronized void leave() {
        streams--;
        if (isClosed && streams == 0) {
            engine.close();
        }
    }

    /**
     * Replay the trace that was exported beside a model, step by step, and say whether the model gives what was recorded.
     *
     * @throws RnnxException as {@link #readFile}, {@link Trace#decode} and {@link Stream#step}
     */
    public Replayer.Verdict replay(Path path) {
        Trace trace = Trace.decode(readFile(path, "a trace"), contract);
        try (Replayer replayer = new Replayer(this, trace)) {
            return replayer.run(java.util.List.of(1));
        }
    }

    /**
     * The bytes of a file; {@code what} it should be stands in the message ("a trace").
     *
     * @throws RnnxException {@code file-missing} or {@code cannot-read}
     */
    public static byte[] readFile(Path path, String what) {
        String expected = what + " at " + path;
        try {
            return Files.readAllBytes(path);
        } catch (NoSuchFileException error) {
            throw new RnnxException("file-missing", expected, "no such file", "check the path", error);
        } catch (IOException | OutOfMemoryError error) {
            String found = Files.isDirectory(path) ? "a folder" : String.valueOf(error.getMessage());
            throw new RnnxException("cannot-read", expected, found, "name a readable file", error);
        }
    }
}
