"""Asynchronous endpoints: the queue, answers and failures in S3, notifications, metrics, and what a restart keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from rehearsal.sagemaker import SageMaker
from rehearsal.sagemaker.async_request import KIND
from rehearsal.sagemaker.runtime import SageMakerRuntime
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.serving import BUCKET, DOUBLES, configure, packed, same_python, settled, upload
from tests.rehearsal.waiting import until

PLACES = {"S3OutputPath": f"s3://{BUCKET}/answers/", "S3FailurePath": f"s3://{BUCKET}/failures"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """Shared: each test has an endpoint of its own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        same_python(monkeypatch)
        with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path_factory.mktemp("async"), time_scale=120) as made:
            yield made


def live(cloud: Loopback, name: str, script: str = DOUBLES, each: int = 4, **output: Any) -> dict[str, Any]:
    config = {"OutputConfig": {**PLACES, **output}, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": each}}
    configure(cloud, name, packed(2, script), AsyncInferenceConfig=config)
    cloud.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    return settled(cloud, name)


def ask(cloud: Loopback, name: str, body: bytes = b"[1, 2]", **more: Any) -> dict[str, Any]:
    place = upload(cloud, f"requests/{time.monotonic_ns()}.json", body)
    answer: dict[str, Any] = cloud.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=name, ContentType="application/json", InputLocation=place, **more
    )
    return answer


def content(cloud: Loopback, place: str) -> Any:
    """The object's content, or None as long as there is none."""
    parts = urlsplit(place)
    try:
        found = cloud.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
    except ClientError:
        return None
    return found["Body"].read()


def topic(cloud: Loopback, name: str) -> tuple[str, str]:
    """A topic and the URL of a queue that gets its messages."""
    made = cloud.client("sns").create_topic(Name=name)["TopicArn"]
    url = cloud.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    queue = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    cloud.client("sns").subscribe(
        TopicArn=made,
        Protocol="sqs",
        Endpoint=queue["Attributes"]["QueueArn"],
        Attributes={"RawMessageDelivery": "true"},
    )
    return made, url


def told(cloud: Loopback, queue: str) -> dict[str, Any]:
    received = until(lambda: cloud.client("sqs").receive_message(QueueUrl=queue).get("Messages"))
    return dict(json.loads(received[0]["Body"]))


def metrics(cloud: Loopback, name: str, endpoint: str) -> list[list[str]]:
    found = cloud.client("cloudwatch").list_metrics(
        Namespace="AWS/SageMaker", MetricName=name, Dimensions=[{"Name": "EndpointName", "Value": endpoint}]
    )["Metrics"]
    return [sorted(dimension["Name"] for dimension in metric["Dimensions"]) for metric in found]


