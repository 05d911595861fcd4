"""MiniLM and GPT-2 in bare PyTorch with LoRA: tensors and functions, no transformers and no PEFT.

Blocks can be run as ranges, so that a model can be cut.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

import common


class Lora(nn.Module):
    """A frozen linear layer with a trained pair beside it."""

    def __init__(self, weight, bias, rank=8, alpha=16):
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, alpha / rank
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up) * self.scale


class Frozen(nn.Module):
    """A linear layer that stays."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


def attend(q, k, v, heads, causal, mask):
    rows, length, width = q.shape
    q, k, v = (x.view(rows, length, heads, width // heads).transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    return mixed.transpose(1, 2).reshape(rows, length, width)


class Model(nn.Module):
    """Embedding, blocks that can be run in ranges, and a trained classifier."""

    def loss(self, batch):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return self.read(self.run(self.embed(ids), mask, 0, len(self.blocks)), mask, batch["labels"])

    def run(self, x, mask, first, end):
        seen = self.visible(mask)
        for block in self.blocks[first:end]:
            x = self.block(block, x, seen)
        return x

    def trained(self, first, end):
        """What is trained of some blocks."""
        return [parameter for block in self.blocks[first:end] for parameter in block.parameters()]


class Bert(Model):
    def __init__(self, weights, heads=12):
        super().__init__()
        self.heads, self.weights = heads, weights
        self.blocks = nn.ModuleList()
        for index in range(6):
            of = lambda part: (self.of(index, f"{part}.weight"), self.of(index, f"{part}.bias"))
            self.blocks.append(nn.ModuleDict({
                "query": Lora(*of("attention.self.query")), "key": Frozen(*of("attention.self.key")),
                "value": Lora(*of("attention.self.value")), "output": Frozen(*of("attention.output.dense")),
                "up": Frozen(*of("intermediate.dense")), "down": Frozen(*of("output.dense")),
            }))
            self.blocks[-1].index = index
        self.classifier = nn.Linear(384, common.LABELS)

    def of(self, block, name):
        return self.weights[f"encoder.layer.{block}.{name}"]

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-12)

    def embed(self, ids):
        tables = [self.weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
        x = F.embedding(ids, tables[0]) + tables[1][: ids.shape[1]] + tables[2][0]
        return self.norm(x, "embeddings.LayerNorm")

    def visible(self, mask):
        return None if bool(mask.all()) else mask[:, None, None, :].bool()

    def block(self, block, x, seen):
        name = f"encoder.layer.{block.index}"
        mixed = attend(block["query"](x), block["key"](x), block["value"](x), self.heads, False, seen)
        x = self.norm(x + block["output"](mixed), f"{name}.attention.output.LayerNorm")
        return self.norm(x + block["down"](F.gelu(block["up"](x))), f"{name}.output.LayerNorm")

    def read(self, x, mask, labels):
        pooled = F.linear(x[:, 0], self.weights["pooler.dense.weight"], self.weights["pooler.dense.bias"]).tanh()
        return F.cross_entropy(self.classifier(pooled).float(), labels)


class Gpt2(Model):
    def __init__(self, weights, heads=12):
        super().__init__()
        self.heads, self.weights = heads, weights
        self.blocks = nn.ModuleList()
        for index in range(12):
            of = lambda part: (self.of(index, f"{part}.weight").t(), self.of(index, f"{part}.bias"))
            self.blocks.append(nn.ModuleDict({
                "mixed": Lora(*of("attn.c_attn")), "output": Frozen(*of("attn.c_proj")),
                "up": Frozen(*of("mlp.c_fc")), "down": Frozen(*of("mlp.c_proj")),
            }))
            self.blocks[-1].index = index
        self.classifier = nn.Linear(768, common.LABELS, bias=False)

    def of(self, block, name):
        return self.weights[f"transformer.h.{block}.{name}"]

    def norm(self, x, name):
        weight, bias = (self.weights[f"transformer.{name}.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)

    def embed(self, ids):
        words, places = self.weights["transformer.wte.weight"], self.weights["transformer.wpe.weight"]
        return F.embedding(ids, words) + places[: ids.shape[1]]

    def visible(self, mask):
        if bool(mask.all()):
            return None
        length = mask.shape[1]
        past = torch.ones(length, length, dtype=torch.bool).tril()
        return past[None, None] & mask[:, None, None, :].bool()

    def block(self, block, x, seen):
        q, k, v = block["mixed"](self.norm(x, f"h.{block.index}.ln_1")).split(x.shape[-1], 2)
        x = x + block["output"](attend(q, k, v, self.heads, True, seen))
        inner = F.gelu(block["up"](self.norm(x, f"h.{block.index}.ln_2")), approximate="tanh")
        return x + block["down"](inner)

    def read(self, x, mask, labels):
        last = x[torch.arange(x.shape[0]), mask.sum(1) - 1]
        return F.cross_entropy(self.classifier(self.norm(last, "ln_f")).float(), labels)


def load(name, precision="F32"):
    from safetensors.torch import load_file

    folder = common.MODELS / name if name == "minilm" else common.SCRATCH / name
    weights = load_file(folder / "model.safetensors")
    if precision == "BF16":
        weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    return {"minilm": Bert, "gpt2": Gpt2}[name](weights)
