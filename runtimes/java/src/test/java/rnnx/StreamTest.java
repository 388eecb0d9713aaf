package rnnx;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

@WithGoldens
class StreamTest {
    private static Session open(String name) {
        return Session.open(Path.of(name));
    }

    private static void expect(String code, Executable action) {
        assertEquals(code, assertThrows(RnnxException.class, action).code());
    }

    /** Values that differ from step to step. */
    private static Tensor frame(int step, int... shape) {
        float[] values = new float[Shapes.count(shape)];
        for (int index = 0; index < values.length; index++) {
            values[index] = (step * 31 + index * 7) % 19 / 9.5f - 1;
        }
        return Tensor.of(values, shape);
    }

    /** A copy of the output y of one step. */
    private static float[] step(Stream stream, int step) {
        return stream.step(Map.of("x", frame(step, stream.batch(), 4))).get("y").floats();
    }

    @Test
    void aModelOpensFromItsBytesAndStreamsOutliveTheirSession() throws IOException {
        Session session = Session.of(Files.readAllBytes(Path.of("gru.onnx")));
        Stream stream = session.stream();
        session.close();
        session.close();
        float[] first = step(stream, 0);
        assertFalse(Arrays.equals(first, step(stream, 0)), "the state did not go on");
        assertEquals(2, stream.position());
        expect("session-closed", session::stream);
        stream.close();
        stream.close();
        expect("stream-closed", () -> step(stream, 0));
        expect("stream-closed", stream::snapshot);
    }

    @Test
    void aRefusedStepOfAPoolMovesNoStream() {
        try (Session session = open("gru.onnx"); Session other = open("gru.onnx"); Pool pool = session.pool();
                Stream first = session.stream(); Stream second = session.stream(); Stream alien = other.stream();
                Stream wide = session.streamWith().batch(2).open()) {
            Map<String, Tensor> x = Map.of("x", frame(0, 1, 4));
            expect("streams-disagree", () -> pool.step(Map.of(first, x, alien, x)));
            expect("streams-disagree", () -> pool.step(Map.of(first, x, wide, x)));
            expect("unknown-input", () -> pool.step(Map.of(first, x, second, Map.of("z", frame(0, 1, 4)))));
            assertEquals(0, first.position());
            Map<Stream, Map<String, Tensor>> outputs = pool.step(Map.of(first, x, second, x));
            assertArrayEquals(outputs.get(first).get("y").floats(), outputs.get(second).get("y").floats());
            assertEquals(1, first.position());
            assertEquals(Map.of(), pool.step(Map.of()));
            second.close();
            expect("stream-closed", () -> pool.step(Map.of(first, x, second, x)));
            first.step(x);
            pool.close();
            expect("stream-closed", () -> pool.step(Map.of(first, x)));
        }
    }

    @Test
    void resetGoesBackToTheStartAndRowsAlone() {
        try (Session session = open("gru.onnx"); Stream stream = session.streamWith().batch(3).open()) {
            float[] first = step(stream, 0);
            stream.resetRows(1, 1);
            float[] state = stream.state("state.h").floats(); // [1, 3, 6]
            assertArrayEquals(new float[6], Arrays.copyOfRange(state, 6, 12));
            assertNotEquals(0, state[0]);
            assertEquals(1, stream.position());
            stream.reset();
            assertEquals(0, stream.position());
            assertArrayEquals(first, step(stream, 0));
            expect("row-range", () -> stream.resetRows(3));
            expect("row-range", () -> stream.resetRows(-1));
        }
    }

