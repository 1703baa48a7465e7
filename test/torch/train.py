"""Trains a system as test/torch/export.ts wrote it, in PyTorch, and prints what the test data says.

Usage: python3 test/torch/train.py FOLDER. Needs PyTorch; nothing of the project needs this script.
"""

import json
import math
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

torch.set_num_threads(1)


class AttentionModel(nn.Module):
    def __init__(self, shapes, softmax):
        super().__init__()
        self.encoder = nn.Embedding(*shapes["encoder.weight"])
        self.attention = nn.Linear(shapes["attention.weight"][1], 1)
        self.decoder = nn.Linear(*reversed(shapes["decoder.weight"]))
        self.softmax = softmax

    def forward(self, ids):
        words = self.encoder(ids)
        weights = self.attention(words)
        if self.softmax:
            weights = weights.softmax(1)
        return self.decoder((words * weights).sum(1))


class TextClassifier(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        self.embedding = nn.Embedding(*shapes["embedding.weight"])
        inputs, hidden = shapes["embedding.weight"][1], shapes["lstm.weight_hh_l0"][1]
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.attention = nn.Linear(hidden, 1)
        self.decoder = nn.Linear(*reversed(shapes["decoder.weight"]))

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embedding(ids), lengths, True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], True, total_length=ids.shape[1])
        hidden = torch.arange(ids.shape[1])[None] >= lengths[:, None]
        weights = self.attention(output).squeeze(2).masked_fill(hidden, -math.inf).softmax(1)
        return self.decoder((output * weights[:, :, None]).sum(1))


