"""What the embedded AWS does around our services: routing, IAM, roles, logs, events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from rehearsal import audit
from rehearsal.cloud.log_streams import LogStream
from rehearsal.server import Running
from rehearsal.service import Caller, Params, Permission, Response, Route, Service, arn
from tests.rehearsal.daemon import make_role, open_queue
from tests.rehearsal.waiting import until


class Repositories(Service):
    """A small service of ours: enough of CodeCommit to be called, denied, and to call others."""

    name = "codecommit"

    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return [Permission(f"codecommit:{operation}", arn("codecommit", caller, params["repositoryName"]))]

    def get_repository(self, caller: Caller, params: Params) -> Params:
        return {
            "repositoryMetadata": {
                "repositoryName": params["repositoryName"],
                "accountId": caller.account,
                "repositoryDescription": caller.arn,
            }
        }

    def delete_repository(self, caller: Caller, params: Params) -> Params:
        self.cloud.emit("aws.codecommit", "CodeCommit Repository State Change", {"event": "deleted"}, [], caller)
        self.cloud.logs("/repositories", params["repositoryName"], caller).write("deleted\nwholly")
        return {"repositoryId": "1"}

    def update_repository_name(self, caller: Caller, params: Params) -> Params:
        """Calls S3 under the role named by `newName`, as a job would."""
        s3 = self.cloud.client(
            "s3", role=f"arn:aws:iam::{caller.account}:role/{params['newName']}", by="glue.amazonaws.com"
        )
        s3.list_objects_v2(Bucket=params["oldName"])
        return {}

    def http_routes(self) -> dict[str, Route]:
        return {"/v1/repos/": self.git}

    def git(self, method: str, path: str, query: str, headers: Any, body: bytes) -> Response:
        return 200, {"Content-Type": "text/plain"}, f"{method} {path}?{query}".encode()


class Renaming(Repositories):
    def permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        return []


def as_role(cloud: Running, role: str, service: str) -> Any:
    session = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    return cloud.client(
        service,
        aws_access_key_id=session["AccessKeyId"],
        aws_session_token=session["SessionToken"],
        aws_secret_access_key=session["SecretAccessKey"],
    )


def test_a_service_of_ours_answers_boto3(start: Callable[..., Running]) -> None:
    cloud = start(Repositories)
    found = cloud.client("codecommit").get_repository(repositoryName="pushline")
    assert found["repositoryMetadata"]["accountId"] == "000000000000"
    assert found["repositoryMetadata"]["repositoryDescription"] == "arn:aws:iam::000000000000:root"


def test_a_role_may_do_what_its_policy_says_on_that_resource_only(start: Callable[..., Running]) -> None:
    cloud = start(Repositories)
    role = make_role(
        cloud,
        "reader",
        "lambda.amazonaws.com",
        {"Action": "codecommit:GetRepository", "Resource": "arn:aws:codecommit:us-east-1:000000000000:pushline"},
    )
    codecommit = as_role(cloud, role, "codecommit")
    assert codecommit.get_repository(repositoryName="pushline")["repositoryMetadata"]["repositoryDescription"] == (
        "arn:aws:sts::000000000000:assumed-role/reader/me"
    )
    with pytest.raises(ClientError, match=r"not authorized to perform: codecommit:GetRepository on resource: .*:other"):
        codecommit.get_repository(repositoryName="other")
    decisions = [
        (e["decision"], e["resource"].rpartition(":")[2])
        for e in audit.read(cloud.state_dir)
        if e["action"] == "codecommit:GetRepository"
    ]
    assert decisions == [("Allow", "pushline"), ("ImplicitDeny", "other")]
    allowed = next(e for e in audit.read(cloud.state_dir) if e["action"] == "codecommit:GetRepository")
    assert allowed["statement"]["Action"] == ["codecommit:GetRepository"]


def test_input_is_checked_and_an_operation_that_is_not_ours_is_refused(start: Callable[..., Running]) -> None:
    cloud = start(Repositories)
    with pytest.raises(ClientError, match=r"ValidationException.*repositoryName"):
        _unchecked(cloud).get_repository()
    with pytest.raises(ClientError, match="codecommit:CreateRepository is not rehearsed"):
        cloud.client("codecommit").create_repository(repositoryName="pushline")


def test_a_forged_signature_is_refused_also_for_the_root(start: Callable[..., Running]) -> None:
    cloud = start(Repositories)
    for key in (cloud.root.access_key, "test", "000000000000"):
        for service, call in (("codecommit", "list_repositories"), ("s3", "list_buckets")):
            forged = cloud.client(service, aws_access_key_id=key, aws_secret_access_key="test")
            with pytest.raises(ClientError, match="signature"):
                getattr(forged, call)()


def test_a_service_acts_under_a_role_that_must_trust_it(start: Callable[..., Running]) -> None:
    cloud = start(Renaming)
    cloud.client("s3").create_bucket(Bucket="data")
    make_role(cloud, "job", "glue.amazonaws.com", {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::data"})
    make_role(cloud, "foreign", "lambda.amazonaws.com", {"Action": "s3:*", "Resource": "*"})
    codecommit = cloud.client("codecommit")
    codecommit.update_repository_name(oldName="data", newName="job")
    with pytest.raises(ClientError, match=r"glue.amazonaws.com can't assume .*foreign: its trust policy"):
        codecommit.update_repository_name(oldName="data", newName="foreign")
    with pytest.raises(ClientError, match="there is no such role"):
        codecommit.update_repository_name(oldName="data", newName="nobody")


def test_logs_and_events_of_a_service_arrive(start: Callable[..., Running]) -> None:
    cloud = start(Repositories)
    sqs = cloud.client("sqs")
    queue = open_queue(cloud, "events")
    events = cloud.client("events")
    events.put_rule(Name="deleted", EventPattern='{"source": ["aws.codecommit"], "detail": {"event": ["deleted"]}}')
    events.put_targets(Rule="deleted", Targets=[{"Id": "1", "Arn": "arn:aws:sqs:us-east-1:000000000000:events"}])
    cloud.client("codecommit").delete_repository(repositoryName="pushline")
    until(lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages"), "no event came")
    assert until(lambda: _messages(cloud, "/repositories", "pushline")) == ["deleted\nwholly"]


def test_a_flush_of_a_log_waits_for_the_lines_that_another_thread_is_sending() -> None:
    client, sending, sent = Mock(), threading.Event(), threading.Event()
    client.exceptions.ResourceAlreadyExistsException = client.exceptions.ResourceNotFoundException = KeyError

    def send(**_: Any) -> None:
        sending.set()
        sent.wait()

    client.put_log_events.side_effect = send
    stream = LogStream(client, "group", "stream")
    stream.write("the last line")
    under_way, last = (threading.Thread(target=stream.flush, daemon=True) for _ in range(2))
    under_way.start()
    until(sending.is_set)
    last.start()
    last.join(0.3)
    assert last.is_alive(), "it came back before the line was sent"
    sent.set()
    last.join()
    assert client.put_log_events.call_count == 1


def test_a_route_outside_the_aws_protocols_reaches_its_service(start: Callable[..., Running]) -> None:
    import urllib.request

    cloud = start(Repositories)
    with urllib.request.urlopen(f"{cloud.endpoint}/v1/repos/pushline/info/refs?service=git-upload-pack") as answer:
        assert answer.read() == b"GET /v1/repos/pushline/info/refs?service=git-upload-pack"


def _messages(cloud: Running, group: str, stream: str) -> list[str]:
    logs = cloud.client("logs")
    try:
        return [e["message"] for e in logs.get_log_events(logGroupName=group, logStreamName=stream)["events"]]
    except logs.exceptions.ResourceNotFoundException:
        return []


def _unchecked(cloud: Running) -> Any:
    from botocore.config import Config

    return cloud.client("codecommit", config=Config(parameter_validation=False))
