"""The loss and some gradients of the step of bench/training.ts, in float64 and in f32.

Usage: python3 test/torch/gpt_step.py FOLDER, after test/torch/gpt_step.ts. Needs PyTorch.
"""

import json
import math
import sys

import numpy as np
import torch
from torch.nn import functional as F

# Elements of each gradient that are compared.
SOME = 48


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def loss_of(p, ids, targets, sizes):
    width, heads = sizes["width"], sizes["heads"]

    def norm(x, name):
        return F.layer_norm(x, [width], p[f"{name}.weight"], p[f"{name}.bias"], sizes["eps"])

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    batch, rows = ids.shape
    x = p["wte.weight"][ids] + p["wpe.weight"]
    later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    for layer in range(sizes["layers"]):
        at = f"blocks.{layer}"
        qkv = linear(norm(x, f"{at}.ln_1"), f"{at}.qkv").reshape(batch, rows, 3, heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / math.sqrt(width // heads)
        seen = scores.masked_fill(later, -math.inf).softmax(3) @ v
        x = x + linear(seen.transpose(1, 2).reshape(batch, rows, width), f"{at}.proj")
        x = x + linear(gelu(linear(norm(x, f"{at}.ln_2"), f"{at}.fc")), f"{at}.out")
    logits = norm(x, "ln_f") @ p["wte.weight"].T
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main(folder):
    manifest = json.load(open(f"{folder}/manifest.json"))
    elements = np.fromfile(f"{folder}/parameters.bin", np.float32)
    sizes, compared = manifest["sizes"], manifest["compared"]
    ids, targets = (
        torch.tensor(manifest[name]).reshape(sizes["batch"], sizes["positions"])
        for name in ("ids", "targets")
    )

    def step(dtype):
        at, parameters = 0, {}
        for name, shape in manifest["shapes"].items():
            size = int(np.prod(shape))
            values = torch.from_numpy(elements[at : at + size].reshape(shape).copy())
            parameters[name] = values.to(dtype).requires_grad_()
            at += size
        loss = loss_of(parameters, ids, targets, sizes)
        loss.backward()
        return [loss.detach().reshape(1)] + [parameters[n].grad.flatten() for n in compared]

    places, begin = [], 0
    random = np.random.default_rng(1)
    exact, plain = step(torch.float64), step(torch.float32)
    expected = []
    for f64, f32 in zip(exact, plain):
        some = np.sort(random.choice(len(f64), min(SOME, len(f64)), replace=False))
        expected.append(
            {
                "at": [int(begin + one) for one in some],
                "f64": [float(f64[one]) for one in some],
                "plain": [float(f32[one]) for one in some],
            }
        )
        begin += len(f64)
    json.dump(expected, open("bench/peers/gpt_step.json", "w"))
    print("loss", float(exact[0]))


main(sys.argv[1])
