// Every operator by domain and name, for whoever walks a graph. Importing this takes them all.

import { Attention } from "./attention.ts";
import { DecoderAttention } from "./decoder_attention.ts";
import { FlexAttention } from "./flex_attention.ts";
import { GroupQueryAttention } from "./group_query_attention.ts";
import { MicrosoftAttention } from "./microsoft_attention.ts";
import { MultiHeadAttention } from "./multi_head_attention.ts";
import type { OnnxOperator } from "./operator.ts";
import { PackedAttention, PackedMultiHeadAttention } from "./packed_attention.ts";
import { RotaryEmbedding } from "./rotary_embedding.ts";

/**
 * The operators by domain, then by name: `operators["com.microsoft"].GroupQueryAttention`. A bundler that sees this used
 * takes every operator along; import those you need by name instead where that matters.
 */
export const operators = {
  "ai.onnx": { Attention, RotaryEmbedding },
  "com.microsoft": {
    Attention: MicrosoftAttention,
    DecoderAttention,
    GroupQueryAttention,
    MultiHeadAttention,
    PackedAttention,
    PackedMultiHeadAttention,
  },
  "ai.onnx.preview": { FlexAttention },
} as const satisfies Readonly<Record<string, Readonly<Record<string, OnnxOperator>>>>;