    @Test
    void anInitialStateIsTheStartAndWhatResetGoesBackTo() {
        float[] start = {.5f, .5f, .5f, .5f, .5f, .5f};
        try (Session session = open("gru.onnx");
                Stream stream = session.streamWith().initial("state.h", Tensor.of(start, 1, 1, 6)).open()) {
            for (int turn = 0; turn < 2; turn++) {
                assertArrayEquals(start, stream.state("state.h").floats());
                step(stream, 0);
                stream.reset();
            }
        }
        Tensor good = Tensor.of(start, 1, 1, 6);
        refuse("unknown-state", "gru.onnx", builder -> builder.initial("h", good));
        refuse("wrong-shape", "gru.onnx", builder -> builder.initial("state.h", Tensor.of(start, 6)));
        refuse("wrong-shape", "gru.onnx", builder -> builder.initial("state.h", Tensor.of(new float[5], 1, 1, 6)));
        refuse("wrong-dtype", "gru.onnx", builder -> builder.initial("state.h", Tensor.of(new double[6], 1, 1, 6)));
        float[] bad = {0, Float.NaN, 0, 0, 0, 0};
        refuse("non-finite", "gru.onnx", builder -> builder.initial("state.h", Tensor.of(bad, 1, 1, 6)));
        refuse("empty-batch", "gru.onnx", builder -> builder.batch(0));
        refuse("unknown-dimension", "gru.onnx", builder -> builder.dim("memory", 3));
        refuse("no-batch", "no_batch.onnx", builder -> builder.batch(2));
        refuse("missing-dimension", "free_dimension.onnx", builder -> {});
        refuse("wrong-dimension", "free_dimension.onnx", builder -> builder.dim("memory", 0));
        refuse("out-of-memory", "free_dimension.onnx", builder -> builder.batch(3).dim("memory", Integer.MAX_VALUE / 8));
    }

    private static void refuse(String code, String model, Consumer<Stream.Builder> choose) {
        try (Session session = open(model)) {
            Stream.Builder builder = session.streamWith();
            choose.accept(builder);
            expect(code, builder::open);
        }
    }

    @Test
    void statesAreReadAndWrittenAndMayBeInfinite() {
        try (Session session = open("minus_infinity.onnx"); Stream stream = session.stream()) {
            assertEquals(Double.NEGATIVE_INFINITY, stream.state("best").number(5));
            float[] values = {Float.POSITIVE_INFINITY, 0, 0, 0, 0, 0};
            stream.setState("best", Tensor.of(values, 1, 6));
            assertArrayEquals(values, stream.state("best").floats());
            values[0] = Float.NaN;
            expect("non-finite", () -> stream.setState("best", Tensor.of(values, 1, 6)));
            expect("unknown-state", () -> stream.setState("worst", Tensor.of(values, 1, 6)));
            expect("unknown-state", () -> stream.state("worst"));
        }
    }

    @Test
    void anErrorLeavesTheStatesAsTheyWere() {
        try (Session session = open("gru.onnx"); Stream stream = session.stream()) {
            step(stream, 0);
            byte[] before = stream.snapshot();
            float[] bad = {0, 0, Float.NaN, 0};
            expect("non-finite", () -> stream.step(Map.of("x", Tensor.of(bad, 1, 4))));
            expect("wrong-shape", () -> stream.step(Map.of("x", Tensor.of(new float[3], 1, 4))));
            expect("wrong-dtype", () -> stream.step(Map.of("x", Tensor.of(new int[4], 1, 4))));
            expect("missing-input", () -> stream.step(Map.of()));
            expect("unknown-input", () -> stream.step(Map.of("z", Tensor.of(bad, 1, 4))));
            expect("empty-time", () -> stream.run(Map.of("x", Tensor.of(new float[0], 1, 0, 4))));
            expect("wrong-shape", () -> stream.run(Map.of("x", Tensor.of(bad, 1, 4))));
            assertArrayEquals(before, stream.snapshot());
        }
    }

