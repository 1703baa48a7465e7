// All operators by domain and name, for programs that walk a graph. Importing this file imports
// them all.

import { Attention } from "./attention.ts";
import { DecoderAttention } from "./decoder_attention.ts";
import { FlexAttention } from "./flex_attention.ts";
import { BiasAdd, BiasSplitGelu, FastGelu, Gelu, MicrosoftGelu } from "./gelu.ts";
import { GroupQueryAttention } from "./group_query/attention.ts";
import {
  LayerNormalization,
  RMSNormalization,
  SimplifiedLayerNormalization,
} from "./layer_normalization.ts";
import { LinearAttention, MicrosoftLinearAttention } from "./linear_attention.ts";
import { MicrosoftAttention } from "./microsoft_attention.ts";
import { MicrosoftRotaryEmbedding, MRotaryEmbedding } from "./microsoft_rotary_embedding.ts";
import { MultiHeadAttention } from "./multi_head_attention.ts";
import type { OnnxOperator } from "./operator.ts";
import { PackedAttention, PackedMultiHeadAttention } from "./packed_attention.ts";
import { GatedRelativePositionBias, RelativePositionBias } from "./relative_position_bias.ts";
import { RotaryEmbedding } from "./rotary_embedding.ts";
import {
  SkipLayerNormalization,
  SkipSimplifiedLayerNormalization,
} from "./skip_layer_normalization.ts";
import { LogSoftmax, Softmax } from "./softmax.ts";

/**
 * The operators by domain, then by name: `operators["com.microsoft"].GroupQueryAttention`. A bundle
 * that uses this contains every operator; import those that you need by name if that matters.
 */
export const operators = {
  "ai.onnx": {
    Attention,
    Gelu,
    LayerNormalization,
    LinearAttention,
    LogSoftmax,
    RMSNormalization,
    RotaryEmbedding,
    SimplifiedLayerNormalization,
    Softmax,
  },
  "com.microsoft": {
    Attention: MicrosoftAttention,
    BiasAdd,
    BiasSplitGelu,
    DecoderAttention,
    FastGelu,
    GatedRelativePositionBias,
    Gelu: MicrosoftGelu,
    GroupQueryAttention,
    LinearAttention: MicrosoftLinearAttention,
    MRotaryEmbedding,
    MultiHeadAttention,
    PackedAttention,
    PackedMultiHeadAttention,
    RelativePositionBias,
    RotaryEmbedding: MicrosoftRotaryEmbedding,
    SkipLayerNormalization,
    SkipSimplifiedLayerNormalization,
  },
  "ai.onnx.preview": { FlexAttention },
} as const satisfies Readonly<Record<string, Readonly<Record<string, OnnxOperator>>>>;
