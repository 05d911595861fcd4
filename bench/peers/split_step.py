"""A split step in one process: the client's blocks, the server's blocks and their backward, handed over as tensors."""
import statistics
import time

import common

arguments = common.step_arguments().parse_args()
import torch

import bare

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
model = bare.load("minilm")
cut, end = arguments.cut, len(model.blocks)
client = torch.optim.AdamW(model.trained(0, cut), lr=1e-4)
server = torch.optim.AdamW([*model.trained(cut, end), *model.classifier.parameters()], lr=1e-4)


def step(batch):
    started, cpu = time.perf_counter(), time.process_time()
    mask = batch["attention_mask"]
    front = model.run(model.embed(batch["input_ids"]), mask, 0, cut)
    handed = front.detach().requires_grad_()
    loss = model.read(model.run(handed, mask, cut, end), mask, batch["labels"])
    loss.backward()
    front.backward(handed.grad)
    for optimizer in (server, client):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    float(loss.detach())
    return time.perf_counter() - started, time.process_time() - cpu


data = common.batches("minilm", arguments.batch, arguments.seq, 8)
taken = [step(data[index % 8]) for index in range(arguments.warmup + arguments.steps)][arguments.warmup :]
each, each_cpu = zip(*taken)
common.say({"seconds": statistics.median(each), "cpuSeconds": statistics.fmean(each_cpu), "each": each})
