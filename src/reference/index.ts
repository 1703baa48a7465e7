export { attention, type ReferenceOptions, type ReferenceResult, type ReferenceTensor } from "./attention.ts";
export { largest, type WorstElement, worstElement } from "./compare.ts";
export { mergeAttention, type ReferencePartial } from "./merge.ts";
