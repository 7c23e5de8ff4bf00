"""CodeBuild runs the real buildspec, and says why it failed."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.codebuild import CodeBuild
from rehearsal.codebuild.artifacts import ArtifactError, pack, unpack
from rehearsal.codebuild.buildspec import Artifact, BuildspecError, parse
from rehearsal.codebuild.shell import Shell
from tests.rehearsal.loopback import Loopback, serve
from tests.rehearsal.waiting import until

ROLE = "arn:aws:iam::000000000000:role/build"
ENVIRONMENT: dict[str, Any] = {
    "type": "LINUX_CONTAINER",
    "computeType": "BUILD_GENERAL1_SMALL",
    "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with serve(CodeBuild, tmp_path=tmp_path_factory.mktemp("state")) as running:
        yield running


def build(cloud: Loopback, buildspec: str, name: str, **override: Any) -> dict[str, Any]:
    client = cloud.client("codebuild")
    client.create_project(
        name=name,
        source={"type": "NO_SOURCE", "buildspec": buildspec},
        serviceRole=ROLE,
        artifacts={"type": "NO_ARTIFACTS"},
        environment=ENVIRONMENT,
    )
    started = client.start_build(projectName=name, **override)["build"]
    return finished(cloud, started["id"])


def finished(cloud: Loopback, build_id: str) -> dict[str, Any]:
    def look() -> Any:
        [found] = cloud.client("codebuild").batch_get_builds(ids=[build_id])["builds"]
        return found if found["buildComplete"] else None

    return dict(until(look, f"{build_id} still runs"))


def lines(cloud: Loopback, name: str) -> list[str]:
    return [
        line
        for (group, _), stream in cloud.streams.items()
        if group == f"/aws/codebuild/{name}"
        for line in stream.lines
        if not line.startswith("[Container]")
    ]


def phases(found: dict[str, Any]) -> dict[str, str]:
    return {p["phaseType"]: p["phaseStatus"] for p in found["phases"] if "phaseStatus" in p}


def test_all_phases_share_one_shell_and_variables_are_exported(cloud: Loopback) -> None:
    found = build(
        cloud,
        """
version: 0.2
env: {shell: bash, variables: {A: spec, B: spec}, exported-variables: [RESULT]}
phases:
  install: {runtime-versions: {python: 3.11}, commands: ["export FOUND=one", "mkdir -p below && cd below"]}
  build: {commands: ['echo "$FOUND $A $B $(basename $PWD)"', 'export RESULT="$CODEBUILD_BUILD_SUCCEEDING ok"']}
""",
        "shared",
        environmentVariablesOverride=[{"name": "B", "value": "start"}],
    )
    assert found["buildStatus"] == "SUCCEEDED", found["phases"]
    assert lines(cloud, "shared") == ["one spec start below"]
    assert found["exportedEnvironmentVariables"] == [{"name": "RESULT", "value": "1 ok"}]


def test_the_build_sees_its_role_and_image_and_nothing_of_this_machine(
    cloud: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "secret")
    build(
        cloud,
        """
version: 0.2
phases:
  build:
    commands:
      - python3 -c 'import sys; print(sys.version_info[:2])'
      - python3 -c 'import boto3' 2>/dev/null || echo no boto3
      - echo "$AWS_ENDPOINT_URL|${OURS-unset}|$CODEBUILD_BUILD_ID"
""",
        "image",
    )
    version, boto, rest = lines(cloud, "image")
    assert (version, boto) == ("(3, 11)", "no boto3")
    assert rest.startswith(f"{cloud.endpoint}|unset|image:")


def test_a_failing_command_is_named_with_its_status_and_last_lines(cloud: Loopback) -> None:
    found = build(
        cloud,
        """
version: 0.2
phases:
  pre_build: {commands: ["echo the reason >&2; exit 7", "echo never"], finally: ["echo tidied"]}
  build: {commands: [echo never]}
""",
        "failing",
    )
    assert found["buildStatus"] == "FAILED"
    assert phases(found)["PRE_BUILD"] == "FAILED"
    assert "BUILD" not in phases(found)
    [context] = next(p for p in found["phases"] if p["phaseType"] == "PRE_BUILD")["contexts"]
    assert context["statusCode"] == "COMMAND_EXECUTION_ERROR"
    assert context["message"] == (
        "Error while executing command: echo the reason >&2; exit 7. Reason: exit status 7\nthe reason"
    )
    assert lines(cloud, "failing") == ["the reason", "tidied"]


def test_post_build_runs_after_a_failed_build_and_knows_it(cloud: Loopback) -> None:
    found = build(
        cloud,
        """
