import * as fs from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { RnnxError } from "./error.js";
import { ALONE, missing, refused } from "./external.js";

/**
 * The size of a plain file in a model's folder, with all links followed: none may lead out of it.
 * @param {string} path of the model
 * @param {string} location
 */
export async function sizeBeside(path, location) {
  try {
    const home = await fs.realpath(dirname(path));
    const place = await fs.realpath(join(home, location));
    const inside = home.endsWith(sep) ? home : home + sep;
    if (place !== home && !place.startsWith(inside))
      throw refused(ALONE, `a link out of it: '${location.slice(0, 80)}'`);
    const found = await fs.stat(place);
    if (!found.isFile()) throw refused(`a plain file at '${location.slice(0, 80)}'`, "a folder, pipe or device");
    return found.size;
  } catch (error) {
    if (error instanceof RnnxError) throw error;
    const { code = "" } = /** @type {NodeJS.ErrnoException} */ (error);
    const isAbsent = code === "ENOENT" || code === "ENOTDIR";
    throw missing(location, isAbsent ? "no such file" : "one that cannot be read", error);
  }
}
