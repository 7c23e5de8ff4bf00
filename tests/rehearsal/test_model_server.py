"""The model server as a process: SageMaker's inference contract for scripts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from rehearsal.model_server import SERVE
from tests.rehearsal.serving import BROKEN, DOUBLES, held
from tests.rehearsal.waiting import until

DEFAULTS = """
class Sum:
    def predict(self, rows):
        return rows.sum(axis=1)

def model_fn(model_dir):
    return Sum()
"""
OWN_STATUS = """
class Unprocessable(Exception):
    status_code = 422

def model_fn(model_dir):
    return None

def input_fn(body, content_type):
    raise Unprocessable("carrier is missing")
"""


@contextmanager
def process(folder: Path, script: str, program: str = "inference.py") -> Iterator[subprocess.Popen[str]]:
    """The server of a model directory with `script` in it; its port is the attribute `port`."""
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "inference.py").write_text(script)
    (folder / "factor.txt").write_text("2")
    environment = {
        "PATH": os.environ["PATH"],
        "SAGEMAKER_PROGRAM": program,
        "SAGEMAKER_SUBMIT_DIRECTORY": str(folder / "code"),
    }
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = subprocess.Popen(
            [sys.executable, str(SERVE), "--model-dir", str(folder), "--fd", str(listener.fileno())],
            text=True,
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        port = listener.getsockname()[1]
    with running:
        try:
            assert running.stdout is not None
            for line in running.stdout:
                if "the model is loaded" in line or "could not be loaded" in line:
                    break
            running.args = [f"http://127.0.0.1:{port}", line]
            yield running
        finally:
            running.kill()


@contextmanager
def served(folder: Path, script: str = DOUBLES) -> Iterator[httpx.Client]:
    with process(folder, script) as running, asking(running) as client:
        yield client


@contextmanager
def asking(running: subprocess.Popen[str]) -> Iterator[httpx.Client]:
    """A client of the server, which answers."""
    with httpx.Client(base_url=running.args[0], timeout=60) as client:  # type: ignore[index,arg-type]
        until(lambda: _answers(client), "the server did not come up")
        yield client


def _answers(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/ping").status_code == 200
    return False


def test_the_scripts_own_functions_answer(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        assert client.post("/invocations", json=[1, 2]).json() == [2, 4]
        csv = {"Content-Type": "text/csv; charset=utf-8"}
        assert client.post("/invocations", content="5", headers=csv).json() == [10]
        assert client.get("/elsewhere").status_code == 404


def test_an_error_of_the_script_answers_one_request_with_its_message(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        failed = client.post("/invocations", json=[13])
        assert failed.status_code == 500
        assert failed.json()["error-message"] == "thirteen is not a number we like"
        assert client.post("/invocations", json=[1]).status_code == 200


def test_an_error_with_a_status_code_keeps_it(tmp_path: Path) -> None:
    with served(tmp_path, OWN_STATUS) as client:
        failed = client.post("/invocations", json=[1])
        assert (failed.status_code, failed.json()["error-message"]) == (422, "carrier is missing")


@pytest.mark.parametrize(
    ("content_type", "body", "accept", "answer"),
    [
        ("text/csv", "1,2", "*/*", "[3.0]"),
        ("text/csv", "1,2\n3,4\n", "text/csv", "3.0\n7.0\n"),
        ("application/json", "[1, 2]", "application/json", "[3.0]"),
        ("application/json", '{"instances": [[1, 2], [3, 4]]}', "text/csv, */*;q=0.1", "3.0\n7.0\n"),
    ],
)
def test_defaults_take_one_or_many_rows(
    defaults: httpx.Client, content_type: str, body: str, accept: str, answer: str
) -> None:
    headers = {"Content-Type": content_type, "Accept": accept}
    assert defaults.post("/invocations", content=body, headers=headers).text == answer


@pytest.mark.parametrize(
    ("content_type", "body", "accept", "status"),
    [
        ("text/csv", "a,b", "*/*", 400),
        ("application/json", "{", "*/*", 400),
        ("image/png", "x", "*/*", 415),
        ("text/csv", "1", "image/png", 406),
    ],
)
def test_defaults_refuse_what_they_cannot_read(
    defaults: httpx.Client, content_type: str, body: str, accept: str, status: int
) -> None:
    headers = {"Content-Type": content_type, "Accept": accept}
    assert defaults.post("/invocations", content=body, headers=headers).status_code == status


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(tmp_path_factory.mktemp("defaults"), DEFAULTS) as client:
        yield client


@pytest.mark.parametrize(
    ("script", "program", "reason"),
    [
        (BROKEN, "inference.py", "the booster is corrupt"),
        ("x = 1\n", "inference.py", "has no model_fn"),
        (DOUBLES, "absent.py", "absent.py is not in"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_process_with_the_reason(
    tmp_path: Path, script: str, program: str, reason: str
) -> None:
    with process(tmp_path, script, program) as running:
        assert reason in running.args[1]  # type: ignore[index,operator]
        assert running.wait(60) != 0


def test_sigterm_finishes_the_request_in_flight(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with process(tmp_path, held(go)) as running, asking(running) as client:
        answers: list[httpx.Response] = []
        request = threading.Thread(target=lambda: answers.append(client.post("/invocations", json=[99])))
        request.start()
        until(go.with_name("asked").exists)
        running.send_signal(signal.SIGTERM)
        until(lambda: not _answers(client), "it has not taken the signal")
        go.touch()
        request.join(60)
        assert [answer.json() for answer in answers] == [[198]]
        running.wait(60)


def test_the_server_goes_when_whoever_started_it_is_gone(tmp_path: Path) -> None:
    with process(tmp_path, DOUBLES) as running:
        assert running.stdin is not None
        running.stdin.close()
        running.wait(60)
