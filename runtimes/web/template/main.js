// Opens a model and runs it in the page: text if it has a vocabulary, else steps on zeros.
import { RnnxError, Tensor, open } from "./rnnx/src/web.js";

const MODEL = "model.onnx";
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

/** Shows steps: five at first, and one more for each press. A model of whole sequences takes five as one chunk. */
async function showSteps(session) {
  const { inputs, freeDimensions, wholeOnly } = session.contract;
  const stream = session.stream({ dims: Object.fromEntries(freeDimensions.map((name) => [name, 1])) });
  const given = {};
  for (const input of inputs.filter(({ isRequired }) => isRequired)) {
    const shape = wholeOnly === null ? input.stepShape() : input.chunkShape(5);
    const [least, largest] = input.range ?? [0, 0];
    given[input.name] = Tensor.full(input.dtype, shape, Math.min(Math.max(0, least), largest)); // zeros, or what is nearest
  }
  const view = document.querySelector("#steps");
  const table = view.querySelector("tbody");
  const buttons = view.querySelector("form").elements;
  const step = async () => {
    const start = performance.now();
    const outputs = wholeOnly === null ? await stream.step(given) : await stream.run(given);
    say(`step ${stream.position} in ${(performance.now() - start).toFixed(1)} ms`);
    for (const [name, tensor] of Object.entries(outputs)) table.append(rowOf(stream.position, name, tensor));
  };
  const start = async () => {
    stream.reset();
    table.replaceChildren();
    for (let call = 0; call < (wholeOnly === null ? 5 : 1); call++) await step();
  };
  buttons.step.hidden = wholeOnly !== null;
  buttons.reset.addEventListener("click", () => guard(start));
  view.hidden = false;
  onSubmit(view, step);
  await start();
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
  await (session.contract.vocabulary === null ? showSteps(session) : showText(session));
});
