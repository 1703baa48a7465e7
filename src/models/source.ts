// Where the files of a checkpoint come from: memory, files that a visitor chose, or an address.

import { check, FoveaError, show } from "../errors.ts";

/** Files by their names, of which parts can be read. */
export interface FileSource {
  /** What the files are called together, in messages. */
  readonly label: string;
  /** Bytes of a file; undefined if there is none of this name. */
  size(name: string): Promise<number | undefined>;
  /** The bytes of a file from `begin` up to but not including `end`. */
  read(name: string, begin: number, end: number): Promise<Uint8Array>;
}

/** Files in memory. */
export function bytesSource(
  files: Readonly<Record<string, Uint8Array | ArrayBuffer>>,
  label = "the files",
): FileSource {
  const found = new Map(
    Object.entries(files).map(([name, bytes]) => {
      const isBuffer = bytes instanceof ArrayBuffer;
      check(
        isBuffer || bytes instanceof Uint8Array,
        "argument",
        () => `${name}: a file is a Uint8Array or an ArrayBuffer, got ${show(bytes)}.`,
      );
      return [name, isBuffer ? new Uint8Array(bytes) : (bytes as Uint8Array)] as const;
    }),
  );
  return {
    label,
    size: async (name) => found.get(name)?.length,
    read: async (name, begin, end) => (found.get(name) as Uint8Array).subarray(begin, end),
  };
}

/** Files that a visitor chose, or dropped: of a folder, their names within it count. */
export function fileSource(files: Iterable<File>, label = "the files"): FileSource {
  const found = new Map([...files].map((file) => [file.name, file] as const));
  return {
    label,
    size: async (name) => found.get(name)?.size,
    read: async (name, begin, end) =>
      new Uint8Array(await (found.get(name) as File).slice(begin, end).arrayBuffer()),
  };
}

/** Options of {@link urlSource}. */
export interface UrlOptions {
  /** Stops all requests. */
  readonly signal?: AbortSignal;
  /** How often a request that failed is made again. Default 2. */
  readonly retries?: number;
  /** Stands for `fetch`. */
  readonly fetch?: typeof globalThis.fetch;
}

/** Statuses of servers that may do better when they are asked again. */
const PASSING = [408, 429, 500, 502, 503, 504];

/**
 * Files below an address, read by ranges. A server that ignores ranges sends whole files, which are
 * then kept until the source is forgotten.
 *
 * Its promises reject with FoveaError("file") for answers that are none of 200, 206 and 404, or too
 * short, and with the reason of the signal once that is aborted.
 */
export function urlSource(base: string, options: UrlOptions = {}): FileSource {
  const { signal, retries = 2, fetch = globalThis.fetch } = options;
  const root = base.endsWith("/") ? base : `${base}/`;
  const whole = new Map<string, Uint8Array>();
  const sizes = new Map<string, number>();
  const request = async (name: string, headers: Record<string, string>): Promise<Response> => {
    for (let attempt = 0; ; attempt++) {
      signal?.throwIfAborted();
      try {
        const response = await fetch(`${root}${name}`, { headers, ...(signal && { signal }) });
        if (attempt >= retries || !PASSING.includes(response.status)) return response;
      } catch (cause) {
        signal?.throwIfAborted();
        if (attempt >= retries)
          throw new FoveaError("file", `${root}${name} cannot be fetched.`, { cause });
      }
    }
  };
  const bytesOf = async (name: string, begin: number, end: number) => {
    const response = await request(name, { Range: `bytes=${begin}-${end - 1}` });
    if (response.status === 404) return undefined;
    if (!response.ok)
      throw new FoveaError("file", `${root}${name}: the server answers ${response.status}.`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const total = /\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "")?.[1];
    if (response.status === 206 && total !== undefined) {
      sizes.set(name, Number(total));
      return bytes;
    }
    whole.set(name, bytes);
    sizes.set(name, bytes.length);
    return bytes.subarray(begin, end);
  };
  return {
    label: root,
    async size(name) {
      if (!sizes.has(name)) await bytesOf(name, 0, 1);
      return sizes.get(name);
    },
    async read(name, begin, end) {
      const known = whole.get(name);
      const bytes = known ? known.subarray(begin, end) : await bytesOf(name, begin, end);
      if (bytes?.length === end - begin) return bytes;
      throw new FoveaError(
        "file",
        `${root}${name}: asked for bytes ${begin} to ${end}, got ${bytes?.length ?? 0}.`,
      );
    },
  };
}
