"""Clients as people use them, told of the rehearsal by what `up` prints and nothing else: CDK CLI, AWS CLI, boto3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal.environments import cache, interpreter, scrubbed
from tests.conftest import ROOT, Assembly

STACK = "Pushline-Repository"
TOGETHER = "4"
"""How many stacks the CDK CLI deploys or destroys at once."""
Pushline = Callable[..., str]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that `up` prints, in a process environment that holds nothing else of AWS."""
    state_dir = tmp_path_factory.mktemp("clients") / "state"
    try:
        printed = verb("up", "--state-dir", str(state_dir), "--port", "0")
        lines = [line.removeprefix("export ").partition("=") for line in printed.splitlines()]
        yield scrubbed(HOME=str(state_dir.parent), **{name: value for name, _, value in lines})
    finally:
        verb("down", "--state-dir", str(state_dir))


def verb(*arguments: str) -> str:
    command = [sys.executable, "-m", "rehearsal", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the CDK CLI leaves what it synthesizes."""
    return tmp_path_factory.mktemp("cdk") / "cdk.out"


@pytest.fixture(scope="module")
def pushline(exported: dict[str, str], made: Path) -> Pushline:
    """Runs `./pushline deploy` or `./pushline cdk`, which run the real CDK CLI."""
    common = ["--output", str(made), "--ci", "--no-notices", "--no-version-reporting"]
    # The home is an empty one; what jsii unpacks there would take a third of a synthesis each time.
    variables = {**exported, "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(cache() / "jsii")}

    # npm needs what the caller's environment has, certificates for one; so the CLI is fetched in that.
    subprocess.run([str(ROOT / "pushline"), "cdk", "--version"], check=True, capture_output=True, timeout=300)

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([str(ROOT / "pushline"), *arguments, *common], env=variables, capture_output=True,
                              text=True, check=False, timeout=600)  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    return run


@pytest.fixture(scope="module")
def deployed(pushline: Pushline) -> str:
    """The whole app, bootstrapped, synthesized and deployed as README says; what was said."""
    said = pushline("cdk", "bootstrap", "aws://000000000000/us-east-1")
    assert "bootstrapped" in said
    return pushline("deploy", "--require-approval", "never", "--concurrency", TOGETHER)


def aws(exported: dict[str, str], *arguments: str) -> Any:
    """What the AWS CLI of the CodeBuild image answers."""
    command = [str(interpreter("codebuild").parent / "aws"), *arguments, "--output", "json"]
    done = subprocess.run(command, env=exported, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_deploy_brings_up_the_whole_app(deployed: str, exported: dict[str, str], assembly: Assembly) -> None:
    assert [stack for stack in assembly.templates if f"✅  {stack}" not in deployed] == []
    stacks = aws(exported, "cloudformation", "describe-stacks")["Stacks"]
    assert {found["StackName"] for found in stacks} == {"CDKToolkit", *assembly.templates}
    assert {found["StackStatus"] for found in stacks} == {"CREATE_COMPLETE"}


def test_the_cdk_cli_finds_nothing_left_to_change(
    deployed: str, pushline: Pushline, assembly: Assembly, made: Path
) -> None:
    said = pushline("cdk", "diff", "--fail", "--method", "template", "--app", str(made))
    assert said.count("There were no differences") == len(assembly.templates)
    again = pushline("cdk", "deploy", STACK, "--exclusively", "--require-approval", "never", "--app", str(made))
    assert f"{STACK} (no changes)" in again


def test_the_cdk_cli_tells_what_a_change_would_change(
    deployed: str, pushline: Pushline, made: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(made, tmp_path / "changed")
    template = json.loads((changed / f"{STACK}.template.json").read_text())
    (function,) = (found for found in template["Resources"].values() if found["Type"] == "AWS::Lambda::Function")
    before = function["Properties"]["Timeout"]
    function["Properties"]["Timeout"] = before + 1
    (changed / f"{STACK}.template.json").write_text(json.dumps(template))
    said = pushline("cdk", "diff", STACK, "--exclusively", "--fail", "--app", str(changed), code=1)
    assert "[~] AWS::Lambda::Function" in said
    assert f"[-] {before}" in said
    assert f"[+] {before + 1}" in said


def test_the_aws_cli_lists_what_was_made(deployed: str, exported: dict[str, str]) -> None:
    (stack,) = aws(exported, "cloudformation", "describe-stacks", "--stack-name", STACK)["Stacks"]
    (output,) = [found["OutputValue"] for found in stack["Outputs"] if found["OutputKey"] == "Repository"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    repositories = aws(exported, "codecommit", "list-repositories")["repositories"]
    assert [found["repositoryName"] for found in repositories] == [output]
    (function,) = aws(exported, "lambda", "list-functions")["Functions"]
    assert function["Role"].startswith("arn:aws:iam::000000000000:role/")


def test_boto3_needs_the_exports_only(deployed: str, exported: dict[str, str]) -> None:
    asked = (
        "import boto3, json\n"
        "made = boto3.client('cloudformation').describe_stacks(StackName='Pushline-Repository')['Stacks'][0]\n"
        "who = boto3.client('sts').get_caller_identity()['Account']\n"
        "name = boto3.client('codecommit').list_repositories()['repositories'][0]['repositoryName']\n"
        "boto3.client('s3').create_bucket(Bucket='a-bucket')\n"
        "boto3.client('s3').put_object(Bucket='a-bucket', Key='a key', Body=b'held')\n"
        "held = boto3.client('s3').get_object(Bucket='a-bucket', Key='a key')['Body'].read().decode()\n"
        "groups = boto3.client('sagemaker').list_model_package_groups()['ModelPackageGroupSummaryList']\n"
        "groups = sorted(group['ModelPackageGroupName'] for group in groups)\n"
        "print(json.dumps([made['StackStatus'], who, name, held, groups]))\n"
    )
    done = subprocess.run([sys.executable, "-c", asked], env=exported, capture_output=True, text=True, check=False,
                          timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["CREATE_COMPLETE", "000000000000", "pushline", "held",
                                       ["bike-demand", "flight-delay"]]  # fmt: skip


def test_no_credentials_are_no_access(deployed: str, exported: dict[str, str]) -> None:
    wrong = {**exported, "AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16, "AWS_SECRET_ACCESS_KEY": "x"}
    command = [str(interpreter("codebuild").parent / "aws"), "codecommit", "list-repositories"]
    done = subprocess.run(command, env=wrong, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "security token" in done.stderr


def test_the_cdk_cli_takes_down_what_it_made(
    deployed: str, pushline: Pushline, exported: dict[str, str], assembly: Assembly, made: Path
) -> None:
    """The tests before it look at the stacks."""
    said = pushline("cdk", "destroy", "--all", "--force", "--concurrency", TOGETHER, "--app", str(made))
    assert [stack for stack in assembly.templates if f"{stack}: destroyed" not in said] == []
    stacks = aws(exported, "cloudformation", "list-stacks", "--stack-status-filter", "CREATE_COMPLETE")
    assert {found["StackName"] for found in stacks["StackSummaries"]} == {"CDKToolkit"}
    assert os.environ.get("AWS_ENDPOINT_URL") is None


def test_what_was_kept_has_to_go_before_it_is_deployed_again(
    deployed: str, pushline: Pushline, exported: dict[str, str], made: Path
) -> None:
    """Last in the file, after everything was taken down; in the words of docs/runbook.md."""
    deploy = ("cdk", "deploy", STACK, "--require-approval", "never", "--app", str(made))
    assert "Repository named pushline already exists" in pushline(*deploy, code=1)
    aws(exported, "codecommit", "delete-repository", "--repository-name", "pushline")
    assert f"✅  {STACK}" in pushline(*deploy)
