#!/usr/bin/env python3
"""Checks that PEFT loads an adapter that `fedtune run` wrote, and computes the logits that the trainer computes.

Must not trust a load that only warns: a head that was drawn anew gives logits too.

    check_adapter.py BASE ADAPTER

BASE is the base model, a Hugging Face folder, a GGUF file or a folder with one; ADAPTER is `out/<run>/adapter`. The
logits of the trainer come from its example `adapter_logits`, F32 on the CPU. Prints the largest difference; the exit
code is 1 where it is above 1e-4 or where a tensor was not loaded. Needs torch, transformers and peft, and cargo.
"""

import json
import random
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
# Tokens of each row: one alone, full rows, and padding of every kind between them.
LENGTHS = (1, 2, 31, 16, 5, 32, 9, 32)


def main(base, adapter):
    # Its report of missing keys is read below, and no bar is worth a line in a log.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = json.loads((adapter / "config.json").read_text())
    model = with_adapter(load_base(base, config), adapter)
    rows = draw_rows(model.config)
    expected, found = logits_of_peft(model, rows), logits_of_trainer(base, adapter, rows)
    if found.shape != expected.shape:
        sys.exit(f"the trainer's logits have shape {list(found.shape)}, PEFT's {list(expected.shape)}")
    difference = (found - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(f"{adapter}: logits up to {largest:.4g} differ by at most {difference:.3g} over {len(rows)} rows")
    # A comparison with NaN is false, so the question is asked this way round.
    if not difference <= TOLERANCE:
        sys.exit(f"the largest difference may be {TOLERANCE}")


def load_base(base, config):
    """The base in F32, a classifier with a head of the adapter's labels; the head alone may be missing in the file."""
    folder = base.parent if base.is_file() else base
    gguf = [base] if base.is_file() else [] if (base / "config.json").exists() else list(base.glob("*.gguf"))
    labels = {}
    if "id2label" in config:
        id2label = {int(label): name for label, name in config["id2label"].items()}
        labels = {"id2label": id2label, "label2id": config["label2id"]}
    family = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    model, loaded = family.from_pretrained(
        folder,
        **({"gguf_file": gguf[0].name} if gguf else {}),
        **labels,
        pad_token_id=config["pad_token_id"],
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    if type(model).__name__ != config["architectures"][0]:
        sys.exit(f"config.json names {config['architectures'][0]}, the base makes a {type(model).__name__}")
    body = [name for name in loaded["missing_keys"] if name.startswith(model.base_model_prefix + ".")]
    if body or loaded["mismatched_keys"]:
        sys.exit(f"the base lacks {body}, and other shapes have {loaded['mismatched_keys']}")
    return model


def with_adapter(base, adapter):
    """The base with the adapter on it, every tensor of the file in its place and none drawn anew."""
    with warnings.catch_warnings():
        # PEFT only warns of what it did not find; what its libraries will rename one day is not meant.
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(base, adapter).eval()
    file = load_file(adapter / "adapter_model.safetensors")
    live = {file_name(name): tensor for name, tensor in model.state_dict().items() if is_trained(name)}
    wrong = sorted(live.keys() ^ file.keys()) or [n for n in file if not torch.equal(live[n], file[n])]
    if wrong:
        sys.exit(f"not loaded as the file has them: {wrong}")
    if not any(tensor.any() for name, tensor in file.items() if ".lora_B." in name):
        sys.exit("every lora_B is zero: this adapter was never trained, and would pass with any scale")
    print(f"PEFT loaded {len(file)} tensors, {sum(t.numel() for t in file.values()):,} parameters")
    return model


def is_trained(name):
    return ".lora_" in name or ".modules_to_save." in name


def file_name(name):
    """A live tensor's name in the file: without the name of the adapter, `default`, and the wrapper of the head."""
    return name.replace(".modules_to_save.default.", ".").replace(".default.", ".")


def draw_rows(config):
    draw = random.Random(0)
    vocabulary = [token for token in range(config.vocab_size) if token != config.pad_token_id]
    return [draw.choices(vocabulary, k=length) for length in LENGTHS]


def logits_of_peft(model, rows):
    longest, pad = max(map(len, rows)), model.config.pad_token_id
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    # A language model gives logits at each token; those after the last one are compared.
    return logits if logits.dim() == 2 else logits[torch.arange(len(rows)), mask.sum(1) - 1]


def logits_of_trainer(base, adapter, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rows, file)
        file.flush()
        command = ["cargo", "run", "--quiet", "-p", "fedtune", "--example", "adapter_logits", "--"]
        arguments = [base.resolve(), adapter.resolve(), file.name]
        run = subprocess.run([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    if run.returncode != 0:
        sys.exit(f"the trainer gave no logits, see above; exit code {run.returncode}")
    return torch.tensor(json.loads(run.stdout))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
