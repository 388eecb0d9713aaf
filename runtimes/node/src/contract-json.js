import { Constant } from "./constant.js";
import { Contract, Input, Spec, State, invalid, misfitting } from "./contract.js";
import { RnnxError } from "./error.js";
import { parseAxis } from "./shape.js";
import { DTYPES } from "./tensor.js";
import { Vocabulary } from "./vocabulary.js";

const VERSION = 1;
/** @type {ReadonlySet<string>} */
const KNOWN_REQUIREMENTS = new Set();

/**
 * Reads and checks the JSON of a contract.
 * @param {string} text
 * @throws {RnnxError} `contract-invalid`, `contract-newer` or `contract-requires`
 */
export function parseContract(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(`JSON is malformed: ${error instanceof Error ? error.message : error}`);
  }
  const top = new Fields(value, "$");
  top.oneOf("format", ["rnnx"]);
  const version = top.integer("version");
  if (version > VERSION) {
    throw new RnnxError(
      "contract-newer",
      `a contract of version ${VERSION} at most`,
      `version ${version}`,
      "install a newer rnnx, or export the model again with this one",
    );
  }
  const unknown = top.has("requires") ? top.texts("requires").filter((name) => !KNOWN_REQUIREMENTS.has(name)) : [];
  if (unknown.length > 0) {
    throw new RnnxError(
      "contract-requires",
      "a contract that requires only what this rnnx knows",
      `requires ${unknown.join(", ")}`,
      "install a newer rnnx",
    );
  }
  if (version < 1) throw invalid(`version ${version}`);
  const contract = new Contract();
  contract.id = top.textOr("id", "");
  contract.name = top.textOr("name", "");
  contract.inputs = top.objects("inputs").map(readInput);
  contract.outputs = top.objects("outputs").map(readOutput);
  contract.states = top.objects("states").map(readState);
  if (top.has("steps_per_second")) contract.stepsPerSecond = top.number("steps_per_second");
  if (top.has("whole_only")) contract.wholeOnly = top.text("whole_only");
  if (top.has("vocabulary")) contract.vocabulary = readVocabulary(new Fields(top.value("vocabulary"), "$.vocabulary"));
  if (top.has("user")) contract.user = new Fields(top.value("user"), "$.user").values;
  contract.check();
  return contract;
}

/** @param {Fields} fields */
function readSpec(fields) {
  const name = fields.text("name");
  const dtype = /** @type {import("./tensor.js").DType} */ (fields.oneOf("dtype", Object.keys(DTYPES)));
  return new Spec(
    name,
    dtype,
    fields.array("shape").map((entry) => readAxis(entry, name, fields.path)),
  );
}

/** @param {Fields} fields */
function readOutput(fields) {
  const output = readSpec(fields);
  if (fields.has("delay")) output.delay = fields.integer("delay");
  return output;
}

/**
 * @param {unknown} entry
 * @param {string} name
 * @param {string} path
 * @returns {import("./shape.js").Axis}
 */
function readAxis(entry, name, path) {
  if (typeof entry === "string") {
    const axis = parseAxis(entry);
    if (axis !== null) return axis;
    throw invalid(`dimension '${entry}' is no number, name or multiple of time in the shape of '${name}'`);
  }
  if (!Number.isSafeInteger(entry)) throw mismatch("int | str", entry, `${path}.shape[...]`);
  const factor = /** @type {number} */ (entry);
  if (factor < 1) throw invalid(`dimension ${factor} is not positive in the shape of '${name}'`);
  return { name: "", factor, isMultiple: false };
}

/** @param {Fields} fields */
function readInput(fields) {
  const { name, dtype, shape } = readSpec(fields);
  const input = new Input(name, dtype, shape);
  if (fields.has("default")) input.default = fields.constant("default", input);
  if (fields.has("role")) {
    fields.oneOf("role", ["length"]);
    input.isLength = true;
  }
  if (fields.has("range")) {
    const numbers = fields.array("range");
    const wrong = numbers.findIndex((entry) => typeof entry !== "number");
    if (wrong >= 0) throw mismatch("float", numbers[wrong], `${fields.path}.range[...]`);
    if (numbers.length !== 2) throw invalid(`Expected two numbers - at \`${fields.path}.range\``);
    input.range = /** @type {[number, number]} */ (numbers);
  }
  return input;
}

