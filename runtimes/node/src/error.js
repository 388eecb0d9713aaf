/**
 * What everything in this package throws, or rejects with, when it fails. Its code and text are the same in
 * every language; a wrong kind of argument is a TypeError.
 */
export class RnnxError extends Error {
  /**
   * @param {string} code stable identifier in kebab-case
   * @param {string} expected what should have been there
   * @param {string} found what was there instead
   * @param {string} fix what can be done about it
   * @param {unknown} [cause] the error that it was made from
   */
  constructor(code, expected, found, fix, cause) {
    super(`expected ${expected}; found ${found}; fix: ${fix}`, cause === undefined ? {} : { cause });
    this.name = "RnnxError";
    this.code = code;
    this.expected = expected;
    this.found = found;
    this.fix = fix;
  }
}

/**
 * The first line of what another library threw.
 * @param {unknown} error
 */
export function firstLine(error) {
  return (error instanceof Error ? error.message : String(error)).trim().split("\n", 1)[0];
}
