"""/ping beyond the start: an instance in service that hangs is replaced, and so is its successor if that hangs, too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rehearsal.sagemaker import SageMaker, instance, variant_plan
from rehearsal.sagemaker.fleet import PROCESS
from rehearsal.sagemaker.instance import Instance
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import DOUBLES, configure, packed, same_python, settled
from tests.rehearsal.waiting import until

HANGS_SECOND = DOUBLES.replace(
    "def model_fn(model_dir):\n",
    """def model_fn(model_dir):
    starts = os.path.join(model_dir, "starts")
    open(starts, "a").write(".")
    if os.path.getsize(starts) == 2:
        time.sleep(3600)
""",
)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    monkeypatch.setattr(instance, "PING_SECONDS", 0.1)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as running:
        yield running


def live(cloud: Loopback, script: str, **options: Any) -> str:
    """An endpoint in service; its address."""
    configure(cloud, "checked", packed(2, script), **options)
    sagemaker = cloud.client("sagemaker")
    made = sagemaker.create_endpoint(EndpointName="checked", EndpointConfigName="checked")["EndpointArn"]
    assert settled(cloud, "checked")["EndpointStatus"] == "InService"
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=made)["Tags"]}
    return str(tags["rehearsal:url"])


def processes(cloud: Loopback) -> dict[str, int]:
    """The pid of each instance."""
    return {name: document["pid"] for name, document in cloud.store.list(PROCESS)}


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/invocations", json=[1], timeout=60)


def test_an_instance_that_hangs_is_replaced_and_no_request_fails(cloud: Loopback) -> None:
    url = live(cloud, DOUBLES, instances=2)
    hung, pid = next(iter(processes(cloud).items()))
    os.kill(pid, signal.SIGSTOP)
    assert [ask(url).text for _ in range(4)] == ["[2.0]"] * 4
    until(lambda: len(processes(cloud)) == 2 and hung not in processes(cloud))


def test_an_instance_that_answers_is_left_alone(cloud: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    # So many that a machine which stands still for half a minute does not make it look hung.
    monkeypatch.setattr(instance, "MOST_UNANSWERED", 15)
    url = live(cloud, DOUBLES)
    before, pings = processes(cloud), pinged(monkeypatch)
    while len(pings) <= 2 * instance.MOST_UNANSWERED:
        assert httpx.post(f"{url}/invocations", json=[99], timeout=60).text == "[198.0]"
    assert processes(cloud) == before


def pinged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The instances that have been asked for /ping from now on."""
    healthy, asked = Instance.healthy, list[str]()

    def asking(one: Instance) -> bool:
        asked.append(one.id)
        return healthy(one)

    monkeypatch.setattr(Instance, "healthy", asking)
    return asked


def test_a_successor_that_hangs_at_its_start_is_replaced_in_its_turn(
    cloud: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_plan, "STARTUP_SECONDS", 30.0)  # of every start, also of those that do not hang
    url = live(cloud, HANGS_SECOND)
    (pid,) = processes(cloud).values()
    os.kill(pid, signal.SIGKILL)
    answer = until(lambda: (found := ask(url)).is_success and found)
    assert answer.text == "[2.0]"
    (starts,) = cloud.state_dir.rglob("starts")
    assert starts.read_text().startswith("..."), "the third one answers, or a later one where it was slow"
