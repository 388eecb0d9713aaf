package rnnx;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import rnnx.Contract.Output;
import rnnx.Contract.State;

/**
 * One batched sequence of a session.
 *
 * <p>A step reads one side of the states and writes the other; the two change roles at its very end, so that after an
 * error the states are what they were before the call. A stream is used by one thread at a time: a call while another is
 * running is refused with {@code stream-busy}, and one after {@link #close} with {@code stream-closed}.
 */
public final class Stream implements AutoCloseable {
    static final int OPEN = 0;
    static final int BUSY = 1;
    static final int CLOSED = 2;

    private final Session session;
    private final Contract contract;
    private final Engine engine;
    private final int batch;
    private final Map<String, Integer> sizes; // of batch and the free dimensions that were bound
    private final List<Tensor> starts;
    private final List<List<Tensor>> sides = List.of(new ArrayList<>(), new ArrayList<>());
    private final AtomicInteger gate = new AtomicInteger(OPEN);
    private Call stepCall; // the latest of step and of run
    private Call chunkCall;
    private int side;
    private long position;
    private Waiting waiting;

    /** What a stream is opened with. */
    public static final class Builder {
        private final Session session;
        private final Map<String, Integer> dims = new HashMap<>();
        private final Map<String, Tensor> initial = new HashMap<>();
        private int batch = 1;

        Builder(Session session) {
            this.session = session;
        }

        /** Number of sequences that run side by side, one to a row. */
        public Builder batch(int rows) {
            batch = rows;
            return this;
        }

        /** The size of a free dimension; required for those that a state has. */
        public Builder dim(String name, int size) {
            dims.put(name, size);
            return this;
        }

        /** Another start than the contract's for a state; {@code reset} goes back to it. */
        public Builder initial(String state, Tensor value) {
            initial.put(state, value);
            return this;
        }

        /**
         * Open the stream.
         *
         * @throws RnnxException {@code unknown-dimension}, {@code wrong-dimension}, {@code empty-batch},
         *     {@code no-batch}, {@code missing-dimension}, {@code unknown-state}, {@code wrong-dtype},
         *     {@code wrong-shape}, {@code non-finite}, {@code out-of-memory} or {@code session-closed}
         */
        public Stream open() {
            return new Stream(this);
        }
    }

    private Stream(Builder builder) {
        session = builder.session;
        contract = session.contract();
        batch = builder.batch;
        sizes = Checks.openSizes(contract, batch, builder.dims);
        starts = Checks.starts(contract, sizes, builder.initial);
        sides.forEach(tensors -> starts.forEach(start -> tensors.add(start.copy())));
        engine = session.join();
        waiting = new Waiting(contract, Map.of());
    }

    /** The session it runs. */
    public Session session() {
        return session;
    }

    /** Number of sequences side by side. */
    public int batch() {
        return batch;
    }

    /** Number of steps since the stream was opened or reset as a whole. */
    public long position() {
        return position;
    }

    /**
     * Run one time step.
     *
     * @param inputs in the shape of one step, which has no time axis; an {@code N*time} axis has N entries
     * @return the outputs by name, in buffers of the stream that hold until its next call
     * @throws RnnxException {@code unknown-input}, {@code missing-input}, {@code wrong-dtype}, {@code wrong-shape},
     *     {@code empty-batch}, {@code missing-dimension}, {@code non-finite}, {@code symbol-range},
     *     {@code length-range}, {@code whole-only}, {@code entries-waiting}, {@code stream-busy}, {@code stream-closed}
     *     or {@code engine-failed}; the states are unchanged
     */
    public Map<String, Tensor> step(Map<String, Tensor> inputs) {
        enter();
        try {
            waiting.requireNone();
            stepCall = prepare(stepCall, inputs, false);
            advance(stepCall);
            return stepCall.outputs;
        } finally {
            gate.set(OPEN);
        }
    }

    /**
     * Run a chunk of steps; chunks of any lengths give together what one long one gives.
     *
     * @param inputs in the shape of a chunk, with the time axis; those without one hold for the whole call
     * @return as {@link #step}, with the time axis
     * @throws RnnxException as {@link #step}, and {@code empty-time}
     */
    public Map<String, Tensor> run(Map<String, Tensor> inputs) {
        return held(() -> {
            waiting.requireNone();
            return runChunk(inputs);
        });
    }

