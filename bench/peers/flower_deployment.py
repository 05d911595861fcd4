"""The job with Flower's own processes: a SuperLink and a SuperNode a client, over loopback."""
import os
import shutil
import signal
import subprocess
import time
import urllib.request

import common
import flower

PATIENCE = 300


def main():
    arguments = common.job_arguments().parse_args()
    folder = flower.new_folder("flower-deployment")
    environment = flower.environment(folder, arguments.threads)
    processes = []

    def start(name, *command):
        log = open(folder / f"{name}.log", "w")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        processes.append(process)

    try:
        before = loopback_bytes()
        run(arguments, folder, environment, start)
        carried = loopback_bytes() - before
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
    adapter = folder / "adapter.safetensors"
    # The tensors that clients and server hand over, in both directions.
    payload = 2 * arguments.clients * arguments.rounds * tensor_bytes(adapter)
    figures = {"adapterBytes": adapter.stat().st_size, "payloadBytes": payload}
    if "FEDTUNE_BENCH_OWN_NETWORK" in os.environ:
        figures.update(loopbackBytes=carried, loopbackOverPayload=carried / payload)
    common.say(figures)
    shutil.rmtree(folder, ignore_errors=True)


def run(arguments, folder, environment, start):
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "net"\n\n[superlink.net]\naddress = "127.0.0.1:8000"\ninsecure = true\n'
    )
    start("superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", "8000")
    wait_for(healthy, "the SuperLink", folder)
    for client in range(arguments.clients):
        start(
            f"node{client}", "flower-supernode", "--insecure", "--superlink", "127.0.0.1:8000", "--port",
            str(9100 + client), "--node-config", f"partition-id={client} num-partitions={arguments.clients}",
        )
    joined = lambda: all("SuperNode ID" in log.read_text() for log in folder.glob("node*.log"))
    wait_for(joined, "the SuperNodes", folder)
    settings = flower.settings(arguments, folder)
    pairs = " ".join(f"{name}={value!r}".replace("'", '"') for name, value in settings.items())
    subprocess.run(["flwr", "run", str(flower.APP), "net", "--run-config", pairs], env=environment, check=True,
                   stdout=subprocess.DEVNULL)
    wait_for((folder / "adapter.safetensors").exists, "the adapter", folder)


def wait_for(condition, what, folder):
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            logs = "\n".join(log.read_text()[-1000:] for log in sorted(folder.glob("*.log")))
            raise SystemExit(f"{what} did not come within {PATIENCE} s:\n{logs}")
        time.sleep(0.1)


def healthy():
    try:
        return urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=1).status == 200
    except OSError:
        return False


def loopback_bytes():
    with open("/proc/net/dev") as table:
        line = next(line for line in table if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def tensor_bytes(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())


main()
