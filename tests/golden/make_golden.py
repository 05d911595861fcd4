#!/usr/bin/env python3
"""Makes the golden vectors that the trainer's tests compare with, by transformers, PEFT and PyTorch.

Needs torch, transformers, peft, gguf and safetensors, and the models that `make setup` brings. Run from anywhere:
    python tests/golden/make_golden.py
Every figure is seeded; running it again with the same libraries writes the same numbers.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1] / ".cache" / "models"
LABELS = 3


def tiny_bert():
    config = BertConfig(
        vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=16, pad_token_id=0, num_labels=LABELS, initializer_range=0.3,
    )
    return BertForSequenceClassification(config)


def tiny_llama(**changes):
    settings = dict(
        vocab_size=61, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=40, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        num_labels=LABELS, initializer_range=0.3, tie_word_embeddings=True, rms_norm_eps=1e-5,
    )
    return LlamaForSequenceClassification(LlamaConfig(**(settings | changes)))


def jitter(model):
    """Norms start at one and biases at zero, where a mistake would not show."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)


def save_base(model, folder, **options):
    base = getattr(model, model.base_model_prefix)
    # The configuration of a plain base model: the trainer brings its own head.
    base.save_pretrained(HERE / folder, **options)
    (HERE / folder / "generation_config.json").unlink(missing_ok=True)


def batch(vocab, lengths, side="right"):
    seq = max(lengths)
    ids, mask = torch.zeros(len(lengths), seq, dtype=torch.int64), torch.zeros(len(lengths), seq, dtype=torch.int64)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(seq - length, seq)
        ids[row, place] = torch.randint(3, vocab, (length,))
        mask[row, place] = 1
    return ids, mask


def peft_name(name):
    name = name.removeprefix("base_model.model.").replace(".default", "").replace(".modules_to_save", "")
    return name


def run(model, ids, mask):
    inputs = dict(input_ids=ids, attention_mask=mask)
    if model.config.model_type == "llama":
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return model(**inputs).logits