def test_the_answer_is_put_where_the_response_says_and_success_is_told(cloud: Loopback) -> None:
    made, queue = topic(cloud, "success")
    endpoint = live(cloud, "answers", NotificationConfig={"SuccessTopic": made})
    assert endpoint["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == PLACES["S3OutputPath"]
    accepted = ask(cloud, "answers", InferenceId="row-7")
    assert accepted["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert accepted["InferenceId"] == "row-7"
    assert accepted["OutputLocation"].startswith(f"s3://{BUCKET}/answers/")
    assert accepted["FailureLocation"].startswith(f"s3://{BUCKET}/failures/")
    assert json.loads(until(lambda: content(cloud, accepted["OutputLocation"]))) == [2, 4]
    message = told(cloud, queue)
    assert message["invocationStatus"] == "Completed"
    assert message["responseParameters"] == {
        "contentType": "application/json", "outputLocation": accepted["OutputLocation"],
    }  # fmt: skip
    assert message["requestParameters"]["endpointName"] == "answers"
    assert (message["inferenceId"], message["eventSource"], message["eventName"], message["eventVersion"]) == (
        "row-7", "aws:sagemaker", "InferenceResult", "1.0",
    )  # fmt: skip


def test_what_the_model_refuses_is_put_at_the_failure_location_and_told(cloud: Loopback) -> None:
    made, queue = topic(cloud, "errors")
    live(cloud, "refuses", NotificationConfig={"ErrorTopic": made})
    accepted = ask(cloud, "refuses", b"[13]")
    assert b"thirteen is not a number we like" in until(lambda: content(cloud, accepted["FailureLocation"]))
    message = told(cloud, queue)
    assert message["invocationStatus"] == "Failed"
    assert "Received server error (500) from model" in message["failureReason"]
    assert "responseParameters" not in message
    assert content(cloud, accepted["OutputLocation"]) is None
    assert until(lambda: metrics(cloud, "InvocationFailures", "refuses")) == [["EndpointName", "VariantName"]]


def test_a_request_that_is_not_there_is_told(cloud: Loopback) -> None:
    made, queue = topic(cloud, "missing")
    live(cloud, "missing", NotificationConfig={"ErrorTopic": made})
    cloud.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="missing", InputLocation=f"s3://{BUCKET}/requests/none"
    )
    assert "Failed to download the request" in told(cloud, queue)["failureReason"]


def test_a_small_payload_may_come_with_the_call_and_its_place_be_named(cloud: Loopback) -> None:
    live(cloud, "inline")
    accepted = cloud.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="inline",
        ContentType="application/json",
        Body=b"[5]",
        S3OutputPathExtension="mine",
        Filename="a.json",
    )
    assert accepted["OutputLocation"] == f"s3://{BUCKET}/answers/mine/a.json"
    assert json.loads(until(lambda: content(cloud, accepted["OutputLocation"]))) == [10]


def test_only_as_many_requests_are_asked_at_once_as_the_configuration_says(cloud: Loopback) -> None:
    live(cloud, "narrow", DOUBLES.replace("time.sleep(0.5)", "time.sleep(0.3)"), each=1)
    began = time.monotonic()
    places = [ask(cloud, "narrow", b"[99]")["OutputLocation"] for _ in range(4)]
    assert all(until(lambda place=place: content(cloud, place)) for place in places)
    assert time.monotonic() - began >= 4 * 0.3
    names = ("ApproximateBacklogSize", "ApproximateBacklogSizePerInstance", "HasBacklogWithoutCapacity",
             "ApproximateAgeOfOldestRequest")  # fmt: skip
    assert until(lambda: metrics(cloud, "InvocationsProcesssed", "narrow")) == [["EndpointName", "VariantName"]]
    assert {name: metrics(cloud, name, "narrow") for name in names} == {name: [["EndpointName"]] for name in names}
    assert metrics(cloud, "ModelLatency", "narrow")
    assert not metrics(cloud, "Invocations", "narrow")


def test_a_model_that_does_not_answer_in_time_fails_the_request(cloud: Loopback) -> None:
    made, queue = topic(cloud, "slow")
    live(cloud, "slow", DOUBLES.replace("time.sleep(0.5)", "time.sleep(3)"), NotificationConfig={"ErrorTopic": made})
    ask(cloud, "slow", b"[99]", InvocationTimeoutSeconds=1)
    assert "did not answer within 1 seconds" in told(cloud, queue)["failureReason"]


def test_each_kind_of_endpoint_refuses_the_other_kinds_call(cloud: Loopback) -> None:
    live(cloud, "queue")
    configure(cloud, "direct", packed())
    cloud.client("sagemaker").create_endpoint(EndpointName="direct", EndpointConfigName="direct")
    settled(cloud, "direct")
    runtime = cloud.client("sagemaker-runtime")
    with pytest.raises(ClientError, match="use InvokeEndpointAsync") as caught:
        runtime.invoke_endpoint(EndpointName="queue", Body=b"[1]")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match=r"use InvokeEndpoint[.]"):
        runtime.invoke_endpoint_async(EndpointName="direct", InputLocation=f"s3://{BUCKET}/requests/x")
    with pytest.raises(ClientError, match="exactly one of Body and InputLocation"):
        runtime.invoke_endpoint_async(EndpointName="queue")