    private Map<String, Tensor> runChunk(Map<String, Tensor> inputs) {
        if (!contract.hasTime()) {
            return runSteps(inputs);
        }
        if (position > 0 && contract.wholeOnly() != null) {
            throw Checks.wholeOnly(contract, "a second call");
        }
        chunkCall = prepare(chunkCall, inputs, true);
        advance(chunkCall);
        return chunkCall.outputs;
    }

    /**
     * Run the steps that are whole, and keep what is over for the next call.
     *
     * @param inputs in the shape of a chunk, with any number of entries along time, none too; each has a queue of its
     *     own, and as many steps run as the shortest has. Of an input that was given before and is left out no entries
     *     come; one without time stays as it was
     * @return as {@link #run}; if no step ran, outputs with time have length 0, and the others are left out
     * @throws RnnxException as {@link #run}, and {@code feed-length} for lengths; nothing is kept then
     */
    public Map<String, Tensor> feed(Map<String, Tensor> inputs) {
        return held(() -> {
            if (contract.wholeOnly() != null) {
                throw Checks.wholeOnly(contract, "a call of feed");
            }
            Waiting joined = waiting.joined(inputs, sizes);
            int steps = joined.wholeSteps();
            Map<String, Tensor> outputs = runFirst(joined, steps);
            waiting = joined.without(steps);
            return outputs;
        });
    }

    /**
     * Run what waits as whole steps, the last one filled up with zeros (or what is nearest to 0 in the range of an
     * input); then it is as if never fed. {@link #waiting} says before how many entries of the last step are real.
     * Where outputs come late, those of the last steps follow, as the network ends a sequence; then the stream is over,
     * until it is reset.
     *
     * @return the outputs of these steps, the filled one included, as {@link #feed} gives them
     * @throws RnnxException {@code no-end}: outputs come late, and nobody can say what the last ones are
     */
    public Map<String, Tensor> flush() {
        return held(() -> {
            Contract.End end = contract.end();
            Map<String, Tensor> outputs = runFirst(waiting, waiting.stepsToFlush());
            if (end != null) {
                outputs = runEnd(outputs, end);
            }
            waiting = new Waiting(contract, Map.of());
            return outputs;
        });
    }

    /** Say that the sequence is over, and join the outputs of the steps after it to those before. */
    private Map<String, Tensor> runEnd(Map<String, Tensor> outputs, Contract.End end) {
        List<Tensor> states = readAll();
        Tensor ended = states.get(end.state());
        for (int index = 0; index < ended.count(); index++) {
            ended.set(index, 1);
        }
        replace(states, position);
        return Waiting.joinedOutputs(contract, outputs, runChunk(waiting.nothing(sizes).first(end.late())));
    }

    /** How many entries of each input wait for a whole step, without those of which none does. */
    public Map<String, Integer> waiting() {
        return waiting.counts();
    }

    private Map<String, Tensor> runFirst(Waiting queued, int steps) {
        return steps > 0 ? runChunk(queued.first(steps)) : Waiting.noOutputs(contract, sizes);
    }

    /** Put all states back to their start, and the position to 0, and drop what waits for a whole step. */
    public void reset() {
        held(() -> {
            waiting = new Waiting(contract, Map.of());
            return replace(starts, 0);
        });
    }

    /**
     * Put the states of some rows of the batch back to their start; the position stays.
     *
     * @throws RnnxException {@code row-range} for a row that does not exist, {@code shared-state} where rows share one,
     *     {@code entries-waiting}
     */
    public void resetRows(int... rows) {
        held(() -> {
            waiting.requireNone();
            TreeSet<Integer> chosen = new TreeSet<>();
            for (int row : rows) {
                if (row < 0 || row >= batch) {
                    String found = String.valueOf(row);
                    throw new RnnxException(
                            "row-range", "rows in 0.." + (batch - 1), found, "name rows of this stream's batch");
                }
                chosen.add(row);
            }
            List<Tensor> values = readAll();
            for (int index = 0; index < values.size(); index++) {
                values.set(index, withRows(contract.states().get(index), values.get(index), starts.get(index), chosen));
            }
            return replace(values, position);
        });
    }

    private Tensor withRows(State state, Tensor value, Tensor start, TreeSet<Integer> rows) {
        int axis = Shapes.axisIndex(state.shape(), "batch");
        if (axis >= 0) {
            Shapes.Pieces pieces = Shapes.Pieces.of(value.sizes(), axis, 1, state.dtype().size);
            Tensor row = Tensor.zeros(state.dtype(), value.count() / batch);
            for (int index : rows) {
                pieces.take(start.data(), index, row.data());
                pieces.put(value.data(), index, row.data());
            }
        } else if (rows.size() == batch) {
            return start;
        } else if (!rows.isEmpty()) {
            throw new RnnxException(
                    "shared-state",
                    "states with a batch axis, so that a row has its own",
                    "state '" + state.name() + "' shared by all rows",
                    "reset the whole stream");
        }
        return value;
    }

