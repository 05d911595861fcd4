"""The app's settings and model, for both of its sides."""
import functools
import json
import os

import common
from peft import get_peft_model_state_dict


def settings(context):
    """The run's configuration; the simulation's programming interface has none, so it comes by the environment."""
    return {**dict(context.run_config), **json.loads(os.environ.get("FEDBENCH_SETTINGS", "{}"))}


@functools.cache
def model():
    """One a process, as a careful user would keep it."""
    import torch

    torch.manual_seed(0)
    return common.peft_model("minilm")


def adapter():
    return {name: value.detach().clone() for name, value in get_peft_model_state_dict(model()).items()}