/** @param {Fields} fields */
function readState(fields) {
  const spec = readSpec(fields);
  const initial = fields.has("initial") ? fields.constant("initial", spec) : new Constant([], [0]);
  const state = new State(spec, fields.text("input"), fields.text("output"), initial);
  if (fields.has("role")) {
    fields.oneOf("role", ["ended"]);
    state.isEnd = true;
  }
  return state;
}

/** @param {Fields} fields */
function readVocabulary(fields) {
  fields.oneOf("scores", ["logits"], "logits");
  fields.oneOf("unit", ["codepoint"], "codepoint");
  const symbols = fields.texts("symbols");
  if (symbols.includes("")) throw invalid("an symbol without a name");
  if (!symbols.every((symbol) => /^\P{Surrogate}$/su.test(symbol)))
    throw invalid("a symbol that is not one code point");
  return new Vocabulary(fields.text("input"), fields.text("output"), symbols);
}

/** Fields of a JSON object, and where it stands, for messages. Reading one that is not as it should be throws. */
class Fields {
  /**
   * @param {unknown} value
   * @param {string} path
   */
  constructor(value, path) {
    if (kindOf(value) !== "object") throw mismatch("object", value, path);
    this.values = /** @type {Record<string, unknown>} */ (value);
    this.path = path;
  }

  /** @param {string} name */
  has(name) {
    return Object.hasOwn(this.values, name) && this.values[name] !== null;
  }

  /** @param {string} name */
  value(name) {
    if (Object.hasOwn(this.values, name)) return this.values[name];
    throw invalid(`Object missing required field \`${name}\`${at(this.path)}`);
  }

  /** @param {string} name */
  text(name) {
    const value = this.value(name);
    if (typeof value === "string") return value;
    throw mismatch("str", value, `${this.path}.${name}`);
  }

  /**
   * @param {string} name
   * @param {string} otherwise
   */
  textOr(name, otherwise) {
    return Object.hasOwn(this.values, name) ? this.text(name) : otherwise;
  }

  /**
   * One of the known texts.
   * @param {string} name
   * @param {readonly string[]} known
   * @param {string} [otherwise] where the field is missing
   */
  oneOf(name, known, otherwise) {
    const text = otherwise === undefined ? this.text(name) : this.textOr(name, otherwise);
    if (known.includes(text)) return text;
    throw invalid(`Invalid enum value '${text}' - at \`${this.path}.${name}\``);
  }

  /** @param {string} name */
  number(name) {
    const value = this.value(name);
    if (typeof value === "number") return value;
    throw mismatch("float", value, `${this.path}.${name}`);
  }

  /** @param {string} name */
  integer(name) {
    const value = this.value(name);
    if (Number.isInteger(value)) return /** @type {number} */ (value);
    throw mismatch("int", value, `${this.path}.${name}`);
  }

  /** @param {string} name */
  array(name) {
    const value = this.value(name);
    if (Array.isArray(value)) return /** @type {unknown[]} */ (value);
    throw mismatch("array", value, `${this.path}.${name}`);
  }

  /** @param {string} name */
  texts(name) {
    return this.array(name).map((entry) => {
      if (typeof entry === "string") return entry;
      throw mismatch("str", entry, `${this.path}.${name}[...]`);
    });
  }

  /** @param {string} name */
  objects(name) {
    return this.array(name).map((entry) => new Fields(entry, `${this.path}.${name}[...]`));
  }

  /**
   * @param {string} name
   * @param {Spec} spec
   */
  constant(name, spec) {
    const constant = Constant.parse(this.value(name));
    if (constant === null) throw misfitting(spec);
    return constant;
  }
}

/** @param {unknown} value */
function kindOf(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float";
  return typeof value === "boolean" ? "bool" : typeof value === "string" ? "str" : "object";
}

/**
 * @param {string} expected
 * @param {unknown} found
 * @param {string} path
 */
function mismatch(expected, found, path) {
  return invalid(`Expected \`${expected}\`, got \`${kindOf(found)}\`${at(path)}`);
}

/** @param {string} path */
const at = (path) => (path === "$" ? "" : ` - at \`${path}\``);