class Translator(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        self.source_embedding = nn.Embedding(*shapes["source_embedding.weight"])
        self.target_embedding = nn.Embedding(*shapes["target_embedding.weight"])
        inputs, hidden = shapes["source_embedding.weight"][1], shapes["key.weight"][0]
        self.encoder = nn.GRU(inputs, hidden, batch_first=True)
        self.decoder = nn.GRU(inputs + hidden, hidden, batch_first=True)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.output = nn.Linear(*reversed(shapes["output.weight"]))

    def forward(self, source, lengths, before):
        packed = pack_padded_sequence(
            self.source_embedding(source), lengths, True, enforce_sorted=False
        )
        output, state = self.encoder(packed)
        states, _ = pad_packed_sequence(output, True, total_length=source.shape[1])
        keys = self.key(states)
        hidden = torch.arange(source.shape[1])[None] >= lengths[:, None]
        rows = []
        for word in self.target_embedding(before).unbind(1):
            scores = self.score(torch.tanh(self.query(state[0])[:, None] + keys)).squeeze(2)
            weights = scores.masked_fill(hidden, -math.inf).softmax(1)
            seen = (weights[:, :, None] * states).sum(1)
            _, state = self.decoder(torch.cat([word, seen], 1)[:, None], state)
            rows.append(self.output(torch.cat([state[0], seen], 1)))
        return torch.stack(rows, 1)


def encoder_layers(shapes, heads):
    count = len({name.split(".")[1] for name in shapes if name.startswith("layers.")})
    inner, width = shapes["layers.0.linear1.weight"]
    return nn.ModuleList(
        nn.TransformerEncoderLayer(width, heads, inner, 0.0, F.gelu, 1e-5, True, True)
        for _ in range(count)
    )


class EncoderClassifier(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        vocab, width = shapes["embedding.weight"]
        self.embedding = nn.Embedding(vocab, width)
        self.layers = encoder_layers(shapes, 4)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(*reversed(shapes["head.weight"]))

    def forward(self, ids, lengths):
        rows, width = ids.shape[1], self.embedding.weight.shape[1]
        angles = torch.arange(rows)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
        positions = torch.stack([angles.sin(), angles.cos()], 2).reshape(rows, width)
        x = self.embedding(ids) * math.sqrt(width) + positions
        hidden = torch.arange(rows)[None] >= lengths[:, None]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        kept = self.norm(x).masked_fill(hidden[:, :, None], 0)
        return self.head(kept.sum(1) / lengths[:, None])


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, inner), nn.Linear(inner, width)
        self.heads = heads

    def forward(self, x):
        batch, rows, width = x.shape
        split = self.qkv(self.ln_1(x)).reshape(batch, rows, 3, self.heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
        seen = scores.masked_fill(later, -math.inf).softmax(3) @ v
        x = x + self.proj(seen.transpose(1, 2).reshape(batch, rows, width))
        return x + self.out(F.gelu(self.fc(self.ln_2(x))))


class Gpt(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        self.wte = nn.Embedding(*shapes["wte.weight"])
        self.wpe = nn.Embedding(*shapes["wpe.weight"])
        count = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
        inner, width = shapes["blocks.0.fc.weight"]
        self.blocks = nn.ModuleList(Block(width, 4, inner) for _ in range(count))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


class Vit(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        width, channels, patch, _ = shapes["patches.weight"]
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(shapes["class_token"]))
        self.positions = nn.Parameter(torch.zeros(shapes["positions"]))
        self.layers = encoder_layers(shapes, 4)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(*reversed(shapes["head.weight"]))

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def gpt_optimizer(model):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, 3e-3, (0.9, 0.95), weight_decay=0.1)


def gpt_rate(step, warmup=30, total=600, least=0.1):
    if step < warmup:
        return (step + 1) / warmup
    part = min(1.0, (step - warmup) / (total - warmup))
    return least + (1 - least) * (1 + math.cos(math.pi * part)) / 2


def adam(lr):
    return lambda model: torch.optim.Adam(model.parameters(), lr)


# Model, optimiser, and the norm that gradients are clipped to.
SYSTEMS = {
    "attention_model": (lambda s: AttentionModel(s, True), adam(1e-3), None),
    "attention_model_literal": (lambda s: AttentionModel(s, False), adam(1e-3), None),
    "text_classifier": (TextClassifier, adam(1e-3), None),
    "translation": (Translator, adam(3e-3), 1.0),
    "dates": (Translator, adam(3e-3), 1.0),
    "encoder_classifier": (EncoderClassifier, adam(1e-3), None),
    "gpt": (Gpt, gpt_optimizer, 1.0),
    "vit": (
        Vit,
        lambda m: torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=0.05),
        None,
    ),
}


def main(folder):
    manifest = json.load(open(f"{folder}/manifest.json"))
    name, shapes = manifest["system"], manifest["parameters"]
    make, optimizer_of, clip = SYSTEMS[name]
    model = make(shapes)
    elements = np.fromfile(f"{folder}/parameters.bin", np.float32)
    at, state = 0, {}
    for key, shape in shapes.items():
        size = int(np.prod(shape))
        state[key] = torch.from_numpy(elements[at : at + size].reshape(shape).copy())
        at += size
    model.load_state_dict(state)

    def batches(part, sizes):
        data = np.fromfile(f"{folder}/{part}.bin", np.uint8)
        begin, found = 0, {}
        for key, stored in manifest[part].items():
            count, each = stored["shape"]
            values = data[begin : begin + 4 * count * each].view(stored["dtype"])
            begin += 4 * count * each
            tensor = torch.from_numpy(values.reshape([count, *sizes[key]]).copy())
            found[key] = tensor if stored["dtype"] == "float32" else tensor.long()
        return [dict(zip(found, row)) for row in zip(*found.values())]

    is_translation = name in ("translation", "dates")
    target_name = "next" if is_translation else "targets"

    def loss_of(batch):
        given = dict(batch)
        targets = given.pop(target_name).flatten()
        logits = model(**given).flatten(0, -2)
        ignored = 0 if is_translation else -100
        return F.cross_entropy(logits, targets, ignore_index=ignored), logits, targets

    optimizer = optimizer_of(model)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses, started = [], time.time()
    for step, batch in enumerate(batches("train", manifest["shapes"])):
        if name == "gpt":
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * gpt_rate(step)
        optimizer.zero_grad()
        loss, _, _ = loss_of(batch)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    seconds = time.time() - started
    model.eval()
    total, right, count, tests = 0.0, 0, 0, batches("test", manifest["testShapes"])
    with torch.no_grad():
        for batch in tests:
            loss, logits, targets = loss_of(batch)
            total += loss.item() / len(tests)
            kept = targets != 0 if is_translation else targets >= 0
            right += int(((logits.argmax(1) == targets) & kept).sum())
            count += int(kept.sum())
    first, last = losses[0], sum(losses[-10:]) / len(losses[-10:])
    print(
        f"{name}: first loss {first:.6f}, last 10 {last:.4f}, test loss {total:.4f}, "
        f"accuracy {right / count:.4f}, {seconds:.1f} s"
    )


main(sys.argv[1])
