package rnnx;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import rnnx.Contract.Input;
import rnnx.Contract.Spec;

/**
 * Steps many streams of a session, each of batch 1, as the rows of one batch. Made by {@link Session#pool}.
 *
 * <p>Which streams step is free at each call: those that are left out stay as they are. A pool is used by one thread at a
 * time, and so is each stream.
 */
public final class Pool implements AutoCloseable {
    private static final int KEPT = 32; // sizes of batches whose buffers stay

    private final Session session;
    private final Contract contract;
    private final Deque<Stream> batches = new ArrayDeque<>(); // the latest is the last
    private final AtomicInteger gate = new AtomicInteger(Stream.OPEN);

    Pool(Session session) {
        this.session = session;
        contract = session.contract();
        checkModel();
        session.join();
    }

    /**
     * Run one step of each of the streams.
     *
     * @param inputs by stream, those of each as its own {@link Stream#step} takes them
     * @return the outputs by stream, in the same order and yours to keep: to rounding what each gives alone
     * @throws RnnxException as {@link Stream#step}, and {@code streams-disagree} for a stream of another session, one of
     *     a batch, other free dimensions, or another value of an input without a batch axis. No stream has moved then,
     *     and the message says whose input it was
     */
    public Map<Stream, Map<String, Tensor>> step(Map<Stream, Map<String, Tensor>> inputs) {
        enter();
        List<Stream> streams = new ArrayList<>();
        try {
            for (Stream stream : inputs.keySet()) {
                stream.enter();
                streams.add(stream);
            }
            return streams.isEmpty() ? Map.of() : stepAll(streams, new ArrayList<>(inputs.values()));
        } finally {
            streams.forEach(Stream::leave);
            gate.set(Stream.OPEN);
        }
    }

    /** Let go of the buffers of the pool; its streams stay as they are. Closing twice is fine. */
    @Override
    public void close() {
        if (gate.get() == Stream.CLOSED) {
            return;
        }
        enter();
        batches.forEach(Stream::close);
        gate.set(Stream.CLOSED);
        session.leave();
    }

    private Map<Stream, Map<String, Tensor>> stepAll(List<Stream> streams, List<Map<String, Tensor>> inputs) {
        Map<String, Integer> sizes = match(streams, inputs);
        Map<String, Tensor> joined = join(inputs, sizes);
        List<Map<String, Tensor>> outputs = batch(sizes, streams.size()).stepRows(streams, joined);
        Map<Stream, Map<String, Tensor>> found = new LinkedHashMap<>();
        for (int row = 0; row < streams.size(); row++) {
            found.put(streams.get(row), outputs.get(row));
        }
        return found;
    }

    /** Check the inputs of each stream as a step of it alone would; return the sizes of that step. */
    private Map<String, Integer> match(List<Stream> streams, List<Map<String, Tensor>> inputs) {
        Map<String, Integer> first = null;
        for (int place = 0; place < streams.size(); place++) {
            Stream stream = streams.get(place);
            if (stream.session() != session) {
                throw disagree("streams of the session that the pool was opened on", "one of another session");
            }
            if (stream.batch() != 1) {
                throw disagree("streams of batch 1", "a stream of a larger batch");
            }
            stream.requireNoneWaits();
            Map<String, Integer> sizes;
            try {
                sizes = stream.matchStep(inputs.get(place));
            } catch (RnnxException error) {
                String found = error.found() + ", in the input of stream " + place;
                throw new RnnxException(error.code(), error.expected(), found, error.fix(), error);
            }
            first = first == null ? sizes : first;
            for (String name : contract.freeDimensions()) {
                if (!sizes.get(name).equals(first.get(name))) {
                    throw disagree(
                            "one size of '" + name + "' in all streams that run together",
                            first.get(name) + " in stream 0, " + sizes.get(name) + " in stream " + place);
                }
            }
        }
        return first;
    }

