// Proves a model on its trace, then runs it in the page: over a file of frames, or as a writer of text.
import { RnnxError, Tensor, open, readFile, replay } from "./rnnx/src/web.js";

const MODEL = "model.onnx";
const TRACE = "model.trace.safetensors";
const FRAMES = 5; // shown
const SYMBOLS = 200;
const VALUES = 6; // shown of each output

/** Shows how to write text: 200 symbols that continue the prompt. */
async function showText(session) {
  const view = document.querySelector("#text");
  const page = view.querySelector("pre");
  const { prompt, temperature, seed } = view.querySelector("form").elements;
  const write = async () => {
    const text = session.text({ seed: BigInt(seed.value), temperature: Number(temperature.value) });
    await text.read(prompt.value);
    const begun = document.createElement("b");
    begun.textContent = prompt.value;
    page.replaceChildren(begun);
    const start = performance.now();
    for await (const symbol of text.write(SYMBOLS)) page.append(symbol);
    await text.close();
    say(`${SYMBOLS} symbols in ${(performance.now() - start).toFixed(0)} ms`);
  };
  prompt.value = session.contract.vocabulary.symbols[0];
  view.hidden = false;
  onSubmit(view, write);
  await write();
}

/** Replays the trace beside the model, and says whether it agrees: what disagrees is not run. */
async function prove(session) {
  const line = document.querySelector("#proof");
  let trace;
  try {
    trace = await readFile(TRACE, "a trace");
  } catch (error) {
    if (error.code !== "file-missing") throw error;
    line.textContent = `not proved: there is no ${TRACE}`;
    return true;
  }
  const { agrees, steps, max_error, failure } = await replay(session, trace);
  const { tensor, step, index = [], expected, got } = failure ?? {};
  line.textContent = agrees
    ? `agrees: ${steps} steps, ${max_error.toExponential(1)}`
    : seen(
        `disagrees: ${tensor} at step ${step}, index [${index.join(", ")}]: expected ${expected}, got ${got}`,
      );
  return agrees;
}

/** What one step takes or gives, one tensor behind the other, batch 1: "x float32[1, 3]". */
const described = (specs) =>
  seen(specs.map((spec) => `${spec.name} ${spec.dtype}[${spec.stepShape().join(", ")}]`).join(", "));

/** Shows what a frame is, and runs a file of frames: read frame, step, write frame. */
async function showSteps(session) {
  const { inputs, outputs, wholeOnly } = session.contract;
  const required = inputs.filter(({ isRequired }) => isRequired);
  const view = document.querySelector("#steps");
  view.querySelector("#in").textContent = described(required);
  view.querySelector("#out").textContent = described(outputs);
  if (session.contract.stepsPerSecond)
    view.querySelector("#in").after(`, ${session.contract.stepsPerSecond} a second`);
  view.hidden = false;
  if (wholeOnly !== null) {
    view.querySelector("form").hidden = true;
    say(`it takes whole sequences: give them to run, not to step (${wholeOnly})`);
    return;
  }
  onSubmit(view, async () => {
    const [file] = view.querySelector("form").elements.frames.files;
    const start = performance.now();
    const { steps, link } = await runFrames(
      session,
      required,
      new Uint8Array(await file.arrayBuffer()),
      view,
    );
    view.querySelector("a").replaceWith(link);
    say(`${steps} steps in ${(performance.now() - start).toFixed(0)} ms`);
  });
}

/** Steps over frames, shows the first, and gives a link to all that came out. A frame that is not whole gets zeros. */
async function runFrames(session, required, bytes, view) {
  const { outputs, freeDimensions } = session.contract;
  const stream = session.stream({ dims: Object.fromEntries(freeDimensions.map((name) => [name, 1])) });
  const given = Object.fromEntries(
    required.map((spec) => [spec.name, Tensor.full(spec.dtype, spec.stepShape())]),
  );
  const places = Object.values(given).map((tensor) => tensor.bytes);
  const size = places.reduce((sum, { length }) => sum + length, 0);
  const table = view.querySelector("tbody");
  const parts = [];
  table.replaceChildren();
  for (let at = 0; at < bytes.length; at += size) {
    const frame = new Uint8Array(size);
    frame.set(bytes.subarray(at, at + size));
    let begin = 0;
    for (const place of places) place.set(frame.subarray(begin, (begin += place.length)));
    const results = await stream.step(given); // here your data goes through the model
    for (const { name } of outputs) {
      parts.push(results[name].bytes);
      if (stream.position <= FRAMES) table.append(rowOf(stream.position, name, results[name]));
    }
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts));
  link.download = link.textContent = "out.raw";
  await stream.close();
  return { steps: stream.position, link };
}

function rowOf(step, name, tensor) {
  const values = Array.from({ length: Math.min(tensor.data.length, VALUES) }, (_, index) =>
    Number(tensor.number(index).toPrecision(4)),
  );
  const row = document.createElement("tr");
  const more = tensor.data.length > VALUES ? " …" : "";
  for (const text of [step, seen(name), `[${tensor.shape.join(", ")}]`, values.join("  ") + more])
    row.insertCell().textContent = text;
  return row;
}

/** A text of the model, with what cannot be seen spelt out: it could turn the line around. */
function seen(text) {
  const spelt = (letter) => `\\u${letter.codePointAt(0).toString(16).padStart(4, "0")}`;
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, spelt);
}

function onSubmit(view, run) {
  view.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    guard(run);
  });
}

function say(text) {
  document.querySelector("#status").textContent = seen(text);
}

/** Runs something with the buttons off, and says what went wrong. `data-state` tells programs how far the page is. */
async function guard(run) {
  const { body } = document;
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  body.dataset.state = "busy";
  try {
    await run();
    body.dataset.state = "ready";
  } catch (error) {
    body.dataset.state = "failed";
    say(error instanceof RnnxError ? `error[${error.code}]: ${error.message}` : String(error));
  }
  body.className = body.dataset.state;
  buttons.forEach((button) => (button.disabled = false));
}

await guard(async () => {
  const session = await open(MODEL);
  document.querySelector("h1").textContent = document.title = seen(session.contract.name) || MODEL;
  say("");
  if (!(await prove(session))) throw new Error("the model does not give here what was recorded");
  await (session.contract.vocabulary === null ? showSteps(session) : showText(session));
});