def lora_case(name, model, folder, lengths, targets, rank, alpha, rs_lora=False, side="right"):
    """Logits, loss and gradients of a tiny model with a random, non-zero adapter."""
    head = "classifier" if model.config.model_type == "bert" else "score"
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=alpha, lora_dropout=0.0, use_rslora=rs_lora,
        target_modules=targets if targets != ["all-linear"] else "all-linear", modules_to_save=[head],
    )
    peft = get_peft_model(model, lora).eval()
    trained = {peft_name(n): p for n, p in peft.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = 0.3 * torch.randn_like(parameter)
    ids, mask = batch(model.config.vocab_size, lengths, side)
    labels = torch.arange(len(lengths)) % LABELS
    logits = run(peft, ids, mask)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {"ids": ids, "mask": mask, "labels": labels, "logits": logits.detach(), "loss": loss.detach()[None]}
    tensors |= {f"value.{n}": p.detach() for n, p in trained.items()}
    tensors |= {f"gradient.{n}": p.grad for n, p in trained.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{name}.safetensors")
    return {
        "name": name, "model": folder, "rank": rank, "alpha": alpha, "rsLora": rs_lora, "targets": targets,
        "order": list(trained),
    }


def tiny_cases():
    cases = []
    qv_bert, qv_llama = ["query", "value"], ["q_proj", "v_proj"]

    def bert():
        model = BertForSequenceClassification.from_pretrained(HERE / "tiny-bert", num_labels=LABELS, attn_implementation="eager")
        return model

    def llama(folder):
        return LlamaForSequenceClassification.from_pretrained(
            HERE / folder, num_labels=LABELS, attn_implementation="eager", dtype=torch.float32
        )

    torch.manual_seed(1)
    model = tiny_bert()
    jitter(model)
    save_base(model, "tiny-bert")
    torch.manual_seed(2)
    model = tiny_llama(rope_parameters=dict(
        rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64,
    ))
    jitter(model)
    save_base(model, "tiny-llama")
    torch.manual_seed(3)
    # Untied, sharded, BF16, with biases and another way to stretch positions.
    model = tiny_llama(
        tie_word_embeddings=False, num_key_value_heads=4, attention_bias=True, mlp_bias=True,
        rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.0),
    )
    jitter(model)
    save_base(model.to(torch.bfloat16), "tiny-llama-sharded", max_shard_size="20KB")

    torch.manual_seed(4)
    cases.append(lora_case("bert-query-value", bert(), "tiny-bert", [7, 4, 9, 1], qv_bert, 2, 4))
    cases.append(lora_case("bert-all-linear", bert(), "tiny-bert", [5, 8], ["all-linear"], 2, 3, rs_lora=True))
    cases.append(lora_case("llama-query-value", llama("tiny-llama"), "tiny-llama", [7, 4, 9, 1], qv_llama, 2, 4))
    cases.append(lora_case("llama-left-padded", llama("tiny-llama"), "tiny-llama", [3, 8], qv_llama, 2, 4, side="left"))
    cases.append(lora_case("llama-all-linear", llama("tiny-llama"), "tiny-llama", [5, 8], ["all-linear"], 2, 3, rs_lora=True))
    cases.append(lora_case(
        "llama-sharded-down", llama("tiny-llama-sharded"), "tiny-llama-sharded", [6, 3], ["down_proj", "o_proj"], 1, 2))
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


def real_case(name, model, lengths):
    """Logits of a real model with a fixed head and no adapter."""
    head = model.classifier if model.config.model_type == "bert" else model.score
    torch.manual_seed(5)
    for parameter in head.parameters():
        parameter.data = torch.randn_like(parameter)
    vocab = model.config.vocab_size
    ids, mask = batch(vocab, lengths)
    model.config.pad_token_id = 0
    with torch.no_grad():
        logits = run(model.eval(), ids, mask)
    tensors = {"ids": ids, "mask": mask, "logits": logits} | {f"head.{n}": p.detach() for n, p in head.named_parameters()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{name}.safetensors")


def load_minilm():
    return BertForSequenceClassification.from_pretrained(
        MODELS / "minilm", num_labels=LABELS, attn_implementation="eager", dtype=torch.float32
    )


def load_smollm2():
    (file,) = (MODELS / "smollm2").glob("*.gguf")
    return AutoModelForSequenceClassification.from_pretrained(
        MODELS / "smollm2", gguf_file=file.name, num_labels=LABELS, attn_implementation="eager", dtype=torch.float32
    )


def kd_case():
    """PyTorch's distillation loss, with and without labels, over unmasked rows."""
    torch.manual_seed(6)
    rows, classes = 6, 5
    cases = []
    for temperature, share in [(1.0, 1.0), (2.0, 1.0), (3.5, 0.4), (2.0, 0.0)]:
        student = (2 * torch.randn(rows, classes)).requires_grad_()
        teacher = 2 * torch.randn(rows, classes)
        labels = torch.randint(0, classes, (rows,))
        mask = torch.tensor([True, True, False, True, False, True])
        kl = F.kl_div(
            F.log_softmax(student[mask] / temperature, -1), F.softmax(teacher[mask] / temperature, -1),
            reduction="batchmean",
        ) * temperature**2
        loss = (1 - share) * F.cross_entropy(student[mask], labels[mask]) + share * kl
        loss.backward()
        cases.append({
            "temperature": temperature, "lambda": share, "student": student.detach().tolist(),
            "teacher": teacher.tolist(), "labels": labels.tolist(), "mask": mask.tolist(), "loss": loss.item(),
            "kl": kl.item(), "gradient": student.grad.tolist(),
        })
    (HERE / "kd_loss.json").write_text(json.dumps(cases) + "\n")


def count(work):
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops()


def flop_figures(name, model, cuts, targets):
    """FLOPs of a model with LoRA on some layers: whole, and each half of it."""
    bert = model.config.model_type == "bert"
    head = "classifier" if bert else "score"
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=targets, modules_to_save=[head])
    model.config.pad_token_id = 0
    peft = get_peft_model(model, lora).eval()
    inner = peft.base_model.model
    rows, seq = 2, 48
    ids = torch.full((rows, seq), 5)
    mask = torch.ones_like(ids)

    def blocks(hidden, chosen):
        if bert:
            for layer in inner.bert.encoder.layer[chosen]:
                hidden = layer(hidden, None)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return hidden
        positions = inner.model.rotary_emb(hidden, torch.arange(seq)[None])
        for layer in inner.model.layers[chosen]:
            hidden = layer(hidden, attention_mask=None, position_embeddings=positions)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden

    def front(cut):
        embedded = inner.bert.embeddings(ids) if bert else inner.model.embed_tokens(ids)
        return blocks(embedded, slice(0, cut))

    def back(cut, hidden):
        hidden = blocks(hidden, slice(cut, None))
        return inner.classifier(inner.bert.pooler(hidden)) if bert else inner.score(inner.model.norm(hidden)[:, -1])

    def backward(value):
        if value.requires_grad:
            value.sum().backward()

    figures = {"model": name, "batch": rows, "seq": seq, "rank": 8, "labels": LABELS, "targets": targets}
    with torch.no_grad():
        figures["forward"] = count(lambda: peft(input_ids=ids, attention_mask=mask))
    figures["train"] = count(lambda: backward(peft(input_ids=ids, attention_mask=mask).logits))
    figures["cuts"] = []
    for cut in cuts:
        hidden = front(cut).detach()
        leaf = hidden.clone().requires_grad_()
        with torch.no_grad():
            front_forward, back_forward = count(lambda: front(cut)), count(lambda: back(cut, hidden))
        figures["cuts"].append({
            "cutLayer": cut, "frontForward": front_forward, "backForward": back_forward,
            "frontTrain": count(lambda: backward(front(cut))), "backTrain": count(lambda: backward(back(cut, leaf))),
        })
    return figures


def main():
    tiny_cases()
    kd_case()
    real_case("minilm", load_minilm(), [11, 6, 16])
    real_case("smollm2", load_smollm2(), [9, 14])
    figures = [
        flop_figures("minilm", load_minilm(), [0, 1, 2, 6], ["query", "value"]),
        flop_figures("minilm", load_minilm(), [1], ["key", "output.dense"]),
        flop_figures("smollm2", load_smollm2(), [0, 1, 15, 30], ["q_proj", "v_proj"]),
        flop_figures("smollm2", load_smollm2(), [1], ["down_proj"]),
    ]
    (HERE / "flops.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
