"""Shadow variants with real server processes: copies of every request, and answers that are never harmed by them."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker import SageMaker, mirror
from rehearsal.sagemaker.fleet import PROCESS
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.conftest import ROOT
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BUCKET, DOUBLES, configure, packed, same_python, settled, shadowed
from tests.rehearsal.waiting import until

REQUESTS, CLIENTS = 200, 4
HANGS = DOUBLES.replace("    return [model", "    time.sleep(3600)\n    return [model")
CRASHES = DOUBLES.replace("    return [model", "    os._exit(1)\n    return [model")
FAILS = DOUBLES.replace("data == [13]", "data[0] > 0")
CAPTURE = {
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": f"s3://{BUCKET}/captured",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
}


@pytest.fixture
def pair() -> str:
    """A name of its own for each test: the embedded CloudWatch and S3 outlive them."""
    return f"pair-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as running:
        yield running


@pytest.fixture
def none_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for every copy, however far the shadow is behind on a busy machine."""
    monkeypatch.setattr(mirror, "WAITING", 2 * REQUESTS)


def live(cloud: Loopback, pair: str, script: str = DOUBLES, **options: Any) -> str:
    """An endpoint that doubles, and its shadow variant, which triples in its own way; its address."""
    shadowed(cloud, pair, packed(), packed(3, script), **options)
    cloud.client("sagemaker").create_endpoint(EndpointName=pair, EndpointConfigName=pair)
    described = settled(cloud, pair)
    assert described["EndpointStatus"] == "InService"
    assert [variant["VariantName"] for variant in described["ShadowProductionVariants"]] == ["Shadow"]
    tags = cloud.client("sagemaker").list_tags(ResourceArn=described["EndpointArn"])["Tags"]
    return str({tag["Key"]: tag["Value"] for tag in tags}["rehearsal:url"])


def load(url: str) -> Counter[tuple[int, str]]:
    """What REQUESTS requests, sent by CLIENTS clients at once, were answered."""
    answers: list[tuple[int, str]] = []

    def send() -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(REQUESTS // CLIENTS):
                answer = client.post(f"{url}/invocations", json=[number % 10])
                answers.append((answer.status_code, f"{answer.json()[0] / (number % 10 or 1):g}"))

    clients = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return Counter((status, "doubled" if text in ("2", "0") else text) for status, text in answers)


def measured(cloud: Loopback, pair: str, metric: str, variant: str, namespace: str = "AWS/SageMaker") -> float:
    dimensions = {"EndpointName": pair, "VariantName": variant}
    found = cloud.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=time.time() - 3600,
        EndTime=time.time() + 60,
        Period=86400,
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in found))


def captured(cloud: Loopback, pair: str, variant: str) -> list[dict[str, Any]]:
    s3, prefix = cloud.client("s3"), f"captured/{pair}/{variant}/"
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]
    bodies = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
    return [json.loads(line)["captureData"] for body in bodies for line in body.splitlines()]


def download(cloud: Loopback, prefix: str, folder: Path) -> None:
    s3 = cloud.client("s3")
    for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
        file = folder / found["Key"].removeprefix(prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read())


def pairs(records: list[dict[str, Any]]) -> Counter[tuple[float, float]]:
    return Counter(
        (json.loads(r["endpointInput"]["data"])[0], json.loads(r["endpointOutput"]["data"])[0]) for r in records
    )


@pytest.mark.usefixtures("none_dropped")
def test_every_request_is_answered_by_production_and_copied_to_the_shadow(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, capture=CAPTURE)
    assert load(url) == {(200, "doubled"): REQUESTS}
    until(lambda: len(captured(cloud, pair, "Shadow")) == len(captured(cloud, pair, "AllTraffic")) == REQUESTS)
    assert pairs(captured(cloud, pair, "AllTraffic")) == {(n, 2.0 * n): REQUESTS / 10 for n in range(10)}
    assert pairs(captured(cloud, pair, "Shadow")) == {(n, 3.0 * n): REQUESTS / 10 for n in range(10)}
    until(lambda: measured(cloud, pair, "Invocations", "Shadow") == REQUESTS)
    until(lambda: measured(cloud, pair, "Invocations", "AllTraffic") == REQUESTS)
    assert measured(cloud, pair, "Invocation5XXErrors", "Shadow") == 0


