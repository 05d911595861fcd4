"""Federated averaging of LoRA adapters as a loop in one process: the least that PyTorch can do it with.

One frozen base, adapters swapped in and out, a new optimizer a client and round, the mean in the end on disk.
"""
import common

arguments = common.job_arguments().parse_args()
import torch
from safetensors.torch import save_file

import bare

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
model = bare.load("minilm")
trained = dict(model.named_parameters())
state = {name: parameter.detach().clone() for name, parameter in trained.items()}


@torch.no_grad()
def assign(values):
    for name, parameter in trained.items():
        parameter.copy_(values[name])


for round_number in range(1, arguments.rounds + 1):
    total = {name: torch.zeros_like(value) for name, value in state.items()}
    for client in range(arguments.clients):
        assign(state)
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-4)
        seed = 1000 * round_number + client
        for batch in common.batches("minilm", arguments.batch, arguments.seq, arguments.local_steps, seed):
            common.train_step(model.loss, optimizer, batch, "F32")
        for name, parameter in trained.items():
            total[name] += parameter.detach() / arguments.clients
    state = total

common.SCRATCH.mkdir(parents=True, exist_ok=True)
save_file(state, common.SCRATCH / "bare_job.safetensors")
common.say({})
