package rnnx.tools;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import rnnx.Pool;
import rnnx.Replayer;
import rnnx.RnnxException;
import rnnx.Sampler;
import rnnx.Session;
import rnnx.Stream;
import rnnx.Tensor;
import rnnx.TensorFile;
import rnnx.TextStream;
import rnnx.Trace;

/** The conformance program: replays traces, provokes errors, draws and generates, as docs/conformance.md says. */
public final class Replay {
    private static final int ATTEMPTS = 1_000_000; // steps after which two threads should have met
    private static final Set<String> FLAGS = Set.of(
            "chunks", "provider", "feed", "times", "misuse", "restore", "snapshot", "after", "text", "length",
            "temperature", "seed", "draw", "count", "entries", "omit", "together");

    private final List<String> files = new ArrayList<>();
    private final Map<String, String> flags = new HashMap<>();
    private boolean flush;

    private Replay(String[] words) {
        for (int index = 0; index < words.length; index++) {
            String word = words[index];
            if (!word.startsWith("--")) {
                files.add(word);
            } else if (FLAGS.contains(word.substring(2)) && index + 1 < words.length) {
                flags.put(word.substring(2), words[++index]);
            } else if (word.equals("--flush")) {
                flush = true;
            } else if (!word.equals("--json")) {
                throw usage("options of docs/conformance.md, with their values", "'" + word + "'");
            }
        }
    }

    /** Runs the program; exit code 0 fine, 1 the comparison failed, 2 an error. */
    public static void main(String[] words) {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        boolean isJson = Arrays.asList(words).contains("--json");
        Gson gson = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();
        try {
            Map<String, Object> result = run(words);
            out.println(isJson ? gson.toJson(result) : show(result));
            System.exit(Boolean.FALSE.equals(result.get("agrees")) ? 1 : 0);
        } catch (RnnxException error) {
            if (isJson) {
                out.println(gson.toJson(Map.of("error", Map.of("code", error.code(), "text", error.getMessage()))));
            } else {
                System.err.println("error[" + error.code() + "]: " + error.getMessage());
            }
            System.exit(2);
        }
    }

    /** Do what the words ask for; return what is to be printed. */
    static Map<String, Object> run(String... words) {
        return new Replay(words).run();
    }

    private Map<String, Object> run() {
        if (flags.containsKey("draw")) {
            return draw();
        }
        if (files.isEmpty()) {
            throw usage("a model", "none");
        }
        Session.Options options = new Session.Options().provider(flags.getOrDefault("provider", "cpu"));
        try (Session session = options.open(Path.of(files.get(0)))) {
            if (flags.containsKey("text")) {
                return text(session);
            }
            if (flags.containsKey("together")) {
                return together(session);
            }
            if (flags.containsKey("feed") || flags.containsKey("misuse")) {
                return feed(session);
            }
            if (flags.containsKey("restore")) {
                try (Stream stream = session.stream()) {
                    stream.restore(Session.readFile(Path.of(flags.get("restore")), "a snapshot"));
                    return Map.of("position", stream.position());
                }
            }
            if (files.size() < 2) {
                throw usage("a trace, or one of --feed, --together, --misuse, --restore, --text", "none");
            }
            return trace(session);
        }
    }

    private Map<String, Object> trace(Session session) {
        Trace trace = Trace.decode(Session.readFile(Path.of(files.get(1)), "a trace"), session.contract());
        try (Replayer replayer = new Replayer(session, trace)) {
            if (flags.containsKey("entries")) {
                List<Integer> blocks = numbers("entries", "", Integer::parseUnsignedInt);
                return told(replayer.runBlocks(blocks, number("omit", 0, Integer::parseUnsignedInt)));
            }
            if (!flags.containsKey("snapshot")) {
                return told(replayer.run(numbers("chunks", "1", Integer::parseUnsignedInt)));
            }
            Stream stream = replayer.toStep(number("after", 0, Integer::parseUnsignedInt));
            write(Path.of(flags.get("snapshot")), stream.snapshot());
            return Map.of("position", stream.position());
        }
    }

    private static Map<String, Object> told(Replayer.Verdict verdict) {
        Map<String, Object> told = new LinkedHashMap<>();
        told.put("agrees", verdict.agrees());
        told.put("steps", verdict.steps());
        told.put("calls", verdict.calls());
        told.put("max_error", verdict.maxError());
        told.put("failure", verdict.failure());
        return told;
    }

    private static void write(Path path, byte[] data) {
        try {
            Files.write(path, data);
        } catch (IOException error) {
            throw new RnnxException("cannot-write", "to write " + path, error.toString(), "choose another place");
        }
    }

    private Map<String, Object> draw() {
        List<Double> weights = numbers("draw", "", Double::parseDouble);
        double[] values = weights.stream().mapToDouble(Double::doubleValue).toArray();
        Sampler sampler = new Sampler(seed(), 1);
        List<Integer> draws = new ArrayList<>();
        for (int count = number("count", 1, Integer::parseUnsignedInt); count > 0; count--) {
            draws.add(sampler.sampleWeights(values));
        }
        return Map.of("draws", draws);
    }

    private Map<String, Object> text(Session session) {
        try (TextStream text = session.text(seed(), number("temperature", 1.0, Double::parseDouble))) {
            text.read(flags.get("text"));
            return Map.of("text", text.write(number("length", 0, Integer::parseUnsignedInt)));
        }
    }

