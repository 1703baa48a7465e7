// Reads the data of the systems, in a page and in Node.

const read = async (url: URL): Promise<Uint8Array<ArrayBuffer>> => {
  if (url.protocol !== "file:") {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    return new Uint8Array(await response.arrayBuffer());
  }
  const files = "node:fs/promises"; // hidden from the page's bundler
  const { readFile } = await import(/* @vite-ignore */ files);
  return readFile(url);
};

/** The bytes of a compressed file. */
export async function loadBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([await read(url)]).stream();
  const inflated = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

/** The text of a compressed file. */
export const loadText = async (url: URL): Promise<string> =>
  new TextDecoder().decode(await loadBytes(url));
