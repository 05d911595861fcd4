#!/usr/bin/env python3
"""Makes the golden vectors that the trainer's tests compare with, by transformers, PEFT and PyTorch.

Needs torch, transformers, peft, gguf and safetensors, and the models that `make setup` brings. Run from anywhere:
    python tests/golden/make_golden.py
Every figure is seeded; running it again with the same libraries writes the same numbers.
"""

import json
import warnings
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
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
    save(base, folder, **options)


def save(model, folder, **options):
    model.save_pretrained(HERE / folder, **options)
    (HERE / folder / "generation_config.json").unlink(missing_ok=True)
    # Another version of transformers writes the same otherwise.
    file = HERE / folder / "config.json"
    config = json.loads(file.read_text())
    del config["transformers_version"]
    file.write_text(json.dumps(config, indent=2) + "\n")


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
    return model(**model_inputs(model, ids, mask)).logits


def model_inputs(model, ids, mask):
    inputs = dict(input_ids=ids, attention_mask=mask)
    if model.config.model_type != "bert":
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return inputs


def lora_config(model, task, targets, **settings):
    head = "classifier" if model.config.model_type == "bert" else "score"
    return LoraConfig(
        task_type=task, lora_dropout=0.0, target_modules=targets if targets != ["all-linear"] else "all-linear",
        modules_to_save=[head] if task == TaskType.SEQ_CLS else None,
        fan_in_fan_out=model.config.model_type == "gpt2", **settings,
    )


def draw_adapter(peft):
    """A random adapter that is nowhere zero; its trained tensors by their names."""
    trained = {peft_name(n): p for n, p in peft.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return trained


def lora_case(name, model, folder, lengths, targets, rank, alpha, rs_lora=False, side="right"):
    """Logits, loss and gradients of a tiny model with a random, non-zero adapter."""
    lora = lora_config(model, TaskType.SEQ_CLS, targets, r=rank, lora_alpha=alpha, use_rslora=rs_lora)
    peft = get_peft_model(model, lora).eval()
    trained = draw_adapter(peft)
    ids, mask = batch(model.config.vocab_size, lengths, side)
    labels = torch.arange(len(lengths)) % LABELS
    logits = run(peft, ids, mask)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    tensors = {"ids": ids, "mask": mask, "labels": labels, "logits": logits.detach(), "loss": loss.detach()[None]}
    save_case(name, tensors, trained)
    return {
        "name": name, "model": folder, "rank": rank, "alpha": alpha, "rsLora": rs_lora, "targets": targets,
        "order": list(trained),
    }


def save_case(name, tensors, trained):
    tensors |= {f"value.{n}": p.detach() for n, p in trained.items()}
    tensors |= {f"gradient.{n}": p.grad for n, p in trained.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{name}.safetensors")


def language_case(name, folder, lengths, targets, rank, alpha, side="right"):
    """transformers' own loss of a causal language model, said the last half of each row and nothing of the second."""
    model = AutoModelForCausalLM.from_pretrained(HERE / folder, attn_implementation="eager", dtype=torch.float32)
    lora = lora_config(model, TaskType.CAUSAL_LM, targets, r=rank, lora_alpha=alpha)
    peft = get_peft_model(model, lora).eval()
    trained = draw_adapter(peft)
    ids, mask = batch(model.config.vocab_size, lengths, side)
    said = (mask.cumsum(1) * mask) > torch.tensor(lengths)[:, None] // 2
    said[1] = False
    labels = ids.masked_fill(~said, -100)
    answer = peft(**model_inputs(model, ids, mask), labels=labels)
    answer.loss.backward()
    # Place t of a row says its token t + 1.
    next_said = F.pad(said[:, 1:], (0, 1))
    places = next_said.flatten().nonzero()[:, 0]
    targets_said = ids.roll(-1, 1).flatten()[places]
    tensors = {
        "ids": ids, "mask": mask, "places": places, "labels": targets_said, "loss": answer.loss.detach()[None],
        "logits": answer.logits.detach().flatten(0, 1)[places],
    }
    save_case(name, tensors, trained)
    return {
        "name": name, "model": folder, "rank": rank, "alpha": alpha, "rsLora": False, "targets": targets,
        "order": list(trained), "language": True,
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
    return cases


def more_tiny_models():
    """Language models whole: their layer over the vocabulary is in the file, tied to the embedding or not."""
    sizes = dict(
        vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3, rms_norm_eps=1e-5,
    )
    torch.manual_seed(7)
    for folder, model in [
        ("tiny-llama-untied", LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=False))),
        ("tiny-mistral", MistralForCausalLM(MistralConfig(
            **sizes, head_dim=10, sliding_window=4, tie_word_embeddings=False))),
        ("tiny-qwen2", Qwen2ForCausalLM(Qwen2Config(
            **sizes, tie_word_embeddings=True, use_sliding_window=False, sliding_window=4, max_window_layers=1))),
    ]:
        jitter(model)
        save(model, folder)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=61, n_positions=24, n_embd=24, n_layer=2, n_head=3, n_inner=40, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    ))
    jitter(model)
    # As on the hub: without the head, names without the first part.
    save_base(model, "tiny-gpt2")