    /** A copy of the state called {@code name}. Throws {@code unknown-state}. */
    public Tensor state(String name) {
        return held(() -> sides.get(side).get(Checks.stateIndex(contract, name)).copy());
    }

    /**
     * Overwrite the state called {@code name}.
     *
     * @throws RnnxException {@code unknown-state}, {@code wrong-dtype}, {@code wrong-shape}, or {@code non-finite} for
     *     NaN; infinities are allowed
     */
    public void setState(String name, Tensor value) {
        held(() -> {
            sides.get(side).get(Checks.checkState(contract, name, value, sizes)).copyFrom(value);
            return null;
        });
    }

    /**
     * All that is needed to continue elsewhere, as safetensors bytes: the same in every language.
     *
     * @throws RnnxException {@code entries-waiting}, since a snapshot has no room for them
     */
    public byte[] snapshot() {
        return snapshot(null);
    }

    byte[] snapshot(Snapshot.Sampling sampling) {
        return held(() -> {
            waiting.requireNone();
            return new Snapshot(position, readAll(), sampling).encode(contract);
        });
    }

    /**
     * Continue where a snapshot was made; the outputs that follow are the same bit for bit. What waits for a whole step
     * is dropped.
     *
     * @throws RnnxException {@code not-safetensors}, {@code not-a-snapshot}, {@code snapshot-newer},
     *     {@code snapshot-of-another-model} or {@code snapshot-invalid}; the states are unchanged
     */
    public void restore(byte[] data) {
        restoreSampling(data);
    }

    /** Where sampling stopped, or null. */
    Snapshot.Sampling restoreSampling(byte[] data) {
        return held(() -> {
            Snapshot found = Snapshot.decode(data, contract, sizes);
            replace(found.states(), found.position());
            waiting = new Waiting(contract, Map.of());
            return found.sampling();
        });
    }

    /** Let go of the engine's tensors. Closing twice is fine. Throws {@code stream-busy}. */
    @Override
    public void close() {
        if (gate.get() == CLOSED) {
            return;
        }
        enter();
        for (Call call : new Call[] {stepCall, chunkCall}) {
            if (call != null) {
                call.close();
            }
        }
        gate.set(CLOSED);
        session.leave();
    }

    /** Do something while every other call is kept out. */
    private <T> T held(Supplier<T> action) {
        enter();
        try {
            return action.get();
        } finally {
            gate.set(OPEN);
        }
    }

    void enter() {
        if (gate.compareAndSet(OPEN, BUSY)) {
            return;
        }
        if (gate.get() == CLOSED) {
            throw new RnnxException(
                    "stream-closed",
                    "a stream that is open",
                    "one that was closed",
                    "open another stream of the session");
        }
        throw new RnnxException(
                "stream-busy",
                "one thread at a time on a stream",
                "a call while another is running",
                "open a stream for each thread; they share the session");
    }

    void leave() {
        gate.set(OPEN);
    }

    /** The size of a dimension that was bound, or null. */
    Integer size(String name) {
        return sizes.get(name);
    }

    void requireNoneWaits() {
        waiting.requireNone();
    }

    /** Check the inputs of a step, and return the size of every dimension. */
    Map<String, Integer> matchStep(Map<String, Tensor> inputs) {
        Map<String, Integer> found = Checks.matchInputs(contract, inputs, sizes, false);
        Checks.checkValues(contract, inputs, 1);
        return found;
    }

