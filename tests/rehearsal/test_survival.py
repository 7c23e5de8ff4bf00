"""What was there before the daemon ended is there afterwards, also when it was killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rehearsal import assembly, server
from rehearsal.server import NotStarted, Running
from rehearsal.service import Params, Provisioned, ResourceType, Service, Stack
from tests.rehearsal.daemon import kept, make_role
from tests.rehearsal.test_assembly import Repositories, Repository, did, repository, write
from tests.rehearsal.waiting import until


class Slow(Repository):
    """Takes long when its description says so, or to change to "held" until a file lets it go on."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.state_dir = service.cloud.state_dir

    def expected_id(self, properties: Params) -> str:
        return str(properties["RepositoryName"])

    def create(self, properties: Params, stack: Stack) -> Provisioned:
        made = super().create(properties, stack)
        if properties.get("RepositoryDescription") == "slow":
            time.sleep(60)
        return made

    def update(self, physical_id: str, old: Params, new: Params, stack: Stack) -> Provisioned:
        made = super().update(physical_id, old, new, stack)
        if new.get("RepositoryDescription") == "slow":
            time.sleep(60)
        while new.get("RepositoryDescription") == "held" and not (self.state_dir / "go-on").exists():
            time.sleep(0.05)
        return made


class SlowRepositories(Repositories):
    def resource_types(self) -> dict[str, ResourceType]:
        return {"AWS::CodeCommit::Repository": Slow(self)}


def up(state_dir: Path) -> Running:
    return server.up(state_dir, port=0, time_scale=60, services=[f"{__name__}:SlowRepositories"])


def kill(at: Running) -> None:
    os.kill(at.pid, signal.SIGKILL)
    server._reap(at.state_dir)


def stack_kept(at: Running, status: str) -> None:
    """Wait until the stack S is on disk as this."""

    def look() -> bool:
        stacks = json.loads((at.state_dir / "ministack" / "cloudformation.json").read_text())["payload"]["stacks"]
        return any(stack["StackName"] == "S" and stack["StackStatus"] == status for stack in stacks["data"].values())

    kept(at, "cloudformation", status)
    until(look, f"the stack is not on disk as {status}")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Running]:
    yield up(tmp_path / "state")
    server.down(tmp_path / "state")


