"""The command line when something is wrong: one line that says what there is and what to do, and an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rehearsal import cli, server
from rehearsal import state_dir as state
from rehearsal.server import Running
from tests.conftest import ROOT
from tests.rehearsal.daemon import make_role, running

MODEL, GROUP = "tides", "tides"


@dataclass(frozen=True)
class Ended:
    """How a verb ended; `told` is what it explained on standard error."""

    code: int
    out: str
    told: str

    def explains(self, *words: str, code: int = 1) -> None:
        """It ended with `code` and one line that holds `words`."""
        assert self.code == code, self
        assert len(self.told.strip().splitlines()) == 1, self.told
        assert all(word in self.told for word in words), self.told


Verb = Callable[..., Ended]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Runs a verb as `python -m rehearsal VERB …` does, in this process."""

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rehearsal", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return Ended(1, out, f"{err}{code}") if isinstance(code, str) else Ended(code or 0, out, err)

    return run


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of a rehearsal on which nothing is deployed."""
    state_dir = tmp_path_factory.mktemp("empty") / "state"
    with running(state_dir):
        yield state_dir


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A rehearsal with one model in staging, as far as stack outputs go: nothing was ever pushed."""
    with running(tmp_path_factory.mktemp("deployed") / "state", time_scale=1.0) as cloud:
        cloud.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
        cloud.client("s3").create_bucket(Bucket="raw-data")
        outputs = {"Model": MODEL, "Environment": "staging", "Endpoint": "tides-staging", "ModelPackageGroup": GROUP,
                   "RawData": "s3://raw-data/raw/tides/", "Reconciler": reconciler(cloud)}  # fmt: skip
        resource = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "x", "Name": "/x"}}
        template = {"Resources": {"X": resource}, "Outputs": {name: {"Value": text} for name, text in outputs.items()}}
        cloudformation = cloud.client("cloudformation")
        cloudformation.create_stack(StackName="Tides", TemplateBody=json.dumps(template))
        cloudformation.get_waiter("stack_create_complete").wait(StackName="Tides", WaiterConfig={"Delay": 1})
        yield cloud


def reconciler(cloud: Running) -> str:
    """A state machine that takes its time."""
    definition = {"StartAt": "Bake", "States": {"Bake": {"Type": "Wait", "Seconds": 300, "End": True}}}
    made = cloud.client("stepfunctions").create_state_machine(
        name="reconciler", definition=json.dumps(definition), roleArn=make_role(cloud, "bake", "states.amazonaws.com")
    )
    return str(made["stateMachineArn"])


# -- up and down --------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_with_the_option_that_helps(verb: Verb, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        verb("up", "--state-dir", tmp_path / "s", "--port", port).explains(f"port {port} is in use", "--port")
    assert server.find(tmp_path / "s") is None