    /** Step a batch whose rows are the states of these streams, and hand each what came of its row. */
    List<Map<String, Tensor>> stepRows(List<Stream> streams, Map<String, Tensor> inputs) {
        List<Shapes.Pieces> pieces = new ArrayList<>();
        for (int index = 0; index < starts.size(); index++) {
            State state = contract.states().get(index);
            int axis = Shapes.axisIndex(state.shape(), "batch");
            pieces.add(Shapes.Pieces.of(starts.get(index).sizes(), axis, 1, state.dtype().size));
            for (int row = 0; row < streams.size(); row++) {
                Stream stream = streams.get(row);
                pieces.get(index)
                        .put(sides.get(side).get(index).data(), row, stream.sides.get(stream.side).get(index).data());
            }
        }
        Map<String, Tensor> outputs = step(inputs);
        List<Map<String, Tensor>> found = new ArrayList<>();
        for (int row = 0; row < streams.size(); row++) {
            Map<String, Tensor> own = new LinkedHashMap<>();
            for (Output output : contract.outputs()) {
                Tensor value = outputs.get(output.name());
                int axis = Shapes.axisIndex(contract.callerShape(output, false), "batch");
                int[] shape = value.sizes().clone();
                shape[axis] = 1;
                Tensor part = Tensor.zeros(output.dtype(), shape);
                Shapes.Pieces.of(value.sizes(), axis, 1, output.dtype().size).take(value.data(), row, part.data());
                own.put(output.name(), part);
            }
            found.add(own);
            Stream stream = streams.get(row);
            for (int index = 0; index < starts.size(); index++) {
                pieces.get(index)
                        .take(sides.get(side).get(index).data(), row, stream.sides.get(1 - stream.side).get(index).data());
            }
            stream.side = 1 - stream.side;
            stream.position++;
        }
        return found;
    }

    /** The latest call, or one of other sizes in its place, filled with these inputs. */
    private Call prepare(Call latest, Map<String, Tensor> inputs, boolean whole) {
        if (latest != null && latest.fill(inputs)) {
            return latest;
        }
        if (!whole && contract.wholeOnly() != null) {
            throw Checks.wholeOnly(contract, "a call of step");
        }
        Map<String, Integer> found = Checks.matchInputs(contract, inputs, sizes, whole);
        Checks.checkValues(contract, inputs, found.get("time"));
        Call call = fit(latest, found, whole);
        if (!call.fill(inputs)) {
            throw new IllegalStateException("a call refused inputs that were checked");
        }
        return call;
    }

    private Call fit(Call latest, Map<String, Integer> found, boolean whole) {
        if (latest != null && latest.sizes.equals(found)) {
            return latest;
        }
        Call call = new Call(engine, contract, sides, found, whole);
        if (latest != null) {
            latest.close();
        }
        return call;
    }

    private void advance(Call call) {
        call.run(side);
        side = 1 - side;
        position += call.time;
    }

    /** Run a chunk of a step model: step by step, back to the start of the chunk if one fails. */
    private Map<String, Tensor> runSteps(Map<String, Tensor> inputs) {
        Map<String, Integer> found = Checks.matchInputs(contract, inputs, sizes, true);
        int time = found.get("time");
        Checks.checkValues(contract, inputs, time);
        stepCall = fit(stepCall, Shapes.with(found, "time", 1), false);
        long before = position;
        List<Tensor> saved = readAll();
        Map<String, Tensor> joined = new LinkedHashMap<>();
        for (int step = 0; step < time; step++) {
            stepCall.fillStep(contract, inputs, step, time);
            try {
                advance(stepCall);
                join(joined, step, time);
            } catch (RuntimeException error) {
                replace(saved, before);
                throw error;
            }
        }
        return joined;
    }

    /** Put the outputs of one step where they belong in those of the chunk, which the first step makes. */
    private void join(Map<String, Tensor> joined, int step, int time) {
        for (Output output : contract.outputs()) {
            Tensor row = stepCall.outputs.get(output.name());
            int axis = Shapes.axisIndex(Shapes.withTime(output.shape()), "time");
            int[] shape = new int[row.sizes().length + 1];
            for (int index = 0; index < shape.length; index++) {
                shape[index] = index == axis ? time : row.sizes()[index < axis ? index : index - 1];
            }
            Tensor chunk = joined.computeIfAbsent(output.name(), name -> Tensor.zeros(output.dtype(), shape));
            if (!Arrays.equals(shape, chunk.sizes())) {
                throw new RnnxException(
                        "engine-failed",
                        "output '" + output.name() + "' of one size in all steps of a chunk",
                        Arrays.toString(shape) + " behind " + Arrays.toString(chunk.sizes()),
                        "step it one by one");
            }
            Shapes.Pieces.of(shape, axis, 1, output.dtype().size).put(chunk.data(), step, row.data());
        }
    }

    private List<Tensor> readAll() {
        List<Tensor> values = new ArrayList<>();
        sides.get(side).forEach(value -> values.add(value.copy()));
        return values;
    }

    /** Make {@code states} current, all at once: they are written to the other side, which then changes roles. */
    private Void replace(List<Tensor> states, long steps) {
        int other = 1 - side;
        for (int index = 0; index < states.size(); index++) {
            sides.get(other).get(index).copyFrom(states.get(index));
        }
        side = other;
        position = steps;
        return null;
    }
}
