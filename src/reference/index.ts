export { attention, type ReferenceOptions, type ReferenceResult, type ReferenceTensor } from "./attention.ts";
export { largest, type WorstElement, worstElement } from "./compare.ts";
