"""The server: Flower's own FedAvg, and the adapter on disk in the end."""
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import save_file

from fedbench import settings

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    of_run = settings.settings(context)
    clients = int(of_run["clients"])
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    result = strategy.start(
        grid=grid, initial_arrays=ArrayRecord(settings.adapter()), train_config=ConfigRecord({}),
        num_rounds=int(of_run["rounds"]),
    )
    save_file(result.arrays.to_torch_state_dict(), of_run["adapter"])
