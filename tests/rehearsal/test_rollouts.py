"""Canary rollouts in the whole rehearsal: shifted traffic, measured metrics, alarms, rollback, no request lost."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from rehearsal import audit
from rehearsal.server import Running
from tests.conftest import Assembly
from tests.rehearsal import serving
from tests.rehearsal.daemon import make_role, open_queue
from tests.rehearsal.serving import DOUBLES, configure, packed, settled
from tests.rehearsal.waiting import until

REQUESTS, RATE = 1200, 120
SLOW = DOUBLES.replace("    return [model", "    time.sleep(0.05)\n    return [model")
FAILS_SOME = DOUBLES.replace("data == [13]", "data[0] > 0")
ALLOWED: list[dict[str, Any]] = [
    {"Action": ["s3:GetObject", "logs:*", "ecr:*", "cloudwatch:DescribeAlarms"], "Resource": "*"}
]


@pytest.fixture(scope="module")
def role(shared_cloud: Running) -> str:
    return make_role(shared_cloud, "serving", "sagemaker.amazonaws.com", *ALLOWED)


def live(cloud: Running, name: str, instances: int = 2) -> str:
    """An endpoint in service, of two instances; its address."""
    configure(cloud, name, packed(), instances=instances)
    sagemaker = cloud.client("sagemaker")
    made = sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)["EndpointArn"]
    assert settled(cloud, name)["EndpointStatus"] == "InService"
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=made)["Tags"]}
    return tags["rehearsal:url"]


def alarm(cloud: Running, name: str, endpoint: str, config: str, **settings: Any) -> None:
    dimensions = {"EndpointName": endpoint, "VariantName": "AllTraffic", "EndpointConfigName": config}
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        **{
            "Period": 60,
            "EvaluationPeriods": 1,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
            **settings,
        },
    )


def update(cloud: Running, endpoint: str, config: str, *alarms: str, bake_seconds: int = 180) -> None:
    canary = {"Type": "CANARY", "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}
    routing = {**canary, "WaitIntervalInSeconds": bake_seconds}
    cloud.client("sagemaker").update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=config,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]},
        },
    )


class Load:
    """REQUESTS requests at RATE a second from four clients, and more until it is ended, whatever the answers are."""

    def __init__(self, url: str) -> None:
        self.sent: list[int] = []
        self.answers: list[httpx.Response] = []
        self._url, self._over = url, threading.Event()
        self._clients = [threading.Thread(target=self._send) for _ in range(4)]

    def start(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def end(self) -> Counter[tuple[int, str]]:
        self._over.set()
        for client in self._clients:
            client.join()
        return Counter((answer.status_code, answer.text) for answer in self.answers)

    def _send(self) -> None:
        began = time.monotonic()
        with httpx.Client(timeout=60) as client:
            for number in itertools.count():
                if number >= REQUESTS // 4 and self._over.is_set():
                    return
                time.sleep(max(0.0, began + number * 4 / RATE - time.monotonic()))
                self.sent.append(number)
                self.answers.append(client.post(f"{self._url}/invocations", json=[1]))


def trickle(url: str, done: threading.Event) -> None:
    while not done.is_set():
        httpx.post(f"{url}/invocations", json=[1], timeout=60)
        done.wait(0.02)


@pytest.fixture(autouse=True)
def _served_as(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ROLE", role)


def test_a_canary_under_load_loses_no_request_and_reaches_all_traffic(shared_cloud: Running) -> None:
    url = live(shared_cloud, "good")
    configure(shared_cloud, "good-3", packed(3), instances=2)
    alarm(
        shared_cloud,
        "good-errors",
        "good",
        "good-3",
        MetricName="Invocation5XXErrors",
        Statistic="Average",
        Threshold=0.01,
    )
    load = Load(url).start()
    update(shared_cloud, "good", "good-3", "good-errors")
    after = settled(shared_cloud, "good")
    counted = load.end()
    assert (after["EndpointConfigName"], after.get("FailureReason")) == ("good-3", None)
    assert counted.keys() <= {(200, "[2.0]"), (200, "[3.0]")}
    assert counted.total() == len(load.sent)
    assert counted[200, "[3.0]"] > 0
    assert httpx.post(f"{url}/invocations", json=[1], timeout=60).text == "[3.0]"


def test_a_slow_challenger_is_rolled_back_by_p99_and_no_request_is_lost(shared_cloud: Running) -> None:
    url = live(shared_cloud, "slow")
    configure(shared_cloud, "slow-2", packed(2, SLOW), instances=2)
    settings = {"MetricName": "ModelLatency", "ExtendedStatistic": "p99", "Threshold": 45_000.0}
    alarm(shared_cloud, "slow-p99", "slow", "slow-2", **settings)
    load = Load(url).start()
    update(shared_cloud, "slow", "slow-2", "slow-p99", bake_seconds=3600)
    after = settled(shared_cloud, "slow")
    counted = load.end()
    assert after["EndpointConfigName"] == "slow"
    assert "slow-p99 went to ALARM" in after["FailureReason"]
    assert counted == {(200, "[2.0]"): len(load.sent)}


def test_a_challenger_that_fails_rows_is_rolled_back_and_only_its_own_fleet_is_blamed(shared_cloud: Running) -> None:
    url = live(shared_cloud, "rows")
    configure(shared_cloud, "rows-2", packed(2, FAILS_SOME), instances=2)
    settings = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": 0.5}
    alarm(shared_cloud, "rows-new", "rows", "rows-2", **settings)
    alarm(shared_cloud, "rows-old", "rows", "rows", **settings)
    done = threading.Event()
    client = threading.Thread(target=trickle, args=(url, done))
    client.start()
    update(shared_cloud, "rows", "rows-2", "rows-new", "rows-old", bake_seconds=3600)
    after = settled(shared_cloud, "rows")
    done.set()
    client.join()
    assert after["EndpointConfigName"] == "rows"
    assert "the alarm rows-new went" in after["FailureReason"]
    assert httpx.post(f"{url}/invocations", json=[1], timeout=60).text == "[2.0]"
    history = shared_cloud.client("cloudwatch").describe_alarm_history(
        AlarmName="rows-old", HistoryItemType="StateUpdate"
    )
    assert not [item for item in history["AlarmHistoryItems"] if item["HistorySummary"].endswith("to ALARM")]


def test_an_alarm_without_data_does_not_stop_a_rollout(shared_cloud: Running) -> None:
    live(shared_cloud, "quiet")
    configure(shared_cloud, "quiet-2", packed(3), instances=2)
    settings = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": 0.5}
    alarm(shared_cloud, "quiet-errors", "quiet", "quiet-2", **settings)
    update(shared_cloud, "quiet", "quiet-2", "quiet-errors", bake_seconds=60)
    assert settled(shared_cloud, "quiet")["EndpointConfigName"] == "quiet-2"


def test_the_execution_role_must_be_allowed_to_look_at_the_alarms(
    shared_cloud: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = [{**ALLOWED[0], "Action": ["s3:GetObject", "logs:*", "ecr:*"]}]
    monkeypatch.setattr(serving, "ROLE", make_role(shared_cloud, "blind", "sagemaker.amazonaws.com", *blind))
    live(shared_cloud, "blind")
    settings = {"MetricName": "Invocation5XXErrors", "Statistic": "Average", "Threshold": 0.5}
    alarm(shared_cloud, "blind-errors", "blind", "blind", **settings)
    with pytest.raises(ClientError, match="needs cloudwatch:DescribeAlarms"):
        update(shared_cloud, "blind", "blind", "blind-errors")


def test_a_linear_rollout_gives_the_new_fleet_one_more_instances_share_in_every_step(shared_cloud: Running) -> None:
    url = live(shared_cloud, "linear", instances=3)
    configure(shared_cloud, "linear-3", packed(3), instances=3)
    # Each of the three steps takes eight seconds, so that there is time to see it whatever else the machine does.
    step = {"Type": "LINEAR", "LinearStepSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 480}
    shared_cloud.client("sagemaker").update_endpoint(
        EndpointName="linear",
        EndpointConfigName="linear-3",
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": step}},
    )
    shares = []
    with httpx.Client(timeout=60) as client:
        while (
            shared_cloud.client("sagemaker").describe_endpoint(EndpointName="linear")["EndpointStatus"] != "InService"
        ):
            answers = [client.post(f"{url}/invocations", json=[1]) for _ in range(6)]
            assert {answer.status_code for answer in answers} == {200}
            shares.append(sum(answer.text == "[3.0]" for answer in answers) / 6)
            time.sleep(0.1)
    steps = [1 / 3, 2 / 3]
    found = [share for share in shares if any(abs(share - step) < 0.01 for step in steps)]
    assert {round(share * 3) for share in found} == {1, 2}, shares
    assert found == sorted(found), "traffic moves one way"
    most_so_far = itertools.accumulate(shares, max)
    back = [most - share for most, share in zip(most_so_far, shares, strict=True)]
    assert max(back) < 1.5 / 6, "and six requests that see two steps lack one at the most"
    assert httpx.post(f"{url}/invocations", json=[1], timeout=60).text == "[3.0]"


def deployed_topic(cloud: Running, assembly: Assembly) -> str:
    """The topic of people in production as its template says it: encrypted, over TLS only."""
    kinds = ("AWS::KMS::Key", "AWS::SNS::Topic", "AWS::SNS::TopicPolicy")
    found = {name: made for kind in kinds for name, made in assembly.resources(kind, "Pushline-Production").items()}
    assert {made["Type"] for made in found.values()} == set(kinds)
    (name,) = assembly.resources("AWS::SNS::Topic", "Pushline-Production")
    stacks = cloud.client("cloudformation")
    template = {"Resources": found, "Outputs": {"Topic": {"Value": {"Ref": name}}}}
    stacks.create_stack(StackName="ringing", TemplateBody=json.dumps(template))
    stacks.get_waiter("stack_create_complete").wait(StackName="ringing", WaiterConfig={"Delay": 1})
    (stack,) = stacks.describe_stacks(StackName="ringing")["Stacks"]
    return str(stack["Outputs"][0]["OutputValue"])


def test_an_alarm_that_rings_is_an_event_and_tells_its_topic_once(shared_cloud: Running, assembly: Assembly) -> None:
    events, messages = (open_queue(shared_cloud, f"ringing-{by}", f"{by}.amazonaws.com") for by in ("events", "sns"))
    queue = "arn:aws:sqs:us-east-1:000000000000:ringing"
    rules, topics = shared_cloud.client("events"), shared_cloud.client("sns")
    rules.put_rule(Name="ringing", EventPattern=json.dumps({"detail-type": ["CloudWatch Alarm State Change"]}))
    rules.put_targets(Rule="ringing", Targets=[{"Id": "1", "Arn": f"{queue}-events"}])
    topic = deployed_topic(shared_cloud, assembly)
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"{queue}-sns")
    alarm(
        shared_cloud, "rings", "any", "any", MetricName="Errors", Statistic="Sum", Threshold=0.0, AlarmActions=[topic]
    )
    dimensions = {"EndpointName": "any", "VariantName": "AllTraffic", "EndpointConfigName": "any"}
    datum = {"MetricName": "Errors", "Value": 1.0,
             "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()]}  # fmt: skip
    told, changes = list[Any](), Counter[tuple[str, str]]()

    def rung() -> bool:
        """A datapoint keeps the alarm on for a few seconds only, in which a busy machine may not look at it."""
        shared_cloud.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[datum])
        told.extend(arrived(shared_cloud, messages))
        return bool(told)

    def told_each_time() -> bool:
        """Whether it was told as often as it went on, and is off again; each change is an event."""
        told.extend(arrived(shared_cloud, messages))
        for event in arrived(shared_cloud, events):
            if (detail := event["detail"])["alarmName"] == "rings":
                changes[detail["previousState"]["value"], detail["state"]["value"]] += 1
        on = sum(count for (_, state), count in changes.items() if state == "ALARM")
        return len(told) == on == changes["ALARM", "OK"]

    until(rung)
    until(told_each_time, lambda: f"told {len(told)} times of {changes}")
    message = told[0]
    said = json.loads(message["Message"])
    assert (said["AlarmName"], said["NewStateValue"], said["Trigger"]["MetricName"]) == ("rings", "ALARM", "Errors")
    decided = {(entry["principal"], entry["decision"]) for entry in audit.read(shared_cloud.state_dir)
               if (entry["action"], entry["resource"]) == ("sns:Publish", topic)}  # fmt: skip
    assert ("cloudwatch.amazonaws.com", "Allow") in decided
    assert {decision for _, decision in decided} == {"Allow"}


def arrived(cloud: Running, url: str) -> list[Any]:
    """What a queue has now; it has it no longer."""
    queue = cloud.client("sqs")
    messages = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    for message in messages:
        queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


def test_an_alarm_that_can_not_be_evaluated_is_refused_for_all_that_is_odd(shared_cloud: Running) -> None:
    odd = {"ExtendedStatistic": "tm99", "EvaluationWindow": {"WallClockWindow": {"Timezone": "Europe/Berlin"}}}
    with pytest.raises(ClientError, match=r"wall clock windows are not rehearsed.*; .*tm99 is not rehearsed"):
        alarm(shared_cloud, "odd", "x", "y", MetricName="ModelLatency", Threshold=1, **odd)


def test_metrics_have_the_variants_dimensions_and_the_fleets(shared_cloud: Running) -> None:
    url = live(shared_cloud, "measured")
    for _ in range(5):
        httpx.post(f"{url}/invocations", json=[1], timeout=60)

    def dimensions() -> Any:
        found = shared_cloud.client("cloudwatch").list_metrics(
            Namespace="AWS/SageMaker",
            MetricName="ModelLatency",
            Dimensions=[{"Name": "EndpointName", "Value": "measured"}],
        )["Metrics"]
        return sorted(sorted(d["Name"] for d in metric["Dimensions"]) for metric in found)

    until(dimensions)
    assert dimensions() == [["EndpointConfigName", "EndpointName", "VariantName"], ["EndpointName", "VariantName"]]
