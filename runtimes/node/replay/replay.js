import { RnnxError } from "../src/error.js";
import { Sampler } from "../src/sampling.js";
import { readTensors } from "../src/tensor-file.js";
import { Replayer, plain } from "../src/replay.js";
import { readTrace } from "../src/trace.js";

/**
 * The conformance program, as docs/conformance.md says, apart from where its files are and how it prints: it runs in
 * Node and in a page.
 *
 * @typedef {import("../src/session.js").Session} Session
 * @typedef {Record<string, import("../src/tensor.js").Tensor>} Inputs
 *
 * @typedef {object} Host
 * @property {(path: string, options: {provider: string}) => Promise<Session>} open
 * @property {(path: string, what: string) => Promise<Uint8Array>} read
 * @property {(path: string, data: Uint8Array) => Promise<void>} write
 */

const ATTEMPTS = 1000; // pairs of steps of which one should be refused
const OPTIONS = {
  chunks: "1",
  entries: "",
  omit: "0",
  provider: "cpu",
  feed: "",
  together: "",
  times: "1",
  misuse: "",
  restore: "",
  snapshot: "",
  after: "0",
  text: "",
  length: "0",
  temperature: "1",
  seed: "0",
  draw: "",
  count: "1",
};

/**
 * Runs the program; returns its exit code and what it has to say.
 * @param {readonly string[]} words
 * @param {Host} host
 * @returns {Promise<{code: number, value: Record<string, unknown>}>}
 */
export async function run(words, host) {
  try {
    const value = await replay(parse(words), host);
    return { code: value.agrees === false ? 1 : 0, value };
  } catch (error) {
    if (!(error instanceof RnnxError)) throw error;
    return { code: 2, value: { error: { code: error.code, text: error.message } } };
  }
}

/**
 * Takes options before and behind the files.
 * @param {readonly string[]} words
 */
function parse(words) {
  const options = { ...OPTIONS };
  const set = new Set();
  const files = [];
  for (let place = 0; place < words.length; place++) {
    const name = words[place].slice(2);
    if (words[place] === "--json") continue;
    if (words[place] === "--flush") {
      set.add("flush");
      continue;
    }
    if (!words[place].startsWith("--")) files.push(words[place]);
    else if (!Object.hasOwn(options, name)) throw usage("options of docs/conformance.md", words[place]);
    else if (++place === words.length) throw usage(`a value for --${name}`, "none");
    else {
      options[/** @type {keyof typeof OPTIONS} */ (name)] = words[place];
      set.add(name);
    }
  }
  return { ...options, files, set };
}

/**
 * Does what the arguments ask for.
 * @param {ReturnType<typeof parse>} options
 * @param {Host} host
 * @returns {Promise<Record<string, unknown>>}
 */
async function replay(options, host) {
  const { files, set } = options;
  if (set.has("draw")) return draw(options);
  if (files.length === 0) throw usage("a model", "none");
  const session = await host.open(files[0], { provider: options.provider });
  if (set.has("text")) return { text: await write(options, session) };
  if (set.has("together")) {
    const files = await Promise.all(options.together.split(",").map((path) => host.read(path, "a feed")));
    return together(
      session,
      files.map((data) => Object.fromEntries(readTensors(data, "a feed").tensors)),
      whole(options.times),
    );
  }
  if (set.has("misuse") || set.has("feed")) {
    const inputs = set.has("feed") ? readTensors(await host.read(options.feed, "a feed"), "a feed").tensors : new Map();
    return feed(options, session, Object.fromEntries(inputs));
  }
  if (set.has("restore")) {
    const stream = session.stream();
    stream.restore(await host.read(options.restore, "a snapshot"));
    return { position: stream.position };
  }
  if (files.length < 2) throw usage("a trace, or one of --feed, --together, --misuse, --restore, --text", "none");
  const replayer = new Replayer(session, readTrace(await host.read(files[1], "a trace"), session.contract));
  if (set.has("snapshot")) {
    const stream = await replayer.toStep(whole(options.after));
    await host.write(options.snapshot, stream.snapshot());
    return { position: stream.position };
  }
  if (set.has("entries")) {
    return { ...(await replayer.runBlocks(options.entries.split(",").map(whole), whole(options.omit))) };
  }
  return { ...(await replayer.run(options.chunks.split(",").map(whole))) };
}

/** @param {ReturnType<typeof parse>} options */
function draw(options) {
  const weights = options.draw.split(",").map(Number);
  const sampler = new Sampler(seedOf(options.seed));
  return { draws: Array.from({ length: whole(options.count) }, () => sampler.sampleWeights(weights)) };
}

/**
 * @param {ReturnType<typeof parse>} options
 * @param {Session} session
 */
async function write({ seed, temperature, text: prompt, length }, session) {
  const text = session.text({ seed: seedOf(seed), temperature: Number(temperature) });
  await text.read(prompt);
  let written = "";
  for await (const symbol of text.write(whole(length))) written += symbol;
  return written;
}

/**
 * Steps a stream of batch 1 with the same inputs again and again, or misuses it.
 * @param {ReturnType<typeof parse>} options
 * @param {Session} session
 * @param {Inputs} inputs
 */
async function feed({ misuse, times, set }, session, inputs) {
  const stream = session.stream();
  if (misuse === "closed") await stream.close();
  if (misuse === "waiting") await stream.feed(inputs);
  if (misuse === "part") await stream.run(inputs);
  if (misuse === "threads") {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) await Promise.all([stream.step(inputs), stream.step(inputs)]);
    throw usage("one call of two to be refused", "none in a thousand pairs");
  }
  /** @type {Inputs} */
  let outputs = {};
  for (let step = 0; step < whole(times); step++) outputs = await stream.step(inputs);
  if (set.has("flush")) outputs = await stream.flush();
  return flat(outputs);
}

/** @param {Inputs} outputs */
function flat(outputs) {
  const values = Object.entries(outputs).map(([name, tensor]) => {
    return [name, Array.from({ length: tensor.data.length }, (_, index) => plain(tensor, index))];
  });
  return { outputs: Object.fromEntries(values) };
}

/**
 * Steps a stream for each of some inputs as one batch; each begins and pauses in rounds of its own.
 * @param {Session} session
 * @param {Inputs[]} feeds
 * @param {number} times
 */
async function together(session, feeds, times) {
  const pool = session.pool();
  const streams = feeds.map(() => session.stream());
  const latest = new Map(streams.map((stream) => [stream, {}]));
  for (let turn = 0; turn < times; turn++) {
    const taking = streams.filter((_, place) => place <= turn && (turn + place) % 3 !== 2);
    const outputs = await pool.step(new Map(taking.map((stream) => [stream, feeds[streams.indexOf(stream)]])));
    for (const [stream, found] of outputs) latest.set(stream, found);
  }
  return { streams: [...latest.values()].map(flat) };
}

/** @param {string} text */
function whole(text) {
  if (!/^[0-9]+$/.test(text)) throw usage("a whole number, 0 or more", `'${text}'`);
  return Number(text);
}

/** @param {string} text */
const seedOf = (text) => (/^[0-9]+$/.test(text) ? BigInt(text) : NaN);

/**
 * @param {string} expected
 * @param {string} found
 */
const usage = (expected, found) => new RnnxError("usage", expected, found, "see docs/conformance.md");
