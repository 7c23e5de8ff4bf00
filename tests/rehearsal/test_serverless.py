"""Serverless endpoints: cold start and idling out, MaxConcurrency, updates without a failed request, refusals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.fleet import PROCESS
from rehearsal.sagemaker.runtime import SageMakerRuntime
from rehearsal.sagemaker.serverless import LEAST_IDLE_SECONDS
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BROKEN, DOUBLES, ROLE, configure, packed, same_python, settled
from tests.rehearsal.waiting import until

SIZE = {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
WAITS = """
        open("{asked}", "w").close()
        while not os.path.exists("{gate}"):
            time.sleep(0.02)"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """Shared: each test has an endpoint of its own. Idle time is two seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        same_python(monkeypatch)
        with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path_factory.mktemp("serverless"), time_scale=600) as made:
            yield made


def live(cloud: Loopback, name: str, script: str = DOUBLES, size: dict[str, int] = SIZE) -> dict[str, Any]:
    configure(cloud, name, packed(2, script), serverless=size)
    cloud.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    return settled(cloud, name)


def invoke(cloud: Loopback, name: str, body: bytes = b"[1]") -> Any:
    answer = cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="application/json", Body=body
    )
    return json.loads(answer["Body"].read())


def servers(cloud: Loopback) -> set[str]:
    return {name for name, _ in cloud.store.list(PROCESS)}


def started(cloud: Loopback, endpoint: str, count: int = 1) -> list[str]:
    """The servers that an endpoint has had once they are so many; their logs stay when they have idled out."""
    group = f"/aws/sagemaker/Endpoints/{endpoint}"

    def found() -> list[str]:
        return [stream.rpartition("/")[2] for of, stream in list(cloud.streams) if of == group]

    until(lambda: len(found()) >= count, lambda: f"{found()} were started")
    return found()


def address(cloud: Loopback, endpoint: dict[str, Any]) -> str:
    tags = cloud.client("sagemaker").list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]
    return next(tag["Value"] for tag in tags if tag["Key"] == "rehearsal:url") + "/invocations"


