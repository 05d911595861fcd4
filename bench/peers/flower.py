"""What both ways of running Flower share: the app's settings, a folder of this run's own, a quiet environment."""
import os
import shutil
import sys
from pathlib import Path

import common

HERE = Path(__file__).parent.resolve()
APP = HERE / "flower_app"


def settings(arguments, folder):
    """The app's configuration for these arguments."""
    names = ("clients", "rounds", "local_steps", "batch", "seq", "threads")
    numbers = {name.replace("_", "-"): getattr(arguments, name) for name in names}
    return {**numbers, "adapter": str(folder / "adapter.safetensors")}


def new_folder(name):
    folder = (common.SCRATCH / f"{name}-{os.getpid()}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def environment(folder, threads):
    """For Flower's processes: no telemetry, no look for updates, its files in `folder`, and one thread where asked."""
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        "PYTHONPATH": f"{HERE}:{APP}",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "FLWR_HOME": str(folder / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": str(threads),
        # Ray's own choice of 15 would let any other process of the machine go first.
        "RAY_worker_niceness": "0",
    }
