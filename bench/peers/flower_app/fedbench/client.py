"""The client: takes the adapter, trains some steps with a new optimizer, sends the adapter back."""
import common
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peft import set_peft_model_state_dict

from fedbench import settings

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    of_run = settings.settings(context)
    torch.set_num_threads(int(of_run["threads"]))
    model = settings.model()
    set_peft_model_state_dict(model, message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    seed = 1000 * int(message.content["config"]["server-round"]) + int(context.node_config["partition-id"])
    steps, batch = int(of_run["local-steps"]), int(of_run["batch"])
    for rows in common.batches("minilm", batch, int(of_run["seq"]), steps, seed):
        common.train_step(lambda data: model(**data).loss, optimizer, rows, "F32")
    content = {"arrays": ArrayRecord(settings.adapter()), "metrics": MetricRecord({"num-examples": steps * batch})}
    return Message(content=RecordDict(content), reply_to=message)
