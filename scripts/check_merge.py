#!/usr/bin/env python3
"""Checks that transformers loads what `fedtune merge` wrote, and that it computes what base and adapter compute.

Must not trust a load that only warns: a tensor that was drawn anew gives logits too.

    check_merge.py BASE ADAPTER MERGED

BASE is the base model, a Hugging Face folder, a GGUF file or a folder with one; ADAPTER is `out/<run>/adapter`; MERGED
is the folder that `fedtune merge` wrote. All are computed in F32 on the CPU. Prints the largest difference of logits;
the exit code is 1 where it is above the tolerance, 1e-4 for merged weights in F32 and, for BF16, 5 % of the largest
logit, or where a tensor was not loaded. Needs torch, transformers and peft.
"""

import json
import random
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

# Tokens of each row: one alone, full rows, and padding of every kind between them.
LENGTHS = (1, 2, 31, 16, 5, 32, 9, 32)


def main(base, adapter, merged):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    language = json.loads((adapter / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"
    maker = AutoModelForCausalLM if language else AutoModelForSequenceClassification
    found = load_merged(maker, merged)
    config = json.loads((adapter / "config.json").read_text())
    expected = with_adapter(load_base(maker, base, config, language), adapter)
    rows = draw_rows(found.config)
    ours, theirs = logits(found, rows), logits(expected, rows)
    difference, largest = (ours - theirs).abs().max().item(), theirs.abs().max().item()
    precision = json.loads((merged / "config.json").read_text())["torch_dtype"]
    tolerance = 1e-4 if precision == "float32" else 0.05 * largest
    print(f"{merged}, {precision}: logits up to {largest:.4g} differ by at most {difference:.3g}, allowed is {tolerance:.3g}")
    # A comparison with NaN is false, so the question is asked this way round.
    if not difference <= tolerance:
        sys.exit(1)
    tokenizer = AutoTokenizer.from_pretrained(merged)
    if tokenizer.decode(tokenizer("some words").input_ids, skip_special_tokens=True).strip() != "some words":
        sys.exit("the tokenizer does not give a text back")
    print(f"its tokenizer has {len(tokenizer)} tokens")


def load_merged(maker, merged):
    model, loaded = maker.from_pretrained(
        merged, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    wrong = {key: loaded[key] for key in ("missing_keys", "mismatched_keys", "unexpected_keys") if loaded[key]}
    if wrong:
        sys.exit(f"transformers says of the merged model: {wrong}")
    print(f"transformers loaded a {type(model).__name__} with labels {model.config.id2label}")
    return model.eval()


def load_base(maker, base, config, language):
    folder = base.parent if base.is_file() else base
    gguf = [base] if base.is_file() else [] if (base / "config.json").exists() else list(base.glob("*.gguf"))
    head = {} if language else {
        "id2label": {int(label): name for label, name in config["id2label"].items()},
        "label2id": config["label2id"],
        "pad_token_id": config["pad_token_id"],
    }
    source = {"gguf_file": gguf[0].name} if gguf else {}
    return maker.from_pretrained(folder, **source, **head, dtype=torch.float32, attn_implementation="eager")


def with_adapter(base, adapter):
    with warnings.catch_warnings():
        # PEFT only warns of what it did not find; what its libraries will rename one day is not meant.
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(base, adapter).eval()
    if not any(tensor.any() for name, tensor in model.state_dict().items() if ".lora_B." in name):
        sys.exit("every lora_B is zero: this adapter was never trained, and would pass unmerged")
    return model


def draw_rows(config):
    draw = random.Random(0)
    vocabulary = [token for token in range(config.vocab_size) if token != config.pad_token_id]
    return [draw.choices(vocabulary, k=length) for length in LENGTHS]


def logits(model, rows):
    longest, pad = max(map(len, rows)), model.config.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).logits
    # A language model's logits of padding mean nothing.
    return found[mask.bool()] if found.dim() == 3 else found


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
