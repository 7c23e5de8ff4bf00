"""Endpoints over boto3 and plain HTTP, with real server processes behind the router."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal import status
from rehearsal.landscape import ModelParts
from rehearsal.place import Place
from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.fleet import PROCESS
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BROKEN, DOUBLES, ROLE, configure, gated, held, packed, same_python, settled
from tests.rehearsal.waiting import until

UPDATE_LOAD = 400
"""The least number of requests that are sent, by four clients, while an endpoint is updated."""


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as running:
        yield running


def live(cloud: Loopback, name: str = "doubles", script: str = DOUBLES, **options: Any) -> str:
    """An endpoint in service on a configuration of the same name; its address."""
    configure(cloud, name, packed(script=script), **options)
    cloud.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert settled(cloud, name)["EndpointStatus"] == "InService"
    return address(cloud, name)


def address(cloud: Loopback, name: str) -> str:
    sagemaker = cloud.client("sagemaker")
    made = sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"]
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=made)["Tags"]}
    return str(tags["rehearsal:url"])


def invoke(cloud: Loopback, body: bytes, content_type: str = "application/json", name: str = "doubles") -> Any:
    runtime = cloud.client("sagemaker-runtime")
    return runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=body)


def ask(url: str, **body: Any) -> httpx.Response:
    """Over plain HTTP, with as much time for an answer as SageMaker gives."""
    return httpx.post(f"{url}/invocations", timeout=60, **body)


def statuses(cloud: Loopback, count: int) -> list[str]:
    """What was told, once so much was: it is told after it is kept."""
    kind = "SageMaker Endpoint State Change"

    def told() -> list[str]:
        return [event["detail"]["EndpointStatus"] for event in cloud.events if event["detail-type"] == kind]

    until(lambda: len(told()) >= count, told)
    return told()


def reported(cloud: Loopback, package: str) -> tuple[str, int | None]:
    """What `status` says of the endpoint `doubles`: its status, and the version that is live."""
    parts = ModelParts("doubles", endpoints={"production": "doubles"}, places={"production": Place("", "")})
    packages = [{"arn": package, "version": int(package.rpartition("/")[2]), "lineage": {}}]
    (row,) = status.endpoints(lambda service, place=None, /: cloud.client(service), parts, packages)
    return row["status"], row["version"]


def test_an_endpoint_answers_boto3_and_plain_http(cloud: Loopback) -> None:
    package = "arn:aws:sagemaker:us-east-1:000000000000:model-package/doubles/7"
    url = live(cloud, package=package)
    answer = invoke(cloud, b"[1, 2]")
    assert json.loads(answer["Body"].read()) == [2, 4]
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    plain = ask(url, content="3\n4\n", headers={"Content-Type": "text/csv"})
    assert plain.json() == [6, 8]
    assert plain.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert plain.headers["x-rehearsal-model-package"] == package
    with urllib.request.urlopen(f"{url}/ping") as ping:
        assert ping.status == 200


def test_an_idle_connection_is_kept_for_longer_than_clients_keep_one(cloud: Loopback) -> None:
    """Else a request may go into a connection that is being closed; httpx gives one up after five seconds."""
    place = urlsplit(live(cloud))
    connection = http.client.HTTPConnection(place.netloc, timeout=60)
    connection.request("GET", f"{place.path}/ping")
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()  # to the end, so that the connection is idle
    time.sleep(6)
    connection.auto_open = 0
    connection.request("GET", f"{place.path}/ping")
    assert connection.getresponse().status == 200
    connection.close()


def test_creating_pulls_the_image_as_the_models_role_and_writes_logs_and_events(cloud: Loopback) -> None:
    live(cloud)
    assert {(role, permission.action) for role, permission in cloud.authorized} >= {
        (ROLE, "ecr:GetAuthorizationToken"),
        (ROLE, "ecr:BatchGetImage"),
    }
    group = "/aws/sagemaker/Endpoints/doubles"  # written by a thread of its own
    (stream,) = until(lambda: [key for key in list(cloud.streams) if key[0] == group])
    assert stream[1].startswith("AllTraffic/i-")
    until(lambda: "the model is loaded" in cloud.streams[stream].lines, lambda: cloud.streams[stream].lines)
    assert statuses(cloud, 2) == ["CREATING", "IN_SERVICE"]


def test_the_models_own_error_reaches_the_caller(cloud: Loopback) -> None:
    live(cloud)
    with pytest.raises(ClientError) as caught:
        invoke(cloud, b"[13]")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert "thirteen is not a number we like" in caught.value.response["Error"]["Message"]
    assert caught.value.response["OriginalStatusCode"] == 500


def test_a_payload_beyond_the_limit_is_refused(cloud: Loopback) -> None:
    url = live(cloud)
    assert ask(url, content=b" " * (25 * 1024 * 1024 + 1)).status_code == 413


def test_an_unknown_endpoint_is_a_validation_error(cloud: Loopback) -> None:
    with pytest.raises(ClientError, match="Endpoint nowhere of account 000000000000 not found"):
        invoke(cloud, b"[1]", name="nowhere")


def test_an_update_under_load_loses_no_request(cloud: Loopback, tmp_path: Path) -> None:
    url, go = live(cloud, instances=2), tmp_path / "go"
    configure(cloud, "triples", packed(3, gated(go)), instances=2)
    with load(url) as answers:
        cloud.client("sagemaker").update_endpoint(
            EndpointName="doubles", EndpointConfigName="triples", RetainAllVariantProperties=True
        )
        pending = cloud.client("sagemaker").describe_endpoint(EndpointName="doubles")
        assert pending["EndpointStatus"] == "Updating"
        assert pending["PendingDeploymentSummary"]["EndpointConfigName"] == "triples"
        go.touch()
        assert settled(cloud, "doubles")["EndpointConfigName"] == "triples"
    answers.append(ask(url, json=[1]))
    assert len(answers) > UPDATE_LOAD
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.text for answer in answers} <= {"[2.0]", "[3.0]"}
    assert answers[-1].text == "[3.0]"


@contextmanager
def load(url: str) -> Iterator[list[httpx.Response]]:
    """The answers to four clients that have begun to ask and go on until the block has ended, UPDATE_LOAD times at
    least."""
    answers, over = list[httpx.Response](), threading.Event()

    def ask_again() -> None:
        with httpx.Client(timeout=60) as client:
            while not over.is_set() or len(answers) < UPDATE_LOAD:
                answers.append(client.post(f"{url}/invocations", json=[1]))
                time.sleep(0.02)  # what is updated needs the machine, too

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_again) for _ in range(4)]
        try:
            until(lambda: len(answers) > 20)
            yield answers
        finally:
            over.set()
    assert all(one.result() is None for one in asking)


def test_a_request_in_flight_is_finished_by_the_old_fleet(cloud: Loopback, tmp_path: Path) -> None:
    go, sagemaker = tmp_path / "go", cloud.client("sagemaker")
    url, package = live(cloud, script=held(go)), "arn:aws:sagemaker:us-east-1:000000000000:model-package/triples/1"
    configure(cloud, "triples", packed(3), package=package)
    with ThreadPoolExecutor(1) as client:
        request = client.submit(ask, url, json=[99])
        try:
            until(go.with_name("asked").exists)
            sagemaker.update_endpoint(EndpointName="doubles", EndpointConfigName="triples")
            until(lambda: httpx.get(f"{url}/ping", timeout=60).headers.get("x-rehearsal-model-package") == package)
            assert ask(url, json=[1]).json() == [3], "the new fleet answers"
            assert sagemaker.describe_endpoint(EndpointName="doubles")["EndpointStatus"] == "Updating"
            assert not request.done()
        finally:
            go.touch()
    assert (request.result().status_code, request.result().json()) == (200, [198])
    assert settled(cloud, "doubles")["EndpointConfigName"] == "triples"


def test_a_fleet_that_fails_its_health_check_is_rolled_back(cloud: Loopback) -> None:
    url = live(cloud)
    before = statuses(cloud, 2)
    configure(cloud, "broken", packed(script=BROKEN))
    cloud.client("sagemaker").update_endpoint(EndpointName="doubles", EndpointConfigName="broken")
    after = settled(cloud, "doubles")
    assert (after["EndpointStatus"], after["EndpointConfigName"]) == ("InService", "doubles")
    assert "did not pass the ping health check" in after["FailureReason"]
    assert "the booster is corrupt" in after["FailureReason"]
    assert ask(url, json=[1]).json() == [2]
    assert statuses(cloud, len(before) + 3) == [*before, "UPDATING", "ROLLING_BACK", "IN_SERVICE"]


def test_a_new_endpoint_that_fails_its_health_check_is_failed(cloud: Loopback) -> None:
    configure(cloud, "broken", packed(script=BROKEN))
    sagemaker = cloud.client("sagemaker")
    sagemaker.create_endpoint(EndpointName="broken", EndpointConfigName="broken")
    assert settled(cloud, "broken")["EndpointStatus"] == "Failed"
    sagemaker.delete_endpoint(EndpointName="broken")
    until(lambda: not sagemaker.list_endpoints()["Endpoints"])


def test_no_version_is_live_before_the_new_endpoint_answers(cloud: Loopback, tmp_path: Path) -> None:
    package, go = "arn:aws:sagemaker:us-east-1:000000000000:model-package/doubles/7", tmp_path / "go"
    configure(cloud, "doubles", packed(script=gated(go)), package=package)
    cloud.client("sagemaker").create_endpoint(EndpointName="doubles", EndpointConfigName="doubles")
    assert reported(cloud, package) == ("Creating", None)
    go.touch()
    assert settled(cloud, "doubles")["EndpointStatus"] == "InService"
    assert reported(cloud, package) == ("InService", 7)
    assert json.loads(invoke(cloud, b"[1]")["Body"].read()) == [2]


def test_a_new_endpoint_that_failed_has_no_version_live(cloud: Loopback) -> None:
    package = "arn:aws:sagemaker:us-east-1:000000000000:model-package/doubles/7"
    configure(cloud, "doubles", packed(script=BROKEN), package=package)
    cloud.client("sagemaker").create_endpoint(EndpointName="doubles", EndpointConfigName="doubles")
    settled(cloud, "doubles")
    assert reported(cloud, package) == ("Failed", None)


def test_an_instance_that_dies_is_replaced_and_nobody_notices(cloud: Loopback) -> None:
    url = live(cloud, instances=2)
    before = {name: document["pid"] for name, document in cloud.store.list(PROCESS)}
    os.kill(next(iter(before.values())), signal.SIGKILL)
    codes = {ask(url, json=[1]).status_code for _ in range(50)}
    assert codes == {200}
    until(lambda: len(cloud.store.list(PROCESS)) == 2 and {k for k, _ in cloud.store.list(PROCESS)} != set(before))


def test_deleting_ends_the_servers(cloud: Loopback) -> None:
    url = live(cloud)
    cloud.client("sagemaker").delete_endpoint(EndpointName="doubles")
    until(lambda: not cloud.client("sagemaker").list_endpoints()["Endpoints"])
    assert cloud.store.list(PROCESS) == []
    assert ask(url, json=[1]).status_code == 404


def test_an_update_from_a_deleted_configuration_is_refused_as_sagemaker_does(cloud: Loopback) -> None:
    live(cloud)
    configure(cloud, "triples", packed(3))
    sagemaker = cloud.client("sagemaker")
    sagemaker.delete_endpoint_config(EndpointConfigName="doubles")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.update_endpoint(EndpointName="doubles", EndpointConfigName="triples")


@pytest.mark.parametrize(("exclude", "count"), [([], 1), ([{"VariantPropertyType": "DesiredInstanceCount"}], 2)])
def test_retained_variant_properties(cloud: Loopback, exclude: list[Any], count: int) -> None:
    live(cloud)
    configure(cloud, "triples", packed(3), instances=2)
    cloud.client("sagemaker").update_endpoint(
        EndpointName="doubles",
        EndpointConfigName="triples",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=exclude,
    )
    assert settled(cloud, "doubles")["ProductionVariants"][0]["CurrentInstanceCount"] == count


@pytest.mark.parametrize(
    ("instances", "routing", "refusal"),
    [
        (1, {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}, "at least 2 instances"),
        (2, {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 60}}, "more than 50 %"),
        (2, {"Type": "CANARY"}, "needs CanarySize"),
        (2, {"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 5}}, "less than 10 %"),
    ],
)
def test_traffic_policies_that_sagemaker_refuses_are_refused(
    cloud: Loopback, instances: int, routing: Any, refusal: str
) -> None:
    live(cloud, instances=instances)
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"WaitIntervalInSeconds": 60, **routing}}}
    with pytest.raises(ClientError, match=refusal):
        cloud.client("sagemaker").update_endpoint(
            EndpointName="doubles", EndpointConfigName="doubles", DeploymentConfig=policy
        )


def test_captured_data_has_sagemakers_format_and_place(cloud: Loopback) -> None:
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://artifacts/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
    }
    url = live(cloud, capture=capture)
    ask(url, content="3\n", headers={"Content-Type": "text/csv"})
    s3 = cloud.client("s3")
    prefix = "captured/doubles/AllTraffic/"
    (found,) = until(lambda: s3.list_objects_v2(Bucket="artifacts", Prefix=prefix).get("Contents"))
    assert re.fullmatch(prefix + r"\d{4}/\d\d/\d\d/\d\d/[^/]+\.jsonl", found["Key"])
    (line,) = s3.get_object(Bucket="artifacts", Key=found["Key"])["Body"].read().splitlines()
    event = json.loads(line)
    assert event["eventVersion"] == "0"
    assert set(event["eventMetadata"]) == {"eventId", "inferenceTime"}
    assert event["captureData"]["endpointInput"] == {
        "observedContentType": "text/csv",
        "mode": "INPUT",
        "data": "3\n",
        "encoding": "CSV",
    }
    assert event["captureData"]["endpointOutput"]["encoding"] == "BASE64"


def test_an_endpoint_serves_again_after_a_restart_at_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as first:
        before = live(first)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as second:
        assert address(second, "doubles") == before
        assert second.client("sagemaker").describe_endpoint(EndpointName="doubles")["EndpointStatus"] == "InService"
        assert ask(before, json=[1]).json() == [2]
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as third:
        assert json.loads(invoke(third, b"[1]")["Body"].read()) == [2]


def test_an_endpoint_that_can_not_be_served_again_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_python(monkeypatch)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as first:
        url = live(first)
    (script,) = tmp_path.rglob("inference.py")
    script.write_text(BROKEN)
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as second:
        answer = ask(url, json=[1])
        assert (answer.status_code, answer.text) == (404, "Endpoint doubles is not in service")
        assert settled(second, "doubles")["EndpointStatus"] == "Failed"


def test_a_model_whose_artefact_is_missing_is_refused(cloud: Loopback) -> None:
    configure(cloud, "doubles", packed())
    with pytest.raises(ClientError, match="Could not access model data at s3://artifacts/nowhere"):
        cloud.client("sagemaker").create_model(
            ModelName="none",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0",
                "ModelDataUrl": "s3://artifacts/nowhere/model.tar.gz",
            },
        )


def test_names_break_no_rule(cloud: Loopback) -> None:
    client = cloud.client("sagemaker").meta.service_model  # the client checks types only; the service checks the rest
    assert client is not None
    with pytest.raises(ClientError, match="regular expression pattern"):
        cloud.client("sagemaker").create_endpoint(EndpointName="under_score", EndpointConfigName="x")
