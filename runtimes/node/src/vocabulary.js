import { invalid } from "./contract.js";
import { RnnxError } from "./error.js";

/** What the ids of a model over symbols mean: id i stands for the i-th symbol, which is one code point. */
export class Vocabulary {
  /** @type {ReadonlyMap<string, number>} */
  #ids;

  /**
   * @param {string} input the input that takes ids
   * @param {string} output the output that gives one score per symbol
   * @param {readonly string[]} symbols
   */
  constructor(input, output, symbols) {
    this.input = input;
    this.output = output;
    this.symbols = symbols;
    this.#ids = new Map(symbols.map((symbol, id) => [symbol, id]));
  }

  /**
   * Checks it against the contract it stands in. Throws `contract-invalid`.
   * @param {import("./contract.js").Contract} contract
   */
  check({ inputs, outputs }) {
    const taken = inputs.find(({ name }) => name === this.input);
    const given = outputs.find(({ name }) => name === this.output);
    if (taken === undefined) throw invalid(`vocabulary input '${this.input}' is no input`);
    if (given === undefined) throw invalid(`vocabulary output '${this.output}' is no output`);
    if (taken.dtype !== "int64") throw invalid(`vocabulary input '${taken.name}' is not int64`);
    const last = given.shape.at(-1);
    if (last?.name !== "" || last.factor !== this.symbols.length) {
      throw invalid(`${this.symbols.length} symbols, and not as many scores in '${given.name}'`);
    }
    const twice = this.symbols.find((symbol, id) => this.#ids.get(symbol) !== id);
    if (twice !== undefined) throw invalid(`two entries for symbol '${twice}'`);
  }

  /**
   * The ids of the characters of a text.
   * @param {string} text
   * @param {string} [what] what the text is, for the message
   * @returns {number[]}
   * @throws {RnnxError} `character-outside-vocabulary`, naming the first such character and its position
   */
  encode(text, what = "text") {
    return Array.from(text, (character, position) => {
      const id = this.#ids.get(character);
      if (id !== undefined) return id;
      const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
      throw new RnnxError(
        "character-outside-vocabulary",
        `a ${what} of the vocabulary's ${this.symbols.length} characters`,
        `'${character}' (U+${code}) at character ${position} (from 0)`,
        "leave it out or replace it; 'rnnx inspect MODEL --json' lists the vocabulary",
      );
    });
  }

  /**
   * The text that ids stand for.
   * @param {Iterable<number>} ids
   * @throws {RnnxError} `id-outside-vocabulary`, naming the first such id
   */
  decode(ids) {
    return Array.from(ids, (id, position) => {
      const symbol = this.symbols[id];
      if (symbol !== undefined) return symbol;
      throw new RnnxError(
        "id-outside-vocabulary",
        `ids in 0..${this.symbols.length - 1}`,
        `${id} at position ${position} (from 0)`,
        "use the ids of the vocabulary this model was trained with",
      );
    }).join("");
  }
}
