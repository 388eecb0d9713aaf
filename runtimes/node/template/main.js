// Opens a model and runs it: text if it has a vocabulary, else five steps on zeros.
//
//   node main.js [MODEL] [PROMPT]
import { RnnxError, Tensor, open } from "./rnnx/src/node.js";

/** Prints 200 symbols that continue the prompt. */
async function write(session, prompt) {
  const text = session.text({ seed: 7, temperature: 0.8 });
  await text.read(prompt);
  process.stdout.write(prompt);
  for await (const symbol of text.write(200)) process.stdout.write(symbol);
  process.stdout.write("\n");
}

/** Prints the outputs of five steps; a model of whole sequences takes them as one chunk. */
async function step(session) {
  const { inputs, freeDimensions, wholeOnly } = session.contract;
  const stream = session.stream({ dims: Object.fromEntries(freeDimensions.map((name) => [name, 1])) });
  const given = {};
  for (const input of inputs.filter(({ isRequired }) => isRequired)) {
    const shape = wholeOnly === null ? input.stepShape() : input.chunkShape(5);
    const [least, largest] = input.range ?? [0, 0];
    given[input.name] = Tensor.full(input.dtype, shape, Math.min(Math.max(0, least), largest)); // zeros, or what is nearest
  }
  for (let call = 0; call < (wholeOnly === null ? 5 : 1); call++) {
    const outputs = wholeOnly === null ? await stream.step(given) : await stream.run(given);
    for (const [name, tensor] of Object.entries(outputs)) {
      const values = Array.from({ length: Math.min(tensor.data.length, 6) }, (_, index) => tensor.number(index));
      console.log(`${name} [${tensor.shape.join(", ")}]: ${values.join(" ")}`);
    }
  }
}

const [model = "model.onnx", prompt = ""] = process.argv.slice(2);
try {
  const session = await open(model);
  const { vocabulary } = session.contract;
  if (vocabulary === null) await step(session);
  else await write(session, prompt || vocabulary.symbols[0]);
} catch (error) {
  if (!(error instanceof RnnxError)) throw error;
  console.error(`error[${error.code}]: ${error.message}`);
  process.exitCode = 2;
}