@pytest.mark.parametrize("end", [kill, lambda at: server.down(at.state_dir)], ids=["killed", "stopped"])
def test_everything_is_still_there(at: Running, end: Any, tmp_path: Path) -> None:
    s3 = at.client("s3")
    s3.create_bucket(Bucket="data")
    s3.put_object(Bucket="data", Key="a/b", Body=b"content")
    role = make_role(at, "keeper", "glue.amazonaws.com")
    assembly.deploy(at, write(tmp_path / "out", "S", {"A": repository("a")}), Console(quiet=True))
    kept(at, "iam", "keeper")
    stack_kept(at, "CREATE_COMPLETE")
    end(at)
    again = up(at.state_dir)
    assert again.client("s3").get_object(Bucket="data", Key="a/b")["Body"].read() == b"content"
    assert again.client("iam").get_role(RoleName="keeper")["Role"]["Arn"] == role
    assert again.root == at.root
    stack = again.client("cloudformation").describe_stacks(StackName="S")["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert oct((at.state_dir / "credentials.json").stat().st_mode & 0o777) == "0o600"


def test_an_update_that_was_killed_is_rolled_back_and_the_stack_stays_usable(at: Running, tmp_path: Path) -> None:
    before = {"A": repository("a", "old"), "B": repository("b")}
    assembly.deploy(at, write(tmp_path / "1", "S", before), Console(quiet=True))
    template = {"Resources": {"A": repository("a", "new"), "B": repository("b", "slow") | {"DependsOn": "A"}}}
    at.client("cloudformation").update_stack(StackName="S", TemplateBody=json.dumps(template))
    while did(at)[-1] != "update b slow":
        time.sleep(0.05)
    stack_kept(at, "UPDATE_IN_PROGRESS")
    kill(at)
    again = up(at.state_dir)
    until(lambda: status(again) == "UPDATE_ROLLBACK_COMPLETE")
    assert sorted(did(again)[-2:]) == ["update a old", "update b"], "also the one that had not returned"
    events = again.client("cloudformation").describe_stack_events(StackName="S")["StackEvents"]
    assert any("lost when the rehearsal stopped" in e.get("ResourceStatusReason", "") for e in events)
    assembly.deploy(
        again, write(tmp_path / "2", "S", {"A": repository("a", "newer"), "B": repository("b")}), Console(quiet=True)
    )
    assert did(again)[-1] == "update a newer"


def test_what_a_killed_update_was_creating_is_deleted(at: Running, tmp_path: Path) -> None:
    assembly.deploy(at, write(tmp_path / "1", "S", {"A": repository("a")}), Console(quiet=True))
    template = {"Resources": {"A": repository("a"), "B": repository("b", "slow")}}
    at.client("cloudformation").update_stack(StackName="S", TemplateBody=json.dumps(template))
    while did(at)[-1] != "create b slow":
        time.sleep(0.01)
    kill(at)
    again = up(at.state_dir)
    until(lambda: status(again) == "UPDATE_ROLLBACK_COMPLETE")
    assert did(again)[-1] == "delete b"


def test_a_rollback_that_was_killed_too_is_begun_again(at: Running, tmp_path: Path) -> None:
    before = {"A": repository("a"), "B": repository("b", "held")}
    assembly.deploy(at, write(tmp_path / "1", "S", before), Console(quiet=True))
    template = {"Resources": {"A": repository("a", "new"), "B": repository("b", "slow")}}
    at.client("cloudformation").update_stack(StackName="S", TemplateBody=json.dumps(template))
    until(lambda: did(at)[-1] == "update b slow")
    kill(at)
    again = up(at.state_dir)
    until(lambda: did(again)[-1] == "update b held")
    stack_kept(again, "UPDATE_ROLLBACK_IN_PROGRESS")
    kill(again)
    last = up(at.state_dir)
    (at.state_dir / "go-on").touch()
    until(lambda: status(last) == "UPDATE_ROLLBACK_COMPLETE")
    assert did(last)[-1] == "update b held"
    assert not [what for what in did(last) if what.startswith("delete")]


def status(at: Running) -> str:
    (stack,) = at.client("cloudformation").describe_stacks(StackName="S")["Stacks"]
    return str(stack["StackStatus"])


def test_an_execution_that_was_running_is_reported_as_lost(at: Running) -> None:
    states = at.client("stepfunctions")
    machine = states.create_state_machine(
        name="m",
        roleArn=make_role(at, "m", "states.amazonaws.com"),
        definition=json.dumps({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 9999, "End": True}}}),
    )
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]
    kept(at, "stepfunctions", execution)
    kill(at)
    found = up(at.state_dir).client("stepfunctions").describe_execution(executionArn=execution)
    assert (found["status"], found["cause"]) == ("FAILED", "the execution was lost when the rehearsal stopped")


def test_a_taken_port_and_a_second_daemon_are_explained(at: Running, tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match=f"port {at.port} is in use; stop what uses it, or choose another with --port"):
        server.up(tmp_path / "other", port=at.port)
    assert server.up(at.state_dir).pid == at.pid


def test_a_daemon_that_was_killed_is_not_found(at: Running) -> None:
    kill(at)
    assert server.find(at.state_dir) is None
    assert server.down(at.state_dir) is False


class Lingering(Service):
    """Has saved everything when it stops, but keeps the interpreter from ending."""

    name = "codecommit"

    def stop(self) -> None:
        threading.Thread(target=time.sleep, args=(300,)).start()


def test_a_daemon_that_has_stopped_but_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "EXIT_SECONDS", 0.5)
    at = server.up(tmp_path, port=0, services=[f"{__name__}:Lingering"])
    assert server.down(tmp_path) is True
    with pytest.raises(ProcessLookupError):
        os.kill(at.pid, 0)
