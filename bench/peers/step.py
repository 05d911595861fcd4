"""A LoRA step with transformers and PEFT, as most people take it."""
import common

arguments = common.step_arguments().parse_args()
import torch

torch.set_num_threads(arguments.threads)
torch.manual_seed(0)
model = common.peft_model(arguments.model, arguments.precision)
parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
common.say(common.timed_steps(arguments, lambda batch: model(**batch).loss, parameters))
