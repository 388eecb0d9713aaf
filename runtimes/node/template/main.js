// Proves a model on its trace, then runs it: over raw values, frame by frame, or as a writer of text.
//
//   node main.js [MODEL]                 prove it, and say what a frame is
//   node main.js MODEL INPUT > OUTPUT    read frame, step, write frame; INPUT is a file, or - for standard input
//   node main.js MODEL "Once"            a model over symbols continues a prompt
import { createReadStream, existsSync } from "node:fs";
import { RnnxError, Tensor, open, readFile, replay } from "./rnnx/src/node.js";

const say = (text) => process.stderr.write(`${text}\n`); // standard output is for what the model gives

/** Replays the trace beside the model: false if it disagrees. */
async function prove(session, path) {
  if (!existsSync(path)) {
    say(`not proved: there is no trace at ${path}`);
    return true;
  }
  const { agrees, steps, max_error, failure } = await replay(session, await readFile(path, "a trace"));
  if (agrees) say(`agrees: ${steps} steps, ${max_error.toExponential(1)}`);
  else {
    const { tensor, step, index, expected, got } = failure;
    say(`disagrees: ${tensor} at step ${step}, index [${index.join(", ")}]: expected ${expected}, got ${got}`);
  }
  return agrees;
}

/** Prints 200 symbols that continue the prompt. */
async function write(session, prompt) {
  const text = session.text({ seed: 7, temperature: 0.8 });
  await text.read(prompt);
  process.stdout.write(prompt);
  for await (const symbol of text.write(200)) process.stdout.write(symbol);
  process.stdout.write("\n");
}

/** What one step takes or gives, one tensor behind the other, batch 1: "x float32[1, 3]". */
const described = (specs) =>
  specs.map((spec) => `${spec.name} ${spec.dtype}[${spec.stepShape().join(", ")}]`).join(", ");

/** Reads a frame, steps, writes a frame, until the input ends; then a frame that is not whole gets zeros. */
async function runFrames(session, source) {
  const { inputs, outputs, freeDimensions } = session.contract;
  const stream = session.stream({ dims: Object.fromEntries(freeDimensions.map((name) => [name, 1])) });
  const given = {};
  for (const input of inputs.filter(({ isRequired }) => isRequired)) {
    given[input.name] = Tensor.full(input.dtype, input.stepShape());
  }
  const places = Object.values(given).map(({ bytes }) => bytes);
  const size = places.reduce((sum, { length }) => sum + length, 0);
  const step = async (frame) => {
    let begin = 0;
    for (const place of places) place.set(frame.subarray(begin, (begin += place.length)));
    const results = await stream.step(given); // here your data goes through the model
    for (const { name } of outputs) process.stdout.write(results[name].bytes);
  };
  let rest = Buffer.alloc(0);
  for await (const bytes of source === "-" ? process.stdin : createReadStream(source)) {
    rest = Buffer.concat([rest, bytes]);
    for (; rest.length >= size; rest = rest.subarray(size)) await step(rest);
  }
  if (rest.length > 0) {
    say(`the last frame had ${rest.length} of ${size} bytes: zeros stand for the others`);
    await step(Buffer.concat([rest, Buffer.alloc(size - rest.length)]));
  }
  say(`${stream.position} steps`);
}

async function main(model = "model.onnx", source = "") {
  const session = await open(model);
  const { inputs, outputs, vocabulary, wholeOnly } = session.contract;
  if (!(await prove(session, model.replace(/\.onnx$/, "") + ".trace.safetensors"))) {
    process.exitCode = 1;
  } else if (vocabulary !== null) {
    await write(session, source || vocabulary.symbols[0]);
  } else if (wholeOnly !== null) {
    say(`it takes whole sequences: give them to run, not to step (${wholeOnly})`);
  } else if (source !== "") {
    await runFrames(session, source);
  } else {
    say(`a frame in:  ${described(inputs.filter(({ isRequired }) => isRequired))}`);
    say(`a frame out: ${described(outputs)}`);
    if (session.contract.stepsPerSecond) say(`frames a second: ${session.contract.stepsPerSecond}`);
    say(`run it: node main.js ${model} in.raw > out.raw`);
  }
}

try {
  await main(...process.argv.slice(2));
} catch (error) {
  if (!(error instanceof RnnxError) && error.code !== "ENOENT") throw error;
  say(`error[${error.code}]: ${error.message}`);
  process.exitCode = 2;
}