def test_its_server_idles_out_and_the_next_request_starts_another(cloud: Loopback) -> None:
    endpoint = live(cloud, "idle")
    assert endpoint["EndpointStatus"] == "InService"
    (variant,) = endpoint["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == variant["DesiredServerlessConfig"] == SIZE
    assert "CurrentInstanceCount" not in variant
    (first,) = started(cloud, "idle")
    until(lambda: first not in servers(cloud))
    assert invoke(cloud, "idle", b"[1, 2]") == [2, 4]
    assert len(started(cloud, "idle", 2)) == 2

    def setup_time() -> Any:
        return cloud.client("cloudwatch").list_metrics(
            MetricName="ModelSetupTime", Dimensions=[{"Name": "EndpointName", "Value": "idle"}]
        )["Metrics"]

    assert until(setup_time)[0]["Namespace"] == "AWS/SageMaker"


def test_its_idle_time_counts_from_its_last_answer_however_long_it_took_to_start(cloud: Loopback) -> None:
    slow = DOUBLES.replace("    return float(", f"    time.sleep({LEAST_IDLE_SECONDS + 0.5})\n    return float(")
    live(cloud, "slow", slow.replace("[model * value for value in data]", "[time.time()]"))
    (first,) = started(cloud, "slow")
    until(lambda: first not in servers(cloud))
    (answered,) = invoke(cloud, "slow")
    _, second = started(cloud, "slow", 2)
    until(lambda: second not in servers(cloud))
    assert time.time() - answered > LEAST_IDLE_SECONDS


def test_provisioned_concurrency_keeps_the_server(cloud: Loopback) -> None:
    live(cloud, "warm", size={**SIZE, "ProvisionedConcurrency": 1})
    (server,) = started(cloud, "warm")
    threading.Event().wait(3)
    assert server in servers(cloud)


def test_more_requests_at_once_than_its_concurrency_are_throttled(cloud: Loopback, tmp_path: Path) -> None:
    asked, gate = tmp_path / "asked", tmp_path / "gate"
    script = DOUBLES.replace("time.sleep(0.5)", WAITS.format(asked=asked, gate=gate))
    url = address(cloud, live(cloud, "busy", script, {**SIZE, "MaxConcurrency": 1}))
    runtime = cloud.client("sagemaker-runtime")
    runtime.meta.events.unregister("needs-retry.sagemaker-runtime", unique_id="retry-config-sagemaker-runtime")
    with ThreadPoolExecutor(1) as clients:
        busy = clients.submit(httpx.post, url, json=[99], timeout=60)
        until(asked.exists)
        assert [httpx.post(url, json=[1], timeout=60).status_code for _ in range(3)] == [429, 429, 429]
        with pytest.raises(ClientError, match="Rate exceeded") as caught:
            runtime.invoke_endpoint(EndpointName="busy", ContentType="application/json", Body=b"[1]")
        gate.touch()
        assert busy.result().status_code == 200
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    assert httpx.post(url, json=[1], timeout=60).status_code == 200


def test_requests_that_meet_a_cold_start_wait_for_it(cloud: Loopback) -> None:
    url = address(cloud, live(cloud, "cold"))
    (first,) = started(cloud, "cold")
    until(lambda: first not in servers(cloud))
    with ThreadPoolExecutor(2) as clients:
        answers = [*clients.map(lambda _: httpx.post(url, json=[4], timeout=60), range(2))]
    assert [answer.json() for answer in answers] == [[8], [8]]


def test_an_update_loses_no_request(cloud: Loopback) -> None:
    url = address(cloud, live(cloud, "steady", size={**SIZE, "MaxConcurrency": 20}))
    configure(cloud, "steady-2", packed(3), serverless=SIZE)
    over, answers = threading.Event(), list[httpx.Response]()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not over.is_set():
                answers.append(client.post(url, json=[1]))

    client = threading.Thread(target=ask)
    client.start()
    cloud.client("sagemaker").update_endpoint(EndpointName="steady", EndpointConfigName="steady-2")
    assert settled(cloud, "steady")["EndpointConfigName"] == "steady-2"
    over.set()
    client.join()
    assert {answer.status_code for answer in answers} == {200}
    assert invoke(cloud, "steady") == [3]


def test_a_model_that_can_not_be_loaded_fails_the_endpoint(cloud: Loopback) -> None:
    endpoint = live(cloud, "broken", BROKEN)
    assert endpoint["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in endpoint["FailureReason"]


def test_a_payload_above_four_megabytes_is_refused(cloud: Loopback) -> None:
    url = address(cloud, live(cloud, "large"))
    content = b" " * (4 * 1024 * 1024 + 1)
    answer = httpx.post(url, content=content, headers={"content-type": "application/json"}, timeout=60)
    assert (answer.status_code, answer.text) == (413, "the payload is larger than 4 MB")


def test_what_serverless_endpoints_do_not_support_is_refused_at_once(cloud: Loopback) -> None:
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://artifacts/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    with pytest.raises(ClientError) as caught:
        configure(
            cloud, "odd", packed(), capture=capture,
            serverless={"MemorySizeInMB": 1500, "MaxConcurrency": 1, "ProvisionedConcurrency": 2},
            AsyncInferenceConfig={"OutputConfig": {"S3OutputPath": "s3://artifacts/out"}},
        )  # fmt: skip
    message = caught.value.response["Error"]["Message"]
    for said in (
        "DataCaptureConfig is not supported", "AsyncInferenceConfig is not supported", "MemorySizeInMB is 1500",
        "ProvisionedConcurrency may not be larger",
    ):  # fmt: skip
        assert said in message


def test_a_model_isolated_from_the_network_is_refused(cloud: Loopback) -> None:
    configure(cloud, "isolated", packed())
    sagemaker = cloud.client("sagemaker")
    container = sagemaker.describe_model(ModelName="isolated")["PrimaryContainer"]
    sagemaker.create_model(
        ModelName="isolated-2", ExecutionRoleArn=ROLE, PrimaryContainer=container, EnableNetworkIsolation=True
    )
    variant = {"VariantName": "AllTraffic", "ModelName": "isolated-2", "ServerlessConfig": SIZE}
    with pytest.raises(ClientError, match="EnableNetworkIsolation, which serverless endpoints do not support"):
        sagemaker.create_endpoint_config(EndpointConfigName="isolated-2", ProductionVariants=[variant])


def test_it_takes_no_deployment_config_and_no_endpoint_with_instances_becomes_one(cloud: Loopback) -> None:
    live(cloud, "converted")
    configure(cloud, "instances", packed(5))
    sagemaker = cloud.client("sagemaker")
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    with pytest.raises(ClientError, match="takes no DeploymentConfig"):
        sagemaker.update_endpoint(
            EndpointName="converted",
            EndpointConfigName="converted",
            DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
        )
    sagemaker.update_endpoint(EndpointName="converted", EndpointConfigName="instances", RetainAllVariantProperties=True)
    after = settled(cloud, "converted")
    assert after["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert invoke(cloud, "converted") == [5]
    with pytest.raises(ClientError, match="can't be updated to a serverless one"):
        sagemaker.update_endpoint(EndpointName="converted", EndpointConfigName="converted")