    @Test
    void aChunkOfAStepModelHasTimeBehindTheBatch() {
        try (Session session = open("step_only.onnx"); // x float32[batch, 6] -> y float32[batch, 3]
                Stream whole = session.streamWith().batch(2).open();
                Stream stream = session.streamWith().batch(2).open()) {
            float[] given = frame(1, 2, 3, 6).floats();
            float[] joined = whole.run(Map.of("x", Tensor.of(given, 2, 3, 6))).get("y").floats(); // [2, 3, 3]
            for (int step = 0; step < 3; step++) {
                float[] x = Arrays.copyOf(Arrays.copyOfRange(given, step * 6, step * 6 + 6), 12);
                System.arraycopy(given, 18 + step * 6, x, 6, 6);
                float[] y = stream.step(Map.of("x", Tensor.of(x, 2, 6))).get("y").floats(); // [2, 3]
                float[] rows = Arrays.copyOf(Arrays.copyOfRange(joined, step * 3, step * 3 + 3), 6);
                System.arraycopy(joined, 9 + step * 3, rows, 3, 3);
                assertArrayEquals(rows, y);
            }
        }
    }

    @Test
    void aRestoredStreamGoesOnBitForBit() {
        try (Session session = open("lstm.onnx"); Stream stream = session.stream(); Stream other = session.stream()) {
            for (int step = 0; step < 5; step++) {
                step(stream, step);
            }
            byte[] saved = stream.snapshot();
            other.restore(saved);
            assertEquals(5, other.position());
            for (int step = 5; step < 9; step++) {
                assertArrayEquals(step(stream, step), step(other, step));
            }
            expect("not-safetensors", () -> other.restore(Arrays.copyOf(saved, saved.length - 1)));
            assertEquals(9, other.position());
            try (Session gru = open("gru.onnx"); Stream third = gru.stream()) {
                expect("snapshot-of-another-model", () -> third.restore(saved));
            }
            try (Stream rows = session.streamWith().batch(2).open()) {
                expect("snapshot-invalid", () -> rows.restore(saved));
            }
        }
    }

    @Test
    void defaultsAndLengthsMayBeLeftOut() {
        Tensor x = Tensor.of(new float[] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 2, 2, 3);
        Tensor gain = Tensor.of(new float[] {1, 1}, 2);
        float[] plain = total(Map.of("x", x));
        assertArrayEquals(plain, total(Map.of("x", x, "gain", gain, "lengths", Tensor.of(new long[] {2, 2}, 2))));
        assertFalse(Arrays.equals(plain, total(Map.of("x", x, "gain", Tensor.of(new float[] {2, 2}, 2)))));
        float[] kept = total(Map.of("x", x, "lengths", Tensor.of(new long[] {0, 2}, 2)));
        assertArrayEquals(new float[3], Arrays.copyOf(kept, 3), "a row of length 0 keeps its state");
        expect("length-range", () -> total(Map.of("x", x, "lengths", Tensor.of(new long[] {0, 3}, 2))));
        expect("length-range", () -> total(Map.of("x", x, "lengths", Tensor.of(new long[] {-1, 2}, 2))));
    }

    /** The state after a chunk of x float32[batch, time, 3], gain = 1, lengths. */
    private static float[] total(Map<String, Tensor> inputs) {
        try (Session session = open("default_and_length.onnx"); Stream stream = session.streamWith().batch(2).open()) {
            stream.run(inputs);
            return stream.state("total").floats();
        }
    }

    @Test
    void aWholeOnlyModelRunsOnceAndNeverSteps() {
        try (Session session = open("whole_only.onnx"); Stream stream = session.stream()) {
            Map<String, Tensor> inputs = Map.of("x", Tensor.of(new float[] {1, 2, 3}, 1, 3));
            expect("whole-only", () -> stream.step(Map.of("x", Tensor.of(new float[1], 1))));
            stream.run(inputs);
            expect("whole-only", () -> stream.run(inputs));
            stream.reset();
            stream.run(inputs);
        }
    }

