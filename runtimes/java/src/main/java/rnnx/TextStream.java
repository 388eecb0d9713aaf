package rnnx;

import java.util.List;
import java.util.Map;
import java.util.PrimitiveIterator;
import rnnx.Contract.Input;
import rnnx.Contract.Output;

/**
 * Text being made: a stream of batch 1, a sampler, and the scores that the next symbol is drawn from. As an iterator of
 * code points it has no end: take as many as you want, or call {@link #write}.
 */
public final class TextStream implements PrimitiveIterator.OfInt, AutoCloseable {
    private final Vocabulary vocabulary;
    private final Contract contract;
    private final Stream stream;
    private final Input given;
    private final Output taken;
    private final Tensor token;
    private Sampler sampler;
    private Tensor scores; // of the latest step, [symbols]; nothing is drawn from them yet

    TextStream(Session session, long seed, double temperature) {
        contract = session.contract();
        vocabulary = contract.vocabulary();
        if (vocabulary == null) {
            throw new RnnxException(
                    "not-symbols",
                    "a model with a vocabulary, to make text with",
                    "one without, which takes arrays",
                    "give it arrays: 'rnnx run MODEL --input x.npy --output y.npy'");
        }
        sampler = new Sampler(seed, temperature);
        given = contract.inputs().stream().filter(input -> input.name().equals(vocabulary.input())).findFirst().orElseThrow();
        taken = contract.outputs().stream().filter(output -> output.name().equals(vocabulary.output())).findFirst().orElseThrow();
        token = Tensor.zeros(given.dtype(), given.stepShape(name -> 1));
        stream = session.stream();
    }

    /**
     * Run {@code text}, the prompt, through the model; its symbols draw no number.
     *
     * @throws RnnxException {@code character-outside-vocabulary}; nothing was run
     */
    public void read(String text) {
        long[] ids = vocabulary.encode(text, "prompt");
        if (ids.length == 0) {
            return;
        }
        int[] shape = Shapes.resolve(contract.callerShape(given, true), Map.of("batch", 1, "time", ids.length));
        Tensor chunk = Tensor.zeros(given.dtype(), shape);
        for (int index = 0; index < ids.length; index++) {
            chunk.set(index, ids[index]);
        }
        Tensor all = stream.run(Map.of(given.name(), chunk)).get(taken.name());
        Tensor last = Tensor.zeros(taken.dtype(), vocabulary.symbols().size());
        List<Axis> axes = contract.callerShape(taken, true);
        int axis = Shapes.axisIndex(axes, "time");
        if (axis < 0) {
            last.copyFrom(all);
        } else {
            Shapes.Pieces pieces = Shapes.Pieces.of(all.sizes(), axis, axes.get(axis).factor(), taken.dtype().size);
            pieces.take(all.data(), ids.length - 1, last.data());
        }
        scores = last;
    }

    /** Always true: a text has no end. */
    @Override
    public boolean hasNext() {
        return true;
    }

    /**
     * Draw the next symbol, a code point, and run it as a step.
     *
     * @throws RnnxException {@code prompt-empty} if nothing was read yet, {@code scores-invalid}, or as
     *     {@link Stream#step}; nothing changes then
     */
    @Override
    public int nextInt() {
        if (scores == null) {
            throw new RnnxException(
                    "prompt-empty",
                    "a prompt of at least one character",
                    "none",
                    "give the characters the text should begin with");
        }
        long before = sampler.state();
        try {
            int drawn = sampler.sample(scores);
            token.set(0, drawn);
            // Run before it is given out, so that the scores always belong to the latest symbol given.
            scores.copyFrom(stream.step(Map.of(given.name(), token)).get(taken.name()));
            return vocabulary.symbols().get(drawn);
        } catch (RuntimeException error) {
            sampler.goBack(before);
            throw error;
        }
    }

    /** So many symbols that continue what was read and written so far. Throws as {@link #nextInt}. */
    public String write(int length) {
        StringBuilder text = new StringBuilder();
        for (int count = 0; count < length; count++) {
            text.appendCodePoint(nextInt());
        }
        return text.toString();
    }

    /** All that is needed to continue exactly here, sampling included. */
    public byte[] snapshot() {
        if (scores == null) {
            return stream.snapshot();
        }
        Tensor generator = Tensor.zeros(DType.UINT64, 1);
        generator.data().putLong(0, sampler.state());
        return stream.snapshot(new Snapshot.Sampling(
                generator,
                Tensor.of(new double[] {sampler.temperature()}, 1),
                scores.reshaped(1, scores.count())));
    }

    /** Continue where a snapshot was made, with its generator and temperature if it has them; see {@link Stream#restore}. */
    public void restore(byte[] data) {
        Snapshot.Sampling sampling = stream.restoreSampling(data);
        scores = null;
        if (sampling != null) {
            sampler = new Sampler(sampling.generator().data().getLong(0), sampling.temperature().number(0));
            scores = sampling.scores().reshaped(vocabulary.symbols().size());
        }
    }

    /** Let go of the stream. */
    @Override
    public void close() {
        stream.close();
    }
}
