"""The rehearsal's model server against two floors: the same model without HTTP, and HTTP without a model."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from rehearsal.environments import interpreter, scrubbed

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "rehearsal" / "model_server" / "serve.py"
FEATURES, TREES, REQUESTS, CLIENTS = 17, 100, 4000, 4
IMAGE = "xgboost-3.2-0-server"
ROW = ",".join(["0.5"] * FEATURES)

TRAIN = f"""
import sys
import numpy as np, xgboost
generator = np.random.default_rng(7)
rows = generator.random((5000, {FEATURES}))
data = xgboost.DMatrix(rows, label=rows[:, 0] + rows[:, 1] > 1)
xgboost.train({{"objective": "binary:logistic", "nthread": 1}}, data, {TREES}).save_model(sys.argv[1] + "/model.ubj")
"""
SCRIPT = """
import os
import xgboost
def model_fn(model_dir):
    booster = xgboost.Booster(model_file=os.path.join(model_dir, "model.ubj"))
    booster.set_param({"nthread": 1})
    return booster
"""
NO_HTTP = f"""
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, inference
model, row = inference.model_fn(sys.argv[1]), np.full((1, {FEATURES}), 0.5)
began = time.monotonic()
for _ in range({REQUESTS}):
    model.inplace_predict(row)
print({REQUESTS} / (time.monotonic() - began))
"""
NO_MODEL = """
import sys, uvicorn
async def application(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="error", lifespan="off")
"""


def measure() -> Iterator[tuple[str, str, float]]:
    """Rows for both floors and the model server; ratio = requests/s against the HTTP floor."""
    python = str(interpreter(IMAGE))
    environment = scrubbed(OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-c", TRAIN, folder], env=environment, check=True)
        (Path(folder) / "inference.py").write_text(SCRIPT)
        direct = float(
            subprocess.run(
                [python, "-c", NO_HTTP, folder], env=environment, check=True, capture_output=True, text=True
            ).stdout
        )
        floor = _load([python, "-c", NO_MODEL], [], environment)
        served = {**environment, "SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": folder}
        ours = _load([python, str(SERVER), "--model-dir", folder], ["--port"], served)
    yield "uvicorn without a model (HTTP floor)", _figure(floor), 1.0
    yield "the model without HTTP (floor)", f"{direct:.0f}/s", direct / floor[0]
    yield "model server", _figure(ours), ours[0] / floor[0]


def _figure(measured: tuple[float, float]) -> str:
    return f"{measured[0]:.0f}/s, p99 {measured[1] * 1000:.1f} ms"


def _load(command: list[str], port_option: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(requests per second, p99 seconds) of REQUESTS requests from CLIENTS connections."""
    port = _free_port()
    process = subprocess.Popen([*command, *port_option, str(port)], env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/invocations"
        _await_answer(url, process)
        taken: list[float] = []
        began = time.monotonic()
        threads = [threading.Thread(target=_send, args=(url, taken)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(taken) / (time.monotonic() - began), sorted(taken)[int(len(taken) * 0.99)]
    finally:
        process.terminate()
        process.wait(10)


def _send(url: str, taken: list[float]) -> None:
    # http.client costs a third of a request of httpx: the less the client takes, the more the floor means.
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    for _ in range(REQUESTS // CLIENTS):
        began = time.monotonic()
        connection.request("POST", place.path, ROW, {"content-type": "text/csv", "accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read():
            raise RuntimeError(f"{url} answered {answer.status}")
        taken.append(time.monotonic() - began)
    connection.close()


def _await_answer(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(url, content=ROW, headers={"content-type": "text/csv"}, trust_env=False)
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing answers at {url}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