    @Test
    void threadsShareASessionAndOneStreamIsRefusedToTwo() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(4);
        try (Session session = open("gru.onnx"); Stream shared = session.stream()) {
            List<float[]> alone = new ArrayList<>();
            List<Callable<float[]>> runs = new ArrayList<>();
            for (int offset = 0; offset < 4; offset++) {
                int first = offset;
                runs.add(() -> {
                    try (Stream stream = session.stream()) {
                        float[] all = new float[200];
                        for (int step = 0; step < 200; step++) {
                            all[step] = step(stream, first + step)[0];
                        }
                        return all;
                    }
                });
                alone.add(runs.get(offset).call());
            }
            List<Future<float[]>> together = threads.invokeAll(runs);
            for (int offset = 0; offset < 4; offset++) {
                assertArrayEquals(alone.get(offset), together.get(offset).get());
            }
            // Two on one stream: every call succeeds or is refused as busy, and each success is a step.
            Callable<Integer> steps = () -> {
                int done = 0;
                for (int step = 0; step < 2000; step++) {
                    try {
                        shared.step(Map.of("x", frame(0, 1, 4)));
                        done++;
                    } catch (RnnxException error) {
                        assertEquals("stream-busy", error.code());
                    }
                }
                return done;
            };
            int done = 0;
            for (Future<Integer> each : threads.invokeAll(List.of(steps, steps))) {
                done += each.get();
            }
            assertEquals(done, shared.position());
        } finally {
            threads.shutdownNow();
        }
    }

    @Test
    void memoryStaysFlatOverAHundredThousandSteps() throws IOException, InterruptedException {
        try (Session session = open("gru.onnx"); Stream stream = session.stream()) {
            ByteBuffer values = ByteBuffer.allocateDirect(16).order(ByteOrder.nativeOrder());
            Map<String, Tensor> inputs = Map.of("x", Tensor.wrap(DType.FLOAT32, values, 1, 4));
            steps(stream, inputs, values, 20_000);
            long before = residentKilobytes();
            steps(stream, inputs, values, 100_000);
            long growth = residentKilobytes() - before;
            assertTrue(growth < 512, growth + " kB more after 100,000 steps");
            assertEquals(120_000, stream.position());
        }
    }

    @Test
    void streamsThatAreClosedLeaveNothingBehind() throws IOException, InterruptedException {
        try (Session session = open("gru.onnx")) {
            openStreams(session, 4000);
            long before = residentKilobytes();
            openStreams(session, 12_000); // with 9 kB of buffers and 7 tensors each
            long growth = residentKilobytes() - before;
            assertTrue(growth < 2 << 10, growth + " kB more after 12,000 streams");
        }
    }

    private static void openStreams(Session session, int count) {
        for (int index = 0; index < count; index++) {
            try (Stream stream = session.streamWith().batch(64).open()) {
                step(stream, 0);
            }
            if (index % 500 == 0) {
                System.gc(); // direct buffers go when the collector finds them
            }
        }
    }

    private static void steps(Stream stream, Map<String, Tensor> inputs, ByteBuffer values, int count) {
        for (int step = 0; step < count; step++) {
            values.putFloat(0, step % 17 / 8f - 1);
            stream.step(inputs);
        }
    }

    /** Resident memory of the process, whose heap has one size: see pom.xml. */
    private static long residentKilobytes() throws IOException, InterruptedException {
        for (int turn = 0; turn < 3; turn++) {
            System.gc();
            Thread.sleep(50); // what the collector found is given back by a thread of its own
        }
        String line = Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(each -> each.startsWith("VmRSS:"))
                .findFirst()
                .orElseThrow();
        return Long.parseLong(line.replaceAll("[^0-9]", ""));
    }

    @Test
    void aDamagedModelIsRefusedAndNeverCrashes() throws IOException {
        byte[] data = Files.readAllBytes(Path.of("gru.onnx"));
        for (int size = 0; size < data.length; size += 97) {
            byte[] part = Arrays.copyOf(data, size);
            String code = assertThrows(RnnxException.class, () -> Session.of(part)).code();
            assertTrue(List.of("not-onnx", "no-contract").contains(code), code);
        }
        expect("file-missing", () -> open("none.onnx"));
        expect("cannot-read", () -> open("faults"));
    }
}
