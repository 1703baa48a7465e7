export { attention, type ReferenceResult } from "./attention.ts";
export { largest, type WorstElement, worstElement } from "./compare.ts";
export { dropoutKeeps, threefry2x32 } from "./dropout.ts";
export type { ReferenceOptions, ReferenceTensor } from "./options.ts";
