// A step of `npm run build` that lets compilers before TypeScript 5.7 read the declarations, too.
// In these, typed arrays are not generic over their memory, and newer compilers write that down
// wherever they infer a type.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const types = join(dirname(dirname(fileURLToPath(import.meta.url))), "dist/types");
for (const file of readdirSync(types, { recursive: true, encoding: "utf8" })) {
  if (!file.endsWith(".d.ts")) continue;
  const text = readFileSync(join(types, file), "utf8");
  const plain = text.replace(
    /\b((?:Int|Uint|Float|BigInt|BigUint)\d+(?:Clamped)?Array)<ArrayBuffer(?:Like)?>/g,
    "$1",
  );
  if (plain !== text) writeFileSync(join(types, file), plain);
}