def more_tiny_cases():
    def classifier(folder):
        return AutoModelForSequenceClassification.from_pretrained(
            HERE / folder, num_labels=LABELS, attn_implementation="eager", dtype=torch.float32
        )

    torch.manual_seed(8)
    qv = ["q_proj", "v_proj"]
    cases = [
        lora_case("gpt2-c-attn", classifier("tiny-gpt2"), "tiny-gpt2", [7, 4, 9, 1], ["c_attn"], 2, 4),
        lora_case("gpt2-all-linear", classifier("tiny-gpt2"), "tiny-gpt2", [5, 8], ["all-linear"], 2, 3, side="left"),
        lora_case("mistral-query-value", classifier("tiny-mistral"), "tiny-mistral", [9, 3], qv, 2, 4),
        lora_case("qwen2-all-linear", classifier("tiny-qwen2"), "tiny-qwen2", [6, 4], ["all-linear"], 1, 2),
    ]
    lengths = [9, 5, 2, 7]
    for name, folder, targets, side in [
        ("llama-language", "tiny-llama", qv, "right"),
        ("llama-language-left", "tiny-llama", qv, "left"),
        ("llama-untied-language", "tiny-llama-untied", ["all-linear"], "right"),
        ("gpt2-language", "tiny-gpt2", ["c_attn"], "right"),
        ("gpt2-language-left", "tiny-gpt2", ["all-linear"], "left"),
        ("mistral-language", "tiny-mistral", qv, "right"),
        ("mistral-language-left", "tiny-mistral", qv, "left"),
        ("qwen2-language", "tiny-qwen2", qv, "right"),
    ]:
        cases.append(language_case(name, folder, lengths, targets, 2, 4, side))
    return cases


