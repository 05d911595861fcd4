"""What all peers share: arguments, made-up batches, models with LoRA, the line of JSON.

The work is that of `fedtune-bench work`: the same shapes, lengths, threads and optimizer, no dropout on either side.
"""
import argparse
import contextlib
import json
import os
import resource
import statistics
import time
from pathlib import Path

LABELS = 77
SHORTEST = 4  # tokens of the first entry of banking77.in
MODELS = Path(os.environ.get("FEDTUNE_BENCH_MODELS", ".cache/models"))
SCRATCH = Path(os.environ.get("FEDTUNE_BENCH_SCRATCH", ".cache/bench"))
TARGETS = {"minilm": ["query", "value"], "gpt2": ["c_attn"], "smollm2": ["q_proj", "v_proj"]}
VOCAB = {"minilm": 30_522, "gpt2": 50_256, "smollm2": 49_152}

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def step_arguments():
    """The arguments of `fedtune-bench work step`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=list(TARGETS), default="minilm")
    parser.add_argument("--precision", choices=["F32", "BF16"], default="F32")
    parser.add_argument("--lengths", choices=["full", "banking77"], default="full")
    for name, value in [("threads", 2), ("batch", 16), ("seq", 64), ("steps", 12), ("warmup", 3), ("cut", 2)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def job_arguments():
    """The arguments of `fedtune-bench work job`."""
    parser = argparse.ArgumentParser()
    numbers = [("clients", 4), ("rounds", 3), ("local-steps", 5), ("batch", 16), ("seq", 64), ("threads", 2)]
    for name, value in numbers:
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


def is_language(model):
    return model == "smollm2"


def draw_lengths(count, most, generator):
    """Lengths as Banking77 has them."""
    import torch

    table = (Path(__file__).parent.parent / "src/work/banking77.in").read_text()
    counts = torch.tensor(json.loads(table.replace("\n", "").replace(",]", "]")), dtype=torch.float)
    drawn = torch.multinomial(counts, count, replacement=True, generator=generator) + SHORTEST
    return drawn.clamp(max=most).tolist()


def batches(model, batch, seq, count, seed=0, lengths="full"):
    """Random tokens with labels; of unlike lengths they are padded to the longest of their batch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        rows = [seq] * batch if lengths == "full" else draw_lengths(batch, seq, generator)
        longest = max(rows)
        ids = torch.randint(5, VOCAB[model], (batch, longest), generator=generator)
        mask = (torch.arange(longest)[None, :] < torch.tensor(rows)[:, None]).long()
        ids = ids * mask
        labels = ids.clone() if is_language(model) else torch.randint(0, LABELS, (batch,), generator=generator)
        made.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return made


def peft_model(name, precision="F32", attention=None):
    """The model as transformers and PEFT have it, with LoRA of rank 8 and no dropout."""
    import torch
    import transformers
    from peft import LoraConfig, TaskType, get_peft_model

    transformers.logging.set_verbosity_error()
    options = {"attn_implementation": attention} if attention else {}
    if name == "smollm2":
        # The shape of SmolLM2-135M with random weights: a step takes as long with any.
        config = transformers.LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=True,
            use_cache=False,
        )
        base = transformers.AutoModelForCausalLM.from_config(config, **options)
        task = TaskType.CAUSAL_LM
    else:
        folder = MODELS / name if name == "minilm" else SCRATCH / name
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        if name == "gpt2":
            still = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=LABELS, local_files_only=True, **still, **options
        )
        task = TaskType.SEQ_CLS
    lora = LoraConfig(
        task_type=task, r=8, lora_alpha=16, lora_dropout=0.0, target_modules=TARGETS[name],
        fan_in_fan_out=name == "gpt2",
    )
    model = get_peft_model(base, lora)
    if precision == "BF16":
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    model.train()
    return model


def autocast(precision):
    import torch

    if precision == "BF16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def train_step(loss_of, optimizer, batch, precision):
    """One step; gives its loss, and the seconds and CPU seconds that it took."""
    started, cpu = time.perf_counter(), time.process_time()
    with autocast(precision):
        loss = loss_of(batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach()), time.perf_counter() - started, time.process_time() - cpu


def timed_steps(arguments, loss_of, parameters):
    """Warm-up, then steps; gives what `fedtune-bench work step` says."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    count = min(arguments.warmup + arguments.steps, 64)
    data = batches(arguments.model, arguments.batch, arguments.seq, count, lengths=arguments.lengths)
    each, each_cpu = [], []
    for index in range(arguments.warmup + arguments.steps):
        loss, seconds, cpu = train_step(loss_of, optimizer, data[index % count], arguments.precision)
        if index >= arguments.warmup:
            each.append(seconds)
            each_cpu.append(cpu)
    return {
        "seconds": statistics.median(each),
        "cpuSeconds": statistics.fmean(each_cpu),
        "examplesPerSecond": len(each) * arguments.batch / sum(each),
        "trained": sum(parameter.numel() for parameter in parameters),
        "loss": loss,
        "each": each,
        "sinceStart": seconds_since_start(),
    }


def seconds_since_start():
    """Since `fedtune-bench` started this process; nothing where somebody else did."""
    started = os.environ.get("FEDTUNE_BENCH_STARTED")
    return time.time() - float(started) if started else None


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def say(figures):
    import importlib.metadata

    versions = {}
    for package in ("torch", "transformers", "peft", "flwr"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    print(json.dumps({**figures, "peakBytes": peak_bytes(), "versions": versions}), flush=True)
