// Masks of padding come with the first one: they are functions in WGSL, whose reader few models need.

export const loadPaddingMask = async () => (await import("./padding_mask.ts")).paddingMask;