def generate(model, prompts, eos, most):
    """Greedy answers to prompts of unlike lengths in one batch, each up to the token that ends it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.no_grad():
        rows = model.eval().generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=most, eos_token_id=eos, pad_token_id=0
        )[:, longest:].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def generation_cases():
    torch.manual_seed(9)
    cases = []
    for folder in ["tiny-llama", "tiny-llama-untied", "tiny-gpt2", "tiny-mistral", "tiny-qwen2"]:
        model = AutoModelForCausalLM.from_pretrained(HERE / folder, attn_implementation="eager", dtype=torch.float32)
        prompts = [torch.randint(3, 61, (length,)).tolist() for length in [6, 1, 9]]
        # A token that the first answer says, but not first, ends it here; other answers may go on.
        free = generate(model, prompts, 60, 12)
        eos = next((token for token in free[0][1:] if token != free[0][0]), free[0][0])
        cases.append({
            "model": folder, "prompts": prompts, "eos": eos, "mostTokens": 12,
            "tokens": generate(model, prompts, eos, 12),
        })
    (file,) = (MODELS / "smollm2").glob("*.gguf")
    options = dict(gguf_file=file.name, attn_implementation="eager", dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(MODELS / "smollm2", **options)
    # "The capital of France is", "1 2 3 4", and a question in the model's own chat template.
    prompts = [[504, 3575, 282, 4649, 314], [33, 216, 34, 216, 35, 216, 36], CHAT]
    cases.append({
        "model": "smollm2", "prompts": prompts, "eos": 2, "mostTokens": 24, "tokens": generate(model, prompts, 2, 24),
    })
    (HERE / "generation.json").write_text(json.dumps(cases) + "\n")


CHAT = [1, 4093, 198, 1780, 314, 260, 3575, 282, 6085, 47, 2, 198, 1, 520, 9531, 198]


def gguf_types():
    """Random blocks of each of ggml's types, with scales from zero to the largest F16, and what they stand for."""
    draw = np.random.default_rng(10)
    scales = np.array([0.0123, -3.5, 65504.0, 6e-8, 0.0, -0.00097, 1.0], dtype=np.float16)
    tensors = {}
    types = gguf.GGMLQuantizationType
    # Where in a block its F16 numbers stand.
    halves = {
        types.Q4_0: [0], types.Q4_1: [0, 2], types.Q5_0: [0], types.Q5_1: [0, 2], types.Q8_0: [0],
        types.Q2_K: [80, 82], types.Q3_K: [108], types.Q4_K: [0, 2], types.Q5_K: [0, 2], types.Q6_K: [208],
    }
    for kind, places in halves.items():
        _, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = draw.integers(0, 256, (len(scales), size), dtype=np.uint8)
        blocks[0], blocks[1] = 0xFF, 0x00
        blocks[2, ::2] = 0x80
        for number, place in enumerate(places):
            blocks[:, place : place + 2] = np.roll(scales, number).reshape(-1, 1).view(np.uint8)
        tensors[f"{kind.name}.bytes"] = blocks
        tensors[f"{kind.name}.values"] = gguf.quants.dequantize(blocks, kind)
    numbers = np.array([[0.0, -1.5, 3.14159, 65504.0, 6e-8, 1e-3, -2.0, 7.0]], dtype=np.float32)
    for kind in [types.F32, types.F16, types.BF16]:
        data = numbers.astype(np.float16) if kind == types.F16 else gguf.quants.quantize(numbers, kind)
        tensors[f"{kind.name}.bytes"] = data.view(np.uint8)
        tensors[f"{kind.name}.values"] = gguf.quants.dequantize(data, kind)
    save_file({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, HERE / "gguf_types.safetensors")


TEXTS = [
    "Hello, world! It's 2025 and we've 3 cats.",
    "  two  spaces\n\nnew   lines\r\n\tand tabs ",
    "Gr\u00fc\u00dfe, \u4e16\u754c! \U0001f680 cafe\u0301 \u00e9",
    "I'LL SAY don't; 12345 67.89 x=y+1 <|end|>more",
    "price: $1,234 (50%) -- e-mail@host ...\u00a0end",
]


def gguf_tokenizers():
    """A small byte-level vocabulary as transformers' tokenizers of GPT-2 and Qwen2 read texts with it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    trained.train_from_iterator(TEXTS * 3 + ["the world says hello and the cats say 12 234 and it's"] * 2, trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + ["<|end|>"]
    vocab = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in model["merges"]]
    special = dict(unk_token="<|end|>", bos_token="<|end|>", eos_token="<|end|>", pad_token="<|end|>")
    ids = {
        "gpt-2": GPT2Tokenizer(vocab=vocab, merges=merges, **special),
        "qwen2": Qwen2Tokenizer(vocab=vocab, merges=merges, **special),
    }
    ids = {name: [tokenizer(text)["input_ids"] for text in TEXTS] for name, tokenizer in ids.items()}
    assert ids["gpt-2"] != ids["qwen2"]
    whole = {"tokens": tokens, "merges": [" ".join(merge) for merge in merges], "texts": TEXTS, "ids": ids}
    (HERE / "gguf_tokenizers.json").write_text(json.dumps(whole, ensure_ascii=True) + "\n")


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
    bert, gpt2 = model.config.model_type == "bert", model.config.model_type == "gpt2"
    lora = lora_config(model, TaskType.SEQ_CLS, targets, r=8, lora_alpha=16)
    model.config.pad_token_id = 0
    peft = get_peft_model(model, lora).eval()
    inner = peft.base_model.model
    rows, seq = 2, min(48, model.config.max_position_embeddings)
    ids = torch.full((rows, seq), 5)
    mask = torch.ones_like(ids)

    def blocks(hidden, chosen):
        if bert:
            for layer in inner.bert.encoder.layer[chosen]:
                hidden = layer(hidden, None)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return hidden
        if gpt2:
            for layer in inner.transformer.h[chosen]:
                hidden = layer(hidden, attention_mask=None)
                hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            return hidden
        positions = inner.model.rotary_emb(hidden, torch.arange(seq)[None])
        for layer in inner.model.layers[chosen]:
            hidden = layer(hidden, attention_mask=None, position_embeddings=positions)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden

    def front(cut):
        if gpt2:
            embedded = inner.transformer.wte(ids) + inner.transformer.wpe(torch.arange(seq))
        else:
            embedded = inner.bert.embeddings(ids) if bert else inner.model.embed_tokens(ids)
        return blocks(embedded, slice(0, cut))

    def back(cut, hidden):
        hidden = blocks(hidden, slice(cut, None))
        if gpt2:
            return inner.score(inner.transformer.ln_f(hidden)[:, -1])
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
    # Blocks run once more in backward, whole: the library would stop at the last tensor that it needs.
    peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # The library has the embedding ask for a gradient that nobody reads.
    inner.disable_input_require_grads()
    with set_checkpoint_early_stop(False):
        figures["checkpointedTrain"] = count(lambda: backward(peft.train()(input_ids=ids, attention_mask=mask).logits))
    return figures


def load_tiny(folder):
    return AutoModelForSequenceClassification.from_pretrained(
        HERE / folder, num_labels=LABELS, attn_implementation="eager", dtype=torch.float32
    )


def all_flop_figures():
    figures = [
        flop_figures("minilm", load_minilm(), [0, 1, 2, 6], ["query", "value"]),
        flop_figures("minilm", load_minilm(), [1], ["key", "output.dense"]),
        flop_figures("smollm2", load_smollm2(), [0, 1, 15, 30], ["q_proj", "v_proj"]),
        flop_figures("smollm2", load_smollm2(), [1], ["down_proj"]),
        flop_figures("tiny-gpt2", load_tiny("tiny-gpt2"), [0, 1, 2], ["c_attn"]),
        flop_figures("tiny-gpt2", load_tiny("tiny-gpt2"), [1], ["attn.c_proj", "c_fc"]),
    ]
    (HERE / "flops.json").write_text(json.dumps(figures, indent=1) + "\n")


def main():
    warnings.simplefilter("ignore")
    cases = tiny_cases()
    more_tiny_models()
    cases += more_tiny_cases()
    (HERE / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    gguf_types()
    gguf_tokenizers()
    generation_cases()
    kd_case()
    real_case("minilm", load_minilm(), [11, 6, 16])
    real_case("smollm2", load_smollm2(), [9, 14])
    all_flop_figures()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
