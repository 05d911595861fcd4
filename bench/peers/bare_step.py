"""The same step in bare PyTorch: about what a libtorch program would ask for."""
import common

arguments = common.step_arguments().parse_args()
import torch

import bare

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
model = bare.load(arguments.model, arguments.precision)
common.say(common.timed_steps(arguments, model.loss, list(model.parameters())))