def test_up_prints_exports_and_is_the_same_when_it_runs_already(verb: Verb, tmp_path: Path) -> None:
    place = ("--state-dir", tmp_path / "s")
    first = verb("up", *place, "--port", 0)
    try:
        assert first.code == 0, first
        exports = dict(line.removeprefix("export ").split("=", 1) for line in first.out.splitlines())
        assert exports["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
        assert verb("up", *place).out == first.out
    finally:
        down = verb("down", *place)
    assert (down.code, down.told) == (0, "stopped\n")


def test_down_where_nothing_runs_is_no_failure(verb: Verb, tmp_path: Path) -> None:
    ended = verb("down", "--state-dir", tmp_path / "none")
    ended.explains("nothing was running on", code=0)
    assert not (tmp_path / "none").exists()


def test_what_was_killed_is_not_running_and_starts_again(verb: Verb, tmp_path: Path) -> None:
    place = tmp_path / "s"
    verb("up", "--state-dir", place, "--port", 0)
    at = server.find(place)
    assert at is not None
    os.kill(at.pid, signal.SIGKILL)
    server._reap(place)
    verb("status", "--state-dir", place).explains("nothing runs on", "./pushline up")
    again = verb("up", "--state-dir", place, "--port", 0)
    assert again.code == verb("down", "--purge", "--state-dir", place).code == 0
    assert not place.exists()


@pytest.mark.parametrize("option", [("--time-scale", "0"), ("--port", "70000")])
def test_an_option_out_of_range_starts_nothing(verb: Verb, tmp_path: Path, option: tuple[str, str]) -> None:
    ended = verb("up", "--state-dir", tmp_path / "s", *option)
    assert ended.code == 2
    assert option[0] in ended.told
    assert not (tmp_path / "s").exists()


# -- the state directory ------------------------------------------------------------------------------


def test_purge_deletes_nothing_that_is_not_the_rehearsals(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ended = verb("down", "--purge", "--state-dir", tmp_path)
    assert ended.code == 1
    assert "nothing was deleted" in ended.told
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    verb("up", "--state-dir", tmp_path).explains("not the rehearsal's", "--state-dir")


def test_state_of_another_format_is_told_with_the_way_out(verb: Verb, tmp_path: Path) -> None:
    state.prepare(tmp_path / "s")
    (tmp_path / "s" / "format").write_text("0\n")
    verb("up", "--state-dir", tmp_path / "s").explains("another version of Pushline", "format 0", "down --purge")
    assert verb("down", "--purge", "--state-dir", tmp_path / "s").code == 0
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("arguments", [("up",), ("down", "--purge"), ("status",), ("deploy", "."), ("audit",)])
def test_a_state_directory_that_is_a_file(verb: Verb, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "s").write_text("held")
    ended = verb(*arguments, "--state-dir", tmp_path / "s")
    assert ended.code == 1
    assert "Traceback" not in ended.told
    assert ended.told.splitlines()[-1].startswith("rehearsal: ")
    assert (tmp_path / "s").read_text() == "held"


def test_a_full_disk_is_told_before_anything_starts(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Namespace(free=10**9))
    verb("up", "--state-dir", tmp_path / "s").explains("only 1.0 GB are free", "make room")


@pytest.mark.parametrize("name", ["deploy", "load", "remote", "wait", "status", "logs", "approve", "reject", "invoke"])
def test_a_verb_that_needs_the_rehearsal_says_how_to_start_it(verb: Verb, tmp_path: Path, name: str) -> None:
    model = {"load": ["m"], "logs": ["x"], "approve": ["m", "1"], "reject": ["m", "1"], "invoke": ["m"]}.get(name, [])
    place = tmp_path / "s"
    verb(name, *model, "--state-dir", place).explains(f"nothing runs on {place}", f"up --state-dir {place}")


def test_there_is_no_git(verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.prepare(tmp_path / "told")
    (tmp_path / "told" / "clone").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    verb("demo", "--state-dir", tmp_path / "told").explains("git is missing", "install it")
    assert (tmp_path / "told" / "clone").exists(), "the last demo was forgotten for one that can't be told"
    verb("up", "--state-dir", tmp_path / "s").explains("git is missing", "install it")


# -- deploying ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", [None, "{half"])
def test_there_is_no_assembly(verb: Verb, empty: Path, tmp_path: Path, manifest: str | None) -> None:
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    verb("deploy", tmp_path, "--state-dir", empty).explains("is no cloud assembly", "./pushline synth")
    verb("demo", "--cdk-out", tmp_path, "--state-dir", tmp_path / "s").explains("is no cloud assembly")
    assert not (tmp_path / "s").exists()


# -- asking for what is not there ---------------------------------------------------------------------


def test_status_of_an_empty_deployment_has_the_contracts_shape(verb: Verb, empty: Path) -> None:
    ended = verb("status", "--json", "--state-dir", empty)
    assert json.loads(ended.out) == {
        "triggers": [], "pipelines": [], "model_packages": [], "releases": [], "endpoints": [], "schema": 1
    }  # fmt: skip
    assert (ended.code, ended.told) == (0, "")
    assert "Endpoints" in verb("status", "--state-dir", empty).out


def test_status_of_a_model_that_was_never_pushed(verb: Verb, deployed: Running) -> None:
    document = json.loads(verb("status", "--json", "--state-dir", deployed.state_dir).out)
    assert document["endpoints"] == [{
        "model": MODEL, "environment": "staging", "name": "tides-staging", "status": "None", "version": None,
        "commit": None, "url": None,
    }]  # fmt: skip
    assert document["pipelines"] == document["model_packages"] == []


@pytest.mark.parametrize("arguments", [
    ("load", "flight"), ("invoke", "flight"), ("approve", "flight", "1"), ("reject", "flight", "1"),
    ("wait", "--model", "flight"), ("retrain", "flight"),
])  # fmt: skip
def test_an_unknown_model_names_the_models(verb: Verb, deployed: Running, empty: Path, arguments: Any) -> None:
    verb(*arguments, "--state-dir", deployed.state_dir).explains("no deployed model is called 'flight'", MODEL)
    verb(*arguments, "--state-dir", empty).explains("no deployed model is called 'flight'", "deploy first")


def test_an_unknown_environment_names_the_environments(verb: Verb, deployed: Running) -> None:
    ended = verb("invoke", MODEL, "--environment", "production", "--state-dir", deployed.state_dir)
    ended.explains("no environment 'production'", "staging")


def test_an_unknown_version_names_the_versions(verb: Verb, deployed: Running) -> None:
    place = ("--state-dir", deployed.state_dir)
    verb("approve", MODEL, 7, *place).explains("no version 7", "none yet")
    made = deployed.client("sagemaker").create_model_package(
        ModelPackageGroupName=GROUP, ModelApprovalStatus="PendingManualApproval"
    )
    assert made["ModelPackageArn"].endswith("/1")
    verb("reject", MODEL, 7, *place).explains("no version 7", "there is 1")
    assert verb("reject", MODEL, 1, "--reason", "too old", *place).code == 0
    (package,) = json.loads(verb("status", "--json", *place).out)["model_packages"]
    assert (package["version"], package["approval_status"], package["reason"]) == (1, "Rejected", "too old")


def test_a_payload_that_no_model_reads(verb: Verb, deployed: Running, tmp_path: Path) -> None:
    place = ("--environment", "staging", "--state-dir", deployed.state_dir)
    (tmp_path / "rows.xlsx").write_text("")
    verb("invoke", MODEL, tmp_path / "rows.xlsx", *place).explains("rows.xlsx", ".csv or .json")
    verb("invoke", MODEL, tmp_path / "none.csv", *place).explains("none.csv: no such file")
    verb("invoke", MODEL, *place).explains("no version live in staging yet")


def test_logs_of_an_unknown_id_say_which_ids_there_are(verb: Verb, deployed: Running) -> None:
    verb("logs", "nothing-of-the-kind", "--state-dir", deployed.state_dir).explains(
        "no log is known for 'nothing-of-the-kind'", "`status`"
    )


def test_loading_needs_sample_data_and_a_day(verb: Verb, deployed: Running, tmp_path: Path) -> None:
    place = ("--repository", tmp_path, "--state-dir", deployed.state_dir)
    verb("load", MODEL, *place).explains("sample_data.py is missing")
    verb("load", MODEL, "--through", "yesterday", *place).explains("'yesterday' is no day", "YYYY-MM-DD")
    script = tmp_path / "model_code" / MODEL / "sample_data.py"
    script.parent.mkdir(parents=True)
    script.write_text("raise SystemExit('the tide gauge is broken')")
    ended = verb("load", MODEL, *place)
    assert ended.code == 1
    assert "the tide gauge is broken" in ended.told


def test_without_a_repository_there_is_nothing_to_push_to(verb: Verb, empty: Path) -> None:
    verb("remote", "--state-dir", empty).explains("no deployed stack has a repository", "deploy")


# -- waiting and watching -----------------------------------------------------------------------------


def test_waiting_ends_with_0_1_or_124(verb: Verb, deployed: Running) -> None:
    wait = ("wait", "--state-dir", deployed.state_dir, "--timeout")
    assert verb(*wait, 30).code == 0
    states = deployed.client("stepfunctions")
    machine = states.list_state_machines()["stateMachines"][0]["stateMachineArn"]
    execution = states.start_execution(stateMachineArn=machine)["executionArn"]
    late = verb(*wait, 1)
    assert late.code == cli.TIMED_OUT == 124
    assert "still running after 1 s" in late.told
    states.stop_execution(executionArn=execution, cause="stopped by hand")
    failed = verb(*wait, 30)
    assert failed.code == 1
    assert "release to staging aborted: stopped by hand" in failed.told


def test_the_audit_says_who_did_what_and_what_was_refused(verb: Verb, deployed: Running) -> None:
    place = ("--state-dir", deployed.state_dir)
    decisions = json.loads(verb("audit", "--json", *place).out)
    assert {"time", "region", "principal", "action", "resource", "decision", "policy"} <= set(decisions[0])
    stranger = {"aws_access_key_id": "AKIA" + "X" * 16, "aws_secret_access_key": "x"}
    with pytest.raises(deployed.client("sts").exceptions.ClientError):
        deployed.client("codecommit", **stranger).list_repositories()
    denied = json.loads(verb("audit", "--denied", "--json", *place).out)
    assert all(entry["decision"] != "Allow" for entry in denied)
    assert "sagemaker:CreateModelPackageGroup" in verb("audit", *place).out


def test_there_is_no_audit_where_nothing_ran(verb: Verb, tmp_path: Path) -> None:
    verb("audit", "--state-dir", tmp_path / "none").explains("there is no", "./pushline up")


def test_the_process_itself_ends_with_one_line_and_the_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rehearsal", "status", "--state-dir", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rehearsal: nothing runs on")
    assert len(done.stderr.splitlines()) == 1


# -- replay -------------------------------------------------------------------------------------------


def test_a_replay_that_makes_no_sense_starts_nothing(verb: Verb, tmp_path: Path) -> None:
    place = ("--state-dir", tmp_path / "s")
    verb("replay", MODEL, "--from", "spring", "--to", "2013-05-01", *place).explains("--from", "'spring'", "YYYY-MM-DD")
    assert not (tmp_path / "s").exists()


def test_a_replay_lives_where_it_was_started_whatever_its_parts_run_in(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("import os, sys\nsys.exit(os.environ['CDK_OUTDIR'])\n")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    for arguments in (("init", "--quiet"), ("add", "app.py"), (*who, "commit", "--quiet", "--message", "an app")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    ended = verb("replay", MODEL, "--from", "2013-03-01", "--to", "2013-03-31", "--state-dir", "state")
    ended.explains("could not be synthesized", str(tmp_path / "state" / "clone" / "cdk.out"))
