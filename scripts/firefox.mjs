// Finds a Firefox. It uses Node built-ins only.

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

/** Names on the PATH, Debian's among them, and places where installers put it. */
const NAMES = ["firefox", "firefox-esr"];
const PLACES = [
  "/Applications/Firefox.app/Contents/MacOS/firefox",
  "C:\\Program Files\\Mozilla Firefox\\firefox.exe",
];

/** The program: FOVEA_FIREFOX, or an installed one. @returns {string | undefined} */
export function findFirefox() {
  const named = process.env.FOVEA_FIREFOX;
  if (named) {
    if (existsSync(named)) return named;
    throw new Error(`FOVEA_FIREFOX names ${named}, and there is no such file.`);
  }
  const onPath = (process.env.PATH ?? "")
    .split(delimiter)
    .flatMap((folder) => NAMES.map((name) => join(folder, name)));
  return [...onPath, ...PLACES].find((path) => existsSync(path));
}