def test_a_response_in_the_notification_is_refused(cloud: Loopback) -> None:
    notify = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}
    with pytest.raises(ClientError, match="IncludeInferenceResponseIn is not rehearsed"):
        live(cloud, "included", NotificationConfig=notify)


def test_a_request_that_ends_while_the_queue_is_read_is_asked_once(
    cloud: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go = tmp_path / "asked", tmp_path / "go"
    waits = f"""    open({str(asked)!r}, "a").write("once ")
    while not os.path.exists({str(go)!r}): time.sleep(0.02)
    return [model"""
    live(cloud, "once", DOUBLES.replace("    return [model", waits))
    read, looks = cloud.store.list, []

    def slow(kind: str) -> list[tuple[str, dict[str, Any]]]:
        """What was read while the model was being asked arrives when the request has left the queue."""
        found = read(kind)
        if kind == KIND:
            looks.append(go.exists())
            if asked.exists() and not go.exists():
                go.touch()
                until(lambda: not [key for key, _ in read(KIND) if "/once/" in key])
                time.sleep(0.2)  # and is counted no more among those that are worked on
        return found

    monkeypatch.setattr(cloud.store, "list", slow)
    place = ask(cloud, "once", b"[4]")["OutputLocation"]
    assert json.loads(until(lambda: content(cloud, place))) == [8]
    until(lambda: sum(looks) > 1)
    time.sleep(0.5)
    assert asked.read_text() == "once "


def test_deleting_the_endpoint_drops_its_queue(cloud: Loopback) -> None:
    live(cloud, "dropped", DOUBLES.replace("time.sleep(0.5)", "time.sleep(1)"), each=1)
    for _ in range(3):
        ask(cloud, "dropped", b"[99]")
    cloud.client("sagemaker").delete_endpoint(EndpointName="dropped")
    until(lambda: not [key for key, _ in cloud.store.list(KIND) if "/dropped/" in key])


def test_what_is_queued_is_answered_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same_python(monkeypatch)
    slow = DOUBLES.replace("time.sleep(0.5)", "time.sleep(1)")
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as cloud:
        live(cloud, "kept", slow, each=1)
        places = [ask(cloud, "kept", b"[99]")["OutputLocation"] for _ in range(15)]
        assert content(cloud, places[-1]) is None, "so many that not all are answered before the restart"
    with serve(SageMaker, SageMakerRuntime, tmp_path=tmp_path) as again:
        assert [json.loads(until(lambda place=place: content(again, place))) for place in places] == [[198]] * 15


def test_a_queue_without_instances_waits_for_one(cloud: Loopback) -> None:
    live(cloud, "asleep")
    scale(cloud, "asleep", 0)
    place = ask(cloud, "asleep", b"[4]")["OutputLocation"]

    def lacks() -> bool:
        dimensions, now = [{"Name": "EndpointName", "Value": "asleep"}], time.time()
        statistics = cloud.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker", MetricName="HasBacklogWithoutCapacity", Dimensions=dimensions, Period=60,
            Statistics=["Maximum"], StartTime=now - 3600, EndTime=now + 60,
        )  # fmt: skip
        return any(point["Maximum"] == 1 for point in statistics["Datapoints"])

    until(lacks)
    assert content(cloud, place) is None
    scale(cloud, "asleep", 1)
    assert json.loads(until(lambda: content(cloud, place))) == [8]


def scale(cloud: Loopback, name: str, instances: int) -> None:
    wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": instances}]
    sagemaker = cloud.client("sagemaker")
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    assert settled(cloud, name)["ProductionVariants"][0]["CurrentInstanceCount"] == instances
