"""The job in Flower's simulation engine: as many actors as cores, of one thread each, which is its best on two cores."""
import json
import os
import sys

import common
import flower

arguments = common.job_arguments().parse_args()
if "FEDBENCH_SETTINGS" not in os.environ:
    # Ray's workers read the environment of the process that starts them.
    folder = flower.new_folder("flower-simulation")
    environment = flower.environment(folder, arguments.threads)
    environment["FEDBENCH_SETTINGS"] = json.dumps(flower.settings(arguments, folder))
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)

from flwr.simulation import run_simulation

from fedbench import client, server

cores = os.cpu_count()
run_simulation(
    server_app=server.app,
    client_app=client.app,
    num_supernodes=arguments.clients,
    backend_config={
        "client_resources": {"num_cpus": arguments.threads, "num_gpus": 0.0},
        "init_args": {"num_cpus": cores},
    },
)
adapter = json.loads(os.environ["FEDBENCH_SETTINGS"])["adapter"]
common.say({"adapterBytes": os.path.getsize(adapter)})
