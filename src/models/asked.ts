// What a run of a model may be asked for beside its results.

import { check, show } from "../errors.ts";
import type { Asked, Definition } from "./definition.ts";

/** Throws FoveaError("argument") for layers that a model does not have. */
export function checkAsked(
  { family, layers, encoderLayers, hasSentences = false }: Definition,
  { sentence = false, attention, crossAttention, encoderAttention }: Asked,
): void {
  check(
    !sentence || hasSentences,
    "argument",
    () => `${family}: has no embeddings of sentences; encoders of texts do.`,
  );
  const isPair = encoderLayers !== undefined;
  const known = {
    attention: [attention, layers],
    crossAttention: [crossAttention, isPair ? layers : 0],
    encoderAttention: [encoderAttention, encoderLayers ?? 0],
  } as const;
  for (const [name, [asked = [], count]] of Object.entries(known)) {
    const wrong = asked.find((at) => !(Number.isInteger(at) && at >= 0 && at < count));
    check(wrong === undefined, "argument", () =>
      count > 0
        ? `${family}: layers of ${name} are 0 to ${count - 1}, got ${show(wrong)}.`
        : `${family}: has no ${name}; only models with an encoder and a decoder do.`,
    );
  }
}

/** What programs of one size differ by. */
export const wantedBy = ({
  hidden = false,
  sentence = false,
  attention = [],
  crossAttention = [],
  encoderAttention = [],
}: Asked): readonly unknown[] => [hidden, sentence, attention, crossAttention, encoderAttention];
