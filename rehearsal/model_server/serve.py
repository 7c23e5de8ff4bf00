"""Serve a model's inference script as SageMaker's prebuilt script-mode containers do.

Run by the python of the image's environment: `python serve.py --model-dir DIR --port PORT`. The script is
SAGEMAKER_PROGRAM in SAGEMAKER_SUBMIT_DIRECTORY; of its functions only `model_fn` is required.
One file, one dependency (uvicorn): whatever else was importable here could hide a mistake in a model.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import csv
import importlib
import io
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn

CSV, JSON = "text/csv", "application/json"
TEXT = ("text/", JSON, "application/jsonlines", "application/xml")
GRACE_SECONDS = 30
"""How long requests in flight may take after SIGTERM (SageMaker's own grace period)."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequestError(Exception):
    """A request that the defaults can't serve. A model's own exception may carry `status_code` the same way."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class Model:
    """A loaded model and the functions around it: the script's own, else the defaults below."""

    def __init__(self, script: ModuleType, model_dir: Path) -> None:
        if not hasattr(script, "model_fn"):
            raise AttributeError(f"{script.__file__} has no model_fn(model_dir); it is required to load the model")
        self._input = getattr(script, "input_fn", input_fn)
        self._predict = getattr(script, "predict_fn", predict_fn)
        self._output = getattr(script, "output_fn", output_fn)
        self._transform = getattr(script, "transform_fn", None)
        self._model = script.model_fn(str(model_dir))

    def transform(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """The response to one request and its content type."""
        payload = body.decode() if content_type.startswith(TEXT) else body
        if self._transform is not None:
            result = self._transform(self._model, payload, content_type, accept)
        else:
            result = self._output(self._predict(self._input(payload, content_type), self._model), accept)
        content, made = result if isinstance(result, tuple) else (result, accept)
        return content.encode() if isinstance(content, str) else bytes(content), made


# -- the defaults: csv and json, one or many rows ---------------------------------------------------------


def input_fn(body: str | bytes, content_type: str) -> Any:
    """A two-dimensional array of the rows in a csv or json payload."""
    import numpy as np

    try:
        if content_type == CSV:
            return np.array([[float(cell) for cell in row] for row in csv.reader(io.StringIO(str(body))) if row])
        if content_type == JSON:
            payload = json.loads(body)
            rows = payload.get("instances", payload) if isinstance(payload, dict) else payload
            return np.atleast_2d(np.array(rows, dtype=float))
    except (ValueError, TypeError) as error:
        raise RequestError(400, f"the {content_type} payload can't be read as rows of numbers: {error}") from None
    raise RequestError(415, f"content type {content_type} is not supported; send {CSV} or {JSON}, or write input_fn")


def predict_fn(data: Any, model: Any) -> Any:
    """`model.predict`; an xgboost Booster predicts in place, without building a DMatrix."""
    return getattr(model, "inplace_predict", model.predict)(data)


def output_fn(prediction: Any, accept: str) -> tuple[str, str]:
    """The prediction as csv lines or as json."""
    values = prediction.tolist() if hasattr(prediction, "tolist") else prediction
    for kind in (kind.partition(";")[0].strip() for kind in accept.split(",")):
        if kind in (JSON, "*/*", "application/*"):
            return json.dumps(values), JSON
        if kind in (CSV, "text/*"):
            return "".join(f"{_line(row)}\n" for row in values), CSV
    raise RequestError(406, f"accept {accept} is not supported; ask for {CSV} or {JSON}, or write output_fn")


def _line(row: Any) -> str:
    return ",".join(map(str, row)) if isinstance(row, Iterable) and not isinstance(row, str) else str(row)


# -- the server -------------------------------------------------------------------------------------------


class Application:
    """The ASGI application: `GET /ping` and `POST /invocations`, one prediction at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", JSON)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "predict")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if scope["path"] == "/ping":
            await _answer(send, 200, b"", JSON)
        elif scope["path"] == "/invocations" and scope["method"] == "POST":
            loop = asyncio.get_running_loop()
            headers = {key.decode(): value.decode() for key, value in scope["headers"]}
            await _answer(send, *await loop.run_in_executor(self._worker, self._invoke, headers, body))
        else:
            await _answer(send, 404, _error("NotFound", f"{scope['method']} {scope['path']}"), JSON)

    def _invoke(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes, str]:
        content_type = headers.get("content-type", JSON).partition(";")[0].strip().lower()
        accept = headers.get("accept", "*/*")
        try:
            return 200, *self._model.transform(body, content_type, self._default_accept if accept == "*/*" else accept)
        except Exception as error:  # whatever the model's code raises is the answer to this request only
            traceback.print_exc()
            status = getattr(error, "status_code", 500)
            return status, _error(type(error).__name__, str(error), traceback.format_exc()), JSON


def _error(kind: str, message: str, trace: str = "") -> bytes:
    return json.dumps({"error": kind, "error-message": message, "stack-trace": trace}).encode()


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _answer(send: Send, status: int, content: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def load(model_dir: Path) -> Model:
    """Import the script that the environment names and load the model with it."""
    program = os.environ["SAGEMAKER_PROGRAM"]
    place = Path(os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or model_dir / "code")
    if not (place / program).is_file():
        where = "SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY name it"
        raise FileNotFoundError(f"{program} is not in {place}; {where}")
    # This program's own folder must not be importable by the model's code.
    sys.path[0] = str(place)
    return Model(importlib.import_module(program.removesuffix(".py").replace("/", ".")), model_dir)


def main() -> None:
    arguments = _arguments()
    try:
        model = load(arguments.model_dir)
    except BaseException as error:
        traceback.print_exc()
        print(f"the model could not be loaded: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    config = uvicorn.Config(
        Application(model),
        "127.0.0.1",
        arguments.port,
        interface="asgi3",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    if arguments.fd is not None:
        threading.Thread(target=_outlive_no_parent, args=(server,), daemon=True).start()
    # Named as TCP, or asyncio leaves Nagle's algorithm on and every answer takes 40 ms.
    tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener = socket.socket(*tcp, fileno=arguments.fd) if arguments.fd is not None else None
    print("the model is loaded", flush=True)
    server.run([listener] if listener else None)


def _outlive_no_parent(server: uvicorn.Server) -> None:
    """Whoever started this process holds the other end of stdin; when it is gone, nobody routes here any more."""
    while sys.stdin.buffer.raw.read(1):  # type: ignore[union-attr]
        pass
    server.should_exit = True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--fd", type=int, help="an already listening socket, instead of a port")
    parser.add_argument("--instance", help="the instance this process stands for; only to recognise it by")
    return parser.parse_args()


if __name__ == "__main__":
    main()
