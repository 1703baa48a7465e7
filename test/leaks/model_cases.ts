// Decoders: tokens of one text, and whole texts.

import { generate, Model } from "../../src/models/index.ts";
import { checkpointOf, smallConfig, smallWeights } from "../support/checkpoints.ts";
import type { LeakCase } from "./lab.ts";

const CONFIG = smallConfig("llama", { max_position_embeddings: 8192, num_hidden_layers: 2 });
/** Tokens of a long text, which begins again when it is full. */
const CAPACITY = 6144;

export const MODEL_CASES: readonly LeakCase[] = [
  {
    name: "models: a token of a long text",
    start: async (lab) => {
      const source = checkpointOf(CONFIG, smallWeights(CONFIG));
      const model = lab.keep(await Model.load(lab.device, source));
      const session = await model.session({ capacity: CAPACITY });
      const settings = { session, maxNewTokens: CAPACITY - 3, stop: [] };
      const begun = () => generate(model, [3, 1, 4], settings);
      let stream = begun();
      lab.keep({ destroy: () => void stream.return() });
      return async () => {
        const { done } = await stream.next();
        if (!done) return;
        await session.truncate(0);
        stream = begun();
        await stream.next();
      };
    },
  },
  {
    name: "models: whole texts, and loops that are left early",
    start: async (lab) => {
      const source = checkpointOf(CONFIG, smallWeights(CONFIG));
      const model = lab.keep(await Model.load(lab.device, source));
      const session = await model.session({ capacity: 64 });
      return async (n) => {
        for await (const { index } of generate(model, [3, 1, 4], { session, maxNewTokens: 4 }))
          if (index === n % 4) break;
        await session.truncate(0);
      };
    },
  },
];