@pytest.mark.usefixtures("none_dropped")
def test_what_was_captured_is_compared_request_by_request(cloud: Loopback, pair: str, tmp_path: Path) -> None:
    """With the very code that the processing job runs, on the files that the endpoint wrote."""
    sys.path.insert(0, str(ROOT / "contract" / "entry"))  # as in the unpacked bundle
    import pushline_shadow  # type: ignore[import-not-found]

    url = live(cloud, pair, capture=CAPTURE)
    load(url)
    until(lambda: len(captured(cloud, pair, "Shadow")) == len(captured(cloud, pair, "AllTraffic")) == REQUESTS)
    for variant, folder in (("AllTraffic", "production"), ("Shadow", "shadow")):
        download(cloud, f"captured/{pair}/{variant}/", tmp_path / folder)
    given = {"production": tmp_path / "production", "shadow": tmp_path / "shadow", "output": tmp_path / "output",
             "measured": '{"shadow": {"requests": 200, "errors": 1, "p99_ms": 7.5}}'}  # fmt: skip
    pushline_shadow.main([f"--{name}={value}" for name, value in given.items()])
    report = json.loads((tmp_path / "output" / "report.json").read_text())
    assert report["requests"] == {"production": REQUESTS, "shadow": REQUESTS, "compared": REQUESTS,
                                  "differing": REQUESTS * 9 // 10, "other_shape": 0}  # fmt: skip
    assert report["answers"]["largest_difference"] == 9, "27 instead of 18"
    assert report["answers"]["mean"] == {"production": 9, "shadow": 13.5}
    assert report["metrics"] == {"ShadowRequestsCompared": REQUESTS, "ShadowAnswersDifferentPercent": 90,
                                 "ShadowLargestDifference": 9}  # fmt: skip
    assert "90.0 % of the answers differ, by 4.5 on average and 9 at most" in report["summary"]
    assert "shadow: 200 requests, 1 failed, p99 7.5 ms" in report["summary"]
    assert (tmp_path / "output" / "answers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("none_dropped")
def test_a_shadow_that_answers_500_fails_no_request(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, FAILS)
    assert load(url) == {(200, "doubled"): REQUESTS}
    until(lambda: measured(cloud, pair, "Invocation5XXErrors", "Shadow") == REQUESTS * 9 / 10)
    assert measured(cloud, pair, "Invocation5XXErrors", "AllTraffic") == 0


def test_a_shadow_that_hangs_delays_no_request_and_what_it_can_not_take_is_counted(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, HANGS)
    began = time.monotonic()
    assert load(url) == {(200, "doubled"): REQUESTS}
    assert time.monotonic() - began < 300, "one request alone would have hung for an hour"
    dropped = REQUESTS - mirror.WAITING
    until(lambda: measured(cloud, pair, "ShadowRequestsDropped", "Shadow", "Rehearsal") == dropped > 0)
    # It ends with the test at once, since nobody waits for a shadow's answers.
    for _, document in cloud.store.list(PROCESS):
        os.kill(document["pid"], signal.SIGKILL)


def test_a_shadow_that_crashes_on_every_request_fails_none(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, CRASHES)
    assert load(url) == {(200, "doubled"): REQUESTS}

    def lost() -> float:
        dropped = measured(cloud, pair, "ShadowRequestsDropped", "Shadow", "Rehearsal")
        return dropped + measured(cloud, pair, "Invocation5XXErrors", "Shadow")

    until(lambda: lost() == REQUESTS)
    assert measured(cloud, pair, "Invocation5XXErrors", "AllTraffic") == 0


@pytest.mark.usefixtures("none_dropped")
def test_the_shadows_weight_is_its_share_of_the_requests(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, weight=0.25)
    assert load(url) == {(200, "doubled"): REQUESTS}
    until(lambda: measured(cloud, pair, "Invocations", "Shadow") == REQUESTS / 4)


def test_a_shadow_is_added_and_removed_all_at_once_and_not_by_canary(cloud: Loopback, pair: str) -> None:
    url = live(cloud, pair, instances=2)
    configure(cloud, "alone", packed(), instances=2)
    sagemaker = cloud.client("sagemaker")
    canary = {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 60}
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary}}
    with pytest.raises(ClientError, match="needs the same variant names"):
        sagemaker.update_endpoint(EndpointName=pair, EndpointConfigName="alone", DeploymentConfig=policy)
    sagemaker.update_endpoint(EndpointName=pair, EndpointConfigName="alone")
    described = settled(cloud, pair)
    assert (described["EndpointConfigName"], "ShadowProductionVariants" in described) == ("alone", False)
    assert httpx.post(f"{url}/invocations", json=[1], timeout=60).json() == [2]
    assert len(cloud.store.list(PROCESS)) == 2


def test_nobody_can_ask_the_shadow(cloud: Loopback, pair: str) -> None:
    live(cloud, pair)
    with pytest.raises(ClientError, match="Variant Shadow not found"):
        cloud.client("sagemaker-runtime").invoke_endpoint(EndpointName=pair, TargetVariant="Shadow", Body=b"[1]")


def test_more_than_one_of_each_is_refused(cloud: Loopback, pair: str) -> None:
    shadowed(cloud, pair, packed(), packed(3))
    sagemaker = cloud.client("sagemaker")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=pair)
    (production,), (shadow,) = config["ProductionVariants"], config["ShadowProductionVariants"]
    second = {**production, "VariantName": "Second"}
    for variants, shadows in (([production, second], [shadow]), ([production], [shadow, second])):
        with pytest.raises(ClientError, match="takes one variant, beside one of ProductionVariants"):
            sagemaker.create_endpoint_config(
                EndpointConfigName="many", ProductionVariants=variants, ShadowProductionVariants=shadows
            )
    with pytest.raises(ClientError, match="variant names must be unique"):
        sagemaker.create_endpoint_config(
            EndpointConfigName="same",
            ProductionVariants=[production],
            ShadowProductionVariants=[{**shadow, "VariantName": "AllTraffic"}],
        )