    /** Step a stream of batch 1 with the same inputs again and again, or misuse it. */
    private Map<String, Object> feed(Session session) {
        Map<String, Tensor> inputs = Map.of();
        if (flags.containsKey("feed")) {
            inputs = readFeed(flags.get("feed"));
        }
        try (Stream stream = session.stream()) {
            String misuse = flags.getOrDefault("misuse", "");
            if (misuse.equals("closed")) {
                stream.close();
            } else if (misuse.equals("waiting")) {
                stream.feed(inputs);
            } else if (misuse.equals("part")) {
                stream.run(inputs);
            } else if (misuse.equals("threads")) {
                throw stepFromTwo(stream, inputs);
            }
            Map<String, Tensor> outputs = Map.of();
            for (int times = number("times", 1, Integer::parseUnsignedInt); times > 0; times--) {
                outputs = stream.step(inputs);
            }
            if (flush) {
                outputs = stream.flush();
            }
            return flat(outputs);
        }
    }

    private static Map<String, Tensor> readFeed(String path) {
        return TensorFile.decode(Session.readFile(Path.of(path), "a feed"), "a feed").tensors();
    }

    private static Map<String, Object> flat(Map<String, Tensor> outputs) {
        Map<String, Object> flat = new LinkedHashMap<>();
        for (Map.Entry<String, Tensor> output : outputs.entrySet()) {
            List<Object> values = new ArrayList<>();
            for (int index = 0; index < output.getValue().count(); index++) {
                values.add(Replayer.plain(output.getValue(), index));
            }
            flat.put(output.getKey(), values);
        }
        return Map.of("outputs", flat);
    }

    /** Step a stream for each of the files as one batch; each begins and pauses in rounds of its own. */
    private Map<String, Object> together(Session session) {
        try (Pool pool = session.pool()) {
            List<Stream> streams = new ArrayList<>();
            List<Map<String, Tensor>> feeds = new ArrayList<>();
            for (String path : flags.get("together").split(",")) {
                feeds.add(readFeed(path));
                streams.add(session.stream());
            }
            Map<Stream, Map<String, Tensor>> latest = new LinkedHashMap<>();
            streams.forEach(stream -> latest.put(stream, Map.of()));
            int times = number("times", 1, Integer::parseUnsignedInt);
            for (int turn = 0; turn < times; turn++) {
                Map<Stream, Map<String, Tensor>> inputs = new LinkedHashMap<>();
                for (int place = 0; place < streams.size() && place <= turn; place++) {
                    if ((turn + place) % 3 != 2) {
                        inputs.put(streams.get(place), feeds.get(place));
                    }
                }
                latest.putAll(pool.step(inputs));
            }
            streams.forEach(Stream::close);
            return Map.of("streams", latest.values().stream().map(Replay::flat).toList());
        }
    }

    /** Step one stream from two threads at once until one of them is refused; return what it was told. */
    private static RnnxException stepFromTwo(Stream stream, Map<String, Tensor> inputs) {
        AtomicReference<RnnxException> refused = new AtomicReference<>();
        Runnable steps = () -> {
            try {
                for (int step = 0; step < ATTEMPTS && refused.get() == null; step++) {
                    stream.step(inputs);
                }
            } catch (RnnxException error) {
                refused.compareAndSet(null, error);
            }
        };
        Thread other = new Thread(steps);
        other.start();
        steps.run();
        try {
            other.join();
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
        return refused.get() != null ? refused.get() : usage("one thread to be refused", "none in a million steps");
    }

    private long seed() {
        String text = flags.getOrDefault("seed", "0");
        try {
            return Long.parseUnsignedLong(text);
        } catch (NumberFormatException error) {
            String expected = "a seed in 0..18446744073709551615 (unsigned 64 bit)";
            throw new RnnxException("seed-invalid", expected, text, "choose a seed in that range");
        }
    }

    private <T> T number(String name, T otherwise, Function<String, T> parse) {
        return flags.containsKey(name) ? numbers(name, "", parse).get(0) : otherwise;
    }

    private <T> List<T> numbers(String name, String otherwise, Function<String, T> parse) {
        String text = flags.getOrDefault(name, otherwise);
        try {
            return Arrays.stream(text.split(",")).map(String::strip).map(parse).toList();
        } catch (NumberFormatException error) {
            throw usage("numbers for --" + name, "'" + text + "'");
        }
    }

    private static RnnxException usage(String expected, String found) {
        return new RnnxException("usage", expected, found, "see docs/conformance.md");
    }

    /** A result for people. */
    private static String show(Map<String, Object> result) {
        if (result.containsKey("text")) {
            return result.get("text").toString();
        }
        if (result.get("draws") instanceof List<?> draws) {
            return String.join(" ", draws.stream().map(Object::toString).toList());
        }
        if (!result.containsKey("agrees")) {
            Object shown = result.getOrDefault("outputs", result);
            return shown.toString().replaceAll("^\\{|\\}$", "");
        }
        String told = result.get("steps") + " steps in " + result.get("calls") + " calls, largest error "
                + result.get("max_error");
        return result.get("failure") == null ? "agrees: " + told : "disagrees: " + result.get("failure") + "; " + told;
    }
}
