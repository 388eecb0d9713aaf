// Reads a path from each line of its input, and says of that model "ok" or "error CODE": all that is looked at before
// the engine. What scripts/fuzz feeds.
import { createInterface } from "node:readline";
import { checkExternal } from "../src/external.js";
import { sizeBeside } from "../src/external-files.js";
import { contractOf } from "../src/model-file.js";
import { RnnxError, readFile } from "../src/node.js";

for await (const path of createInterface({ input: process.stdin, terminal: false })) {
  try {
    const data = await readFile(path, "an ONNX model");
    await checkExternal(data, path, (location) => sizeBeside(path, location));
    contractOf(data, path);
    console.log("ok");
  } catch (error) {
    if (!(error instanceof RnnxError)) throw error;
    console.log(`error ${error.code}`);
  }
}