    /** The inputs of all streams as those of one batch. */
    private Map<String, Tensor> join(List<Map<String, Tensor>> inputs, Map<String, Integer> sizes) {
        Map<String, Tensor> joined = new HashMap<>();
        for (Input input : contract.inputs()) {
            List<Axis> axes = contract.callerShape(input, false);
            int[] shape = Shapes.resolve(axes, Shapes.with(sizes, "batch", inputs.size()));
            Tensor leftOut = leftOut(input, Shapes.resolve(axes, sizes));
            Tensor whole = Tensor.zeros(input.dtype(), shape);
            int axis = Shapes.axisIndex(axes, "batch");
            for (int row = 0; row < inputs.size(); row++) {
                Tensor value = inputs.get(row).getOrDefault(input.name(), leftOut);
                if (axis >= 0) {
                    Shapes.Pieces.of(shape, axis, 1, input.dtype().size).put(whole.data(), row, value.data());
                } else if (row == 0) {
                    whole.copyFrom(value);
                } else if (whole.data().mismatch(value.data()) >= 0) {
                    throw disagree(
                            "one value of '" + input.name() + "', which has no batch axis, in all streams of a call",
                            "another in stream " + row + " than in stream 0");
                }
            }
            joined.put(input.name(), whole);
        }
        return joined;
    }

    private static Tensor leftOut(Input input, int[] shape) {
        if (input.isLength()) {
            return new Contract.Constant(new int[0], new double[] {1}).fill(input.dtype(), shape);
        }
        return input.standIn() == null ? Tensor.zeros(input.dtype(), shape) : input.standIn().fill(input.dtype(), shape);
    }

    /** The stream of so many rows. */
    private Stream batch(Map<String, Integer> sizes, int rows) {
        Stream found = null;
        for (Stream batch : batches) {
            if (batch.batch() == rows && contract.freeDimensions().stream().allMatch(name -> sizes.get(name).equals(batch.size(name)))) {
                found = batch;
            }
        }
        if (found == null) {
            Stream.Builder builder = session.streamWith().batch(rows);
            contract.freeDimensions().forEach(name -> builder.dim(name, sizes.get(name)));
            found = builder.open();
        }
        batches.remove(found);
        if (batches.size() == KEPT) {
            batches.removeFirst().close();
        }
        batches.addLast(found);
        return found;
    }

    private void checkModel() {
        if (contract.wholeOnly() != null) {
            throw new RnnxException(
                    "whole-only",
                    "a model that can be stepped",
                    "one that takes whole sequences, because of " + contract.wholeOnly(),
                    "open a stream, and give it the whole sequence in one call of run");
        }
        if (!contract.hasBatch()) {
            throw new RnnxException(
                    "no-batch",
                    "a model with a batch axis, whose rows the streams of a pool are",
                    "none in any input or state",
                    "open one stream per sequence, or export with a batch axis");
        }
        contract.states().forEach(state -> checkRows("state", state));
        contract.outputs().forEach(output -> checkRows("output", output));
    }

    private static void checkRows(String kind, Spec spec) {
        if (Shapes.axisIndex(spec.shape(), "batch") < 0) {
            throw new RnnxException(
                    "shared-" + kind,
                    kind + "s with a batch axis, so that each stream of a pool has its own",
                    kind + " '" + spec.name() + "' shared by all rows",
                    "open one stream per sequence");
        }
    }

    private void enter() {
        if (gate.compareAndSet(Stream.OPEN, Stream.BUSY)) {
            return;
        }
        if (gate.get() == Stream.CLOSED) {
            throw new RnnxException("stream-closed", "a pool that is open", "one that was closed", "open another pool");
        }
        throw new RnnxException(
                "stream-busy",
                "one thread at a time on a pool",
                "a call while another is running",
                "let one thread step it, and the others hand it what they have, by a queue");
    }

    private static RnnxException disagree(String expected, String found) {
        return new RnnxException("streams-disagree", expected, found, "run them in separate calls");
    }
}
