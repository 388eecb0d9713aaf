package rnnx;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import rnnx.Contract.Input;
import rnnx.Contract.Output;

/** One shape of call, a step or a chunk of one length, with everything allocated that it needs. */
final class Call implements AutoCloseable {
    final Map<String, Integer> sizes;
    final int time;
    final Map<String, Tensor> outputs; // the engine's buffers in the shapes the caller sees
    private final Map<String, Tensor> results = new LinkedHashMap<>(); // the same, ours to change
    private final Contract contract;
    private final boolean isChunk;
    private final List<Port> ports = new ArrayList<>();
    private final Engine.Bound bound;

    /**
     * An input as the caller sees it.
     *
     * @param target the engine's buffer
     * @param standIn what stands in for the input if it is left out, or null
     */
    private record Port(Input input, Tensor target, Tensor standIn, Checks.Check check) {}

    Call(Engine engine, Contract contract, List<List<Tensor>> sides, Map<String, Integer> sizes, boolean whole) {
        this.contract = contract;
        this.isChunk = whole;
        this.sizes = sizes;
        time = sizes.get("time");
        List<Tensor> given = new ArrayList<>();
        List<Tensor> taken = new ArrayList<>();
        for (Input input : contract.inputs()) {
            Tensor buffer = Tensor.zeros(input.dtype(), Shapes.resolve(input.shape(), sizes));
            Tensor target = buffer.reshaped(Shapes.resolve(contract.callerShape(input, whole), sizes));
            Contract.Constant constant = input.standIn();
            if (input.isLength()) {
                constant = new Contract.Constant(new int[0], new double[] {time});
            }
            Tensor standIn = constant == null ? null : constant.fill(input.dtype(), target.sizes());
            ports.add(new Port(input, target, standIn, Checks.Check.of(contract, input, time)));
            given.add(buffer);
        }
        for (Output output : contract.outputs()) {
            boolean isLoose = output.shape().stream().anyMatch(axis -> axis.isNamed() && !sizes.containsKey(axis.name()));
            Tensor buffer = isLoose ? null : Tensor.zeros(output.dtype(), Shapes.resolve(output.shape(), sizes));
            int[] shape = isLoose ? null : Shapes.resolve(contract.callerShape(output, whole), sizes);
            results.put(output.name(), isLoose ? null : buffer.reshaped(shape));
            taken.add(buffer);
        }
        outputs = Collections.unmodifiableMap(results);
        bound = new Engine.Bound(engine, contract, sides, given, taken);
    }

    /** Write all inputs to the engine's buffers. False if anything about them is not as it should be. */
    boolean fill(Map<String, Tensor> inputs) {
        int left = inputs.size();
        for (int index = 0; index < ports.size(); index++) {
            Port port = ports.get(index);
            Tensor given = inputs.get(port.input().name());
            if (given != null) {
                boolean fits = given.dtype() == port.target().dtype()
                        && given.data().limit() == port.target().data().limit()
                        && Arrays.equals(given.sizes(), port.target().sizes());
                if (!fits || port.check().firstWrong(given) >= 0) {
                    return false;
                }
                left--;
            } else if (port.standIn() != null) {
                given = port.standIn();
            } else {
                return false;
            }
            port.target().copyFrom(given);
        }
        return left == 0;
    }

    /** Write the inputs of one step of a chunk of a step model; a length becomes 0 or 1. */
    void fillStep(Contract contract, Map<String, Tensor> inputs, int step, int steps) {
        for (Port port : ports) {
            Tensor given = inputs.get(port.input().name());
            if (port.input().isLength()) {
                for (int row = 0; row < port.target().count(); row++) {
                    port.target().set(row, step < (given == null ? steps : given.number(row)) ? 1 : 0);
                }
            } else if (given != null) {
                int axis = Shapes.axisIndex(contract.callerShape(port.input(), true), "time");
                Shapes.Pieces.of(given.sizes(), axis, 1, given.dtype().size).take(given.data(), step, port.target().data());
            } else {
                port.target().copyFrom(port.standIn());
            }
        }
    }

    /** Compute from the states of {@code side} into those of the other. */
    void run(int side) {
        bound.run(side, contract).forEach((name, tensor) -> results.put(name, isChunk ? tensor : withoutTime(name, tensor)));
    }

    private Tensor withoutTime(String name, Tensor tensor) {
        Output output = contract.outputs().stream().filter(spec -> spec.name().equals(name)).findFirst().orElseThrow();
        int axis = Shapes.axisIndex(output.shape(), "time");
        if (axis < 0 || output.shape().get(axis).isMultiple()) {
            return tensor;
        }
        int[] shape = tensor.sizes();
        return tensor.reshaped(IntStream.range(0, shape.length).filter(index -> index != axis).map(index -> shape[index]).toArray());
    }

    @Override
    public void close() {
        bound.close();
    }
}
