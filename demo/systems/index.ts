// The systems, in the order of the texts.

import { ATTENTION_MODEL, ATTENTION_MODEL_LITERAL } from "./attention_model/system.ts";
import { ENCODER_CLASSIFIER } from "./encoder_classifier/system.ts";
import { GPT } from "./gpt/system.ts";
import type { System } from "./system.ts";
import { TEXT_CLASSIFIER } from "./text_classifier/system.ts";
import { DATES, TRANSLATION } from "./translation/system.ts";
import { VIT } from "./vit/system.ts";

export const SYSTEMS: readonly System[] = [
  ATTENTION_MODEL,
  ATTENTION_MODEL_LITERAL,
  TEXT_CLASSIFIER,
  TRANSLATION,
  DATES,
  ENCODER_CLASSIFIER,
  GPT,
  VIT,
];
