// `fovea/onnx`: the attention family of ONNX' operators and of ONNX Runtime's, on GPU tensors.

export { Attention } from "./attention.ts";
export { DecoderAttention } from "./decoder_attention.ts";
export { FlexAttention } from "./flex_attention.ts";
export { BiasAdd, BiasSplitGelu, FastGelu, Gelu, MicrosoftGelu } from "./gelu.ts";
export { GroupQueryAttention } from "./group_query/attention.ts";
export {
  LayerNormalization,
  RMSNormalization,
  SimplifiedLayerNormalization,
} from "./layer_normalization.ts";
export { LinearAttention, MicrosoftLinearAttention } from "./linear_attention.ts";
export { MicrosoftAttention } from "./microsoft_attention.ts";
export { MicrosoftRotaryEmbedding, MRotaryEmbedding } from "./microsoft_rotary_embedding.ts";
export { MultiHeadAttention } from "./multi_head_attention.ts";
export type { OnnxOperator } from "./operator.ts";
export type { OnnxAttributes, OnnxGraph, OnnxInput, OnnxRun } from "./operator_types.ts";
export { operators } from "./operators.ts";
export { PackedAttention, PackedMultiHeadAttention } from "./packed_attention.ts";
export { GatedRelativePositionBias, RelativePositionBias } from "./relative_position_bias.ts";
export { RotaryEmbedding } from "./rotary_embedding.ts";
export {
  SkipLayerNormalization,
  SkipSimplifiedLayerNormalization,
} from "./skip_layer_normalization.ts";
export { LogSoftmax, Softmax } from "./softmax.ts";