version: 0.2
phases:
  build: {commands: ["false"]}
  post_build: {commands: ['echo "succeeding: $CODEBUILD_BUILD_SUCCEEDING"']}
""",
        "after",
    )
    assert found["buildStatus"] == "FAILED"
    assert lines(cloud, "after") == ["succeeding: 0"]


def test_a_stopped_build_ends_with_everything_it_started(cloud: Loopback) -> None:
    client = cloud.client("codebuild")
    client.create_project(
        name="slow",
        serviceRole=ROLE,
        artifacts={"type": "NO_ARTIFACTS"},
        environment=ENVIRONMENT,
        source={"type": "NO_SOURCE", "buildspec": "version: 0.2\nphases: {build: {commands: [echo on, sleep 300]}}"},
    )
    started = client.start_build(projectName="slow")["build"]["id"]
    while "on" not in lines(cloud, "slow"):
        time.sleep(0.02)
    began = time.monotonic()
    client.stop_build(id=started)
    assert finished(cloud, started)["buildStatus"] == "STOPPED"
    assert time.monotonic() - began < 100, "the command of 300 seconds was waited for"


def test_a_build_of_a_pipeline_reads_and_writes_zips(cloud: Loopback) -> None:
    s3, client = cloud.client("s3"), cloud.client("codebuild")
    s3.create_bucket(Bucket="store")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(
            "buildspec.yml",
            "version: 0.2\nphases: {build: {commands: [cp in.txt out.txt]}}\nartifacts: {files: [out.txt]}",
        )
        archive.writestr("in.txt", "hello")
    s3.put_object(Bucket="store", Key="p/Source/x", Body=packed.getvalue())
    client.create_project(
        name="piped",
        serviceRole=ROLE,
        artifacts={"type": "CODEPIPELINE"},
        source={"type": "CODEPIPELINE"},
        environment=ENVIRONMENT,
    )
    with pytest.raises(ClientError, match="built by a pipeline"):
        client.start_build(projectName="piped")
    request = {
        "projectName": "piped",
        "sourceVersion": "arn:aws:s3:::store/p/Source/x",
        "idempotencyToken": "one",
        "artifactsOverride": {"type": "CODEPIPELINE", "location": "store", "path": "p/Out", "name": "y"},
    }
    started = client.start_build(**request)["build"]["id"]
    assert client.start_build(**request)["build"]["id"] == started
    found = finished(cloud, started)
    assert found["artifacts"]["location"] == "arn:aws:s3:::store/p/Out/y", found["phases"]
    made = zipfile.ZipFile(io.BytesIO(s3.get_object(Bucket="store", Key="p/Out/y")["Body"].read()))
    assert {name: made.read(name) for name in made.namelist()} == {"out.txt": b"hello"}


def test_beginning_and_end_of_a_build_are_events(cloud: Loopback) -> None:
    found = build(cloud, "version: 0.2\nphases: {build: {commands: ['true']}}", "told")

    def told() -> list[str]:
        return [e["detail"]["build-status"] for e in cloud.events if e["resources"] == [found["arn"]]]

    until(lambda: len(told()) > 1, "its end was not told")
    assert told() == ["IN_PROGRESS", "SUCCEEDED"]


def test_a_build_that_ran_when_the_rehearsal_died_has_failed(tmp_path: Path) -> None:
    with serve(CodeBuild, tmp_path=tmp_path) as cloud:
        found = build(cloud, "version: 0.2\nphases: {build: {commands: ['true']}}", "lost")
        cloud.store.update(
            "codebuild/build",
            found["id"],
            lambda d: (d["phases"][-3].pop("phaseStatus"), d.update(buildComplete=False, buildStatus="IN_PROGRESS")),
        )
        cloud.service("codebuild").start()
        [again] = cloud.client("codebuild").batch_get_builds(ids=[found["id"]])["builds"]
        assert again["buildStatus"] == "FAILED"
        assert "lost when the rehearsal stopped" in str(again["phases"])


def test_what_a_command_printed_was_told_when_it_has_ended_however_slow_the_telling(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(line: str) -> None:
        time.sleep(0.3)
        told.append(line)

    shell = Shell("sh", tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"}, tell, time.time() + 600)
    try:
        assert (shell.run("echo one; printf two"), told) == (0, ["one", "two"])
        assert (shell.run("exec >elsewhere; echo three >&2; sleep 300 &"), told[2:]) == (0, ["three"])
        assert (shell.run("echo four >&2; exit 7"), told[3:]) == (7, ["four"])
        assert (shell.run("echo five"), told[4:]) == (0, ["five"])
    finally:
        shell.close()
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_nothing_of_a_build_outlives_a_killed_rehearsal(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from rehearsal.codebuild.shell import Shell\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "shell = Shell('sh', place, place, {'PATH': '/usr/bin:/bin'}, print, time.time() + 60)\n"
        "shell.run('echo $$ > pid; sleep 3600')\n"
    )
    place = tmp_path / "pid"
    daemon = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while daemon.poll() is None and not (place.read_text() if place.exists() else ""):
        time.sleep(0.02)
    pid = int(place.read_text())
    daemon.kill()
    daemon.wait()
    until(lambda: not _alive(pid), "the shell outlives the rehearsal")


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"environment": {**ENVIRONMENT, "image": "python:3.11"}}, "python:3.11"),
        ({"environment": {**ENVIRONMENT, "privilegedMode": True}}, "privilegedMode"),
        ({"source": {"type": "GITHUB"}}, "GITHUB"),
        ({"vpcConfig": {"vpcId": "vpc-1"}}, "vpcConfig"),
    ],
)
def test_what_is_not_rehearsed_is_refused_by_name(cloud: Loopback, change: dict[str, Any], named: str) -> None:
    project = {
        "name": "refused",
        "source": {"type": "NO_SOURCE"},
        "artifacts": {"type": "NO_ARTIFACTS"},
        "serviceRole": ROLE,
        "environment": ENVIRONMENT,
        **change,
    }
    with pytest.raises(ClientError, match=named):
        cloud.client("codebuild").create_project(**project)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version: 0.1\nphases: {build: {commands: [x]}}", "version"),
        ("version: 0.2\nphases: {build: {commands: [x]}}\nreports: {a: b}", "reports"),
        ("version: 0.2\nenv: {secrets-manager: {A: b}}\nphases: {build: {commands: [x]}}", "secrets-manager"),
        ("version: 0.2\nphases: {install: {runtime-versions: {nodejs: 20}}}", "nodejs 20"),
        ("version: 0.2\nphases: {build: {commands: [a: b]}}", "phases.build.commands"),
        ("version: 0.2\nphases: {build: {on-failure: RETRY}}", "on-failure"),
        ("a: [", "not YAML"),
    ],
)
def test_a_buildspec_is_read_strictly(text: str, named: str) -> None:
    with pytest.raises(BuildspecError, match=named):
        parse(text)


def test_patterns_choose_what_is_packed(tmp_path: Path) -> None:
    for name in ("a.json", "b.txt", "deep/er/c.json"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    (tmp_path / "src" / "link.json").symlink_to("/etc/hostname")

    def packed(artifact: Artifact) -> list[str]:
        pack(artifact, tmp_path / "src", tmp_path / "out.zip")
        return zipfile.ZipFile(tmp_path / "out.zip").namelist()

    assert packed(Artifact(("**/*",))) == ["a.json", "b.txt", "deep/er/c.json"]
    assert packed(Artifact(("*.json",))) == ["a.json"]
    assert packed(Artifact(("**/*.json",), excluded=("a.json",), discard_paths=True)) == ["c.json"]
    with pytest.raises(ArtifactError, match="no matching artifact paths"):
        packed(Artifact(("nothing",)))
    with pytest.raises(ArtifactError, match="base directory"):
        packed(Artifact(("x",), base_directory=".."))


def test_an_archive_can_not_write_outside_of_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped", "x")
    with pytest.raises(ArtifactError, match="out of its folder"):
        unpack(tmp_path / "bad.zip", tmp_path / "into")
    assert not (tmp_path / "escaped").exists()
