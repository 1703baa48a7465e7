// The small GPT whose step of training is compared.

/** Sizes of the model and of its batch. */
export const GPT_STEP = {
  vocab: 65,
  positions: 128,
  width: 128,
  heads: 4,
  layers: 4,
  feedForward: 512,
  batch: 8,
  eps: 1e-5,
  gelu: "tanh",
} as const;

/** Adam's settings, PyTorch's defaults. */
export const ADAM = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8 } as const;

/** What is compared, after the loss: the gradients of these parameters. */
export const COMPARED = [
  "wte.weight",
  "blocks.0.qkv.weight",
  "blocks.0.ln_1.bias",
  "blocks.3.out.weight",
  "ln_f.weight",
] as const;

/** What all contestants begin with. */
export interface GptStep {
  /** In the order in which the model asks for them. */
  readonly parameters: readonly {
    readonly name: string;
    readonly shape: readonly number[];
    readonly data: Float32Array<ArrayBuffer>;
  }[];
  /** [batch, positions] */
  readonly ids: Int32Array<ArrayBuffer>;
  readonly targets: Int32Array<ArrayBuffer>;
}
