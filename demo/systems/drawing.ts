// A small picture that somebody draws.

/** Radius of the brush, in pixels of the picture. */
const RADIUS = 1.3;
/** Pixels of the page for one of the picture. */
const SCALE = 8;

/** A canvas to draw on, white on black. */
export interface Drawing {
  readonly canvas: HTMLCanvasElement;
  /** Brightness from 0 to 1, row by row; undefined if nothing was drawn. */
  pixels(): readonly number[] | undefined;
  clear(): void;
}

/**
 * Makes a canvas for a picture of size x size.
 *
 * @param onDrawn Is called after each stroke
 */
export function drawingOn(size: number, onDrawn: () => void): Drawing {
  const canvas = document.createElement("canvas");
  canvas.width = size * SCALE;
  canvas.height = size * SCALE;
  canvas.className = "drawing";
  const context = canvas.getContext("2d") as CanvasRenderingContext2D;
  let pixels = new Float32Array(size * size);
  let isDrawn = false;
  const paint = () => {
    for (const [at, light] of pixels.entries()) {
      const level = Math.round(255 * light);
      context.fillStyle = `rgb(${level} ${level} ${level})`;
      context.fillRect((at % size) * SCALE, Math.floor(at / size) * SCALE, SCALE, SCALE);
    }
  };
  const clear = () => {
    pixels = new Float32Array(size * size);
    isDrawn = false;
    paint();
  };
  const stroke = ({ offsetX, offsetY }: PointerEvent) => {
    const x = (offsetX / canvas.clientWidth) * size - 0.5;
    const y = (offsetY / canvas.clientHeight) * size - 0.5;
    for (const at of pixels.keys()) {
      const distance = Math.hypot((at % size) - x, Math.floor(at / size) - y);
      pixels[at] = Math.max(pixels[at], Math.min(1, Math.max(0, RADIUS + 0.5 - distance)));
    }
    isDrawn = true;
    paint();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) stroke(event);
  });
  canvas.addEventListener("pointerup", onDrawn);
  clear();
  return { canvas, clear, pixels: () => (isDrawn ? Array.from(pixels) : undefined) };
}
