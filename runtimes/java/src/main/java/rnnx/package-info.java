/**
 * Networks with memory, exported by rnnx, run one time step at a time.
 *
 * <p>A model is a function (inputs, states) -&gt; (outputs, next states). The contract inside the ONNX file says which
 * graph input is which state, what it starts as, and which axis is the batch and which is time. A {@link rnnx.Session}
 * is a loaded model; a {@link rnnx.Stream} is a sequence being run, and owns the states.
 *
 * <pre>{@code
 * try (Session session = Session.open(Path.of("denoiser.onnx"));
 *         Stream stream = session.stream()) {
 *     float[] y = stream.step(Map.of("x", Tensor.of(frame, 1, 257))).get("y").floats(); // [1, 257]
 * }
 * }</pre>
 */
package rnnx;
