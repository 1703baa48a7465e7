// `fovea/onnx`: the attention family of ONNX' operators and of ONNX Runtime's, on GPU tensors.

export { Attention } from "./attention.ts";
export { DecoderAttention } from "./decoder_attention.ts";
export { FlexAttention } from "./flex_attention.ts";
export { GroupQueryAttention } from "./group_query_attention.ts";
export { MicrosoftAttention } from "./microsoft_attention.ts";
export { MultiHeadAttention } from "./multi_head_attention.ts";
export type { OnnxAttributes, OnnxGraph, OnnxInput, OnnxOperator, OnnxRun } from "./operator.ts";
export { operators } from "./operators.ts";
export { PackedAttention, PackedMultiHeadAttention } from "./packed_attention.ts";
export { RotaryEmbedding } from "./rotary_embedding.ts";
