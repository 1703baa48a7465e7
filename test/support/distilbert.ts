// A small encoder of texts.

/** The width. */
export const W = 10;
/** The config of a small DistilBERT. */
export const DISTILBERT = {
  model_type: "distilbert",
  vocab_size: 17,
  dim: W,
  n_heads: 2,
  n_layers: 1,
  hidden_dim: 7,
  max_position_embeddings: 9,
};

/** The shapes of its checkpoint's tensors. */
export function distilbertShapes() {
  const found: Record<string, readonly number[]> = {
    "distilbert.embeddings.word_embeddings.weight": [17, W],
    "distilbert.embeddings.position_embeddings.weight": [9, W],
  };
  const pair = (path: string, ...shape: readonly number[]) => {
    found[`distilbert.${path}.weight`] = shape;
    found[`distilbert.${path}.bias`] = [shape[0]];
  };
  pair("embeddings.LayerNorm", W);
  const layer = "transformer.layer.0";
  for (const name of ["q", "k", "v", "out"]) pair(`${layer}.attention.${name}_lin`, W, W);
  pair(`${layer}.sa_layer_norm`, W);
  pair(`${layer}.ffn.lin1`, 7, W);
  pair(`${layer}.ffn.lin2`, W, 7);
  pair(`${layer}.output_layer_norm`, W);
  return found;
}
