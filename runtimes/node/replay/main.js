#!/usr/bin/env node
// The conformance program in Node: node replay/main.js MODEL TRACE --chunks 3,1,0 --json
import { writeFile } from "node:fs/promises";
import { RnnxError, open, readFile } from "../src/node.js";
import { run } from "./replay.js";

/**
 * @param {string} path
 * @param {Uint8Array} data
 */
async function write(path, data) {
  await writeFile(path, data).catch((error) => {
    throw new RnnxError("cannot-write", `to write ${path}`, error.message, "choose another place");
  });
}

/** @param {Record<string, any>} value */
function forPeople({ agrees, steps, calls, max_error: error, failure, draws, text, outputs, position }) {
  const told = `${steps} steps in ${calls} calls, largest error ${error?.toPrecision(2)}`;
  if (agrees === true) return `agrees: ${told}`;
  if (agrees === false) {
    const place = `${failure.tensor} at step ${failure.step}, index [${failure.index.join(", ")}]`;
    return `disagrees: ${place}: expected ${failure.expected}, got ${failure.got}; ${told}`;
  }
  if (outputs !== undefined)
    return Object.entries(outputs)
      .map(([name, values]) => `${name} ${values.join(" ")}`)
      .join("\n");
  return text ?? draws?.join(" ") ?? `position ${position}`;
}

const words = process.argv.slice(2);
const { code, value } = await run(words, { open, read: readFile, write });
process.exitCode = code;
if (words.includes("--json")) console.log(JSON.stringify(value));
else if (value.error === undefined) console.log(forPeople(value));
else {
  const error = /** @type {{code: string, text: string}} */ (value.error);
  console.error(`error[${error.code}]: ${error.text}`);
}
