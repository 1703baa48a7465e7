// Runs one of the TypeScript programs under bench/: `node scripts/run.mjs bench/start.ts ...`. A
// Vite server loads it, and serves the page that it opens.

import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [program, ...args] = process.argv.slice(2);

// `--built` computes with the package as built, which is what its users get; otherwise with the
// sources.
const built = args.includes("--built");

/** Libraries that a bench compares with. */
const PEERS = [
  "@jax-js/jax",
  "@tensorflow/tfjs-core",
  "@tensorflow/tfjs-core/dist/register_all_gradients",
  "@tensorflow/tfjs-backend-webgpu",
  "pbf",
];

const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Files that the page can fetch and store, by name. @type {Map<string, Uint8Array>} */
const files = new Map();

/** Serves them under /files/. @type {import("vite").Connect.NextHandleFunction} */
function serveFiles(request, response) {
  const name = (request.url ?? "").slice(1);
  if (request.method === "PUT") {
    /** @type {Buffer[]} */
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      files.set(name, Buffer.concat(chunks));
      response.end();
    });
    return;
  }
  const file = files.get(name);
  response.statusCode = file ? 200 : 404;
  if (name.endsWith(".js")) response.setHeader("Content-Type", "text/javascript");
  response.end(file);
}

const server = await createServer({
  root,
  configFile: join(root, "vite.config.ts"),
  logLevel: "error",
  appType: "mpa",
  // Isolated pages may have threads, which a library's CPU build uses.
  server: { host: "127.0.0.1", port: 0, hmr: false, watch: null, headers: ISOLATED },
  resolve: {
    alias: built
      ? [{ find: /^.*\/src\/index\.ts$/, replacement: join(root, "dist/index.js") }]
      : [],
  },
  // What pages import of packages is bundled ahead, because a page that finds out later is loaded
  // again.
  optimizeDeps: {
    noDiscovery: true,
    include: ["bench/bench.ts", "bench/isa/isa.ts"].includes(program) ? PEERS : [],
  },
  plugins: [
    {
      name: "files",
      configureServer: ({ middlewares }) => void middlewares.use("/files", serveFiles),
    },
  ],
});
try {
  await server.listen();
  const { main } = await server.ssrLoadModule(resolve(root, program));
  process.exitCode = await main({
    server,
    root,
    files,
    args: args.filter((arg) => arg !== "--built"),
  });
} catch (error) {
  // Names of paths and files may move the cursor of a terminal, or colour it. So of all control
  // characters only line ends and tabs are printed raw.
  const escaped = (/** @type {string} */ letter) =>
    `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const text = `${error}`.replace(/(?![\n\t])\p{Cc}/gu, escaped);
  console.error(/** @type {Error} */ (error)?.name === "FoveaError" ? text : error);
  process.exitCode = 1;
} finally {
  await server.close();
}
process.exit(); // Dawn's threads would keep the process alive
