"""Clients as people use them, told of the rehearsal by what `up` prints and nothing else: CDK CLI, AWS CLI, boto3."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from rehearsal.environments import interpreter, scrubbed
from tests.conftest import ROOT, Assembly

STACK = "Pushline-Repository"
Cdk = Callable[..., str]


def script() -> Any:
    """`pushline` as a module: the CDK CLI it fetches is shared with `./pushline deploy`."""
    loader = SourceFileLoader("pushline_script", str(ROOT / "pushline"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


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
def cdk(exported: dict[str, str], assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Cdk:
    """Runs the real CDK CLI, of the version that `./pushline deploy` takes, on the assembly as synthesized."""
    command = [str(Path(sys.executable).with_name("node")), script().cdk()]
    folder = tmp_path_factory.mktemp("cdk")
    # A copy, since the CLI keeps the archives it publishes in the assembly.
    copy = shutil.copytree(assembly.path, folder / "assembly")
    common = ["--app", str(copy), "--output", str(folder), "--ci", "--no-notices", "--no-version-reporting"]

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run([*command, *arguments, *common], cwd=folder, env=exported, capture_output=True, text=True,
                              check=False, timeout=120)  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    return run


@pytest.fixture(scope="module")
def deployed(cdk: Cdk) -> str:
    """The repository's stack with what it needs, bootstrapped and deployed by the CDK CLI; what it said."""
    said = cdk("bootstrap", "aws://000000000000/us-east-1")
    assert "bootstrapped" in said
    return cdk("deploy", STACK, "--require-approval", "never")


def aws(exported: dict[str, str], *arguments: str) -> Any:
    """What the AWS CLI of the CodeBuild image answers."""
    command = [str(interpreter("codebuild").parent / "aws"), *arguments, "--output", "json"]
    done = subprocess.run(command, env=exported, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_cdk_cli_deploys_a_stack_and_what_it_needs(deployed: str) -> None:
    assert f"✅  {STACK}" in deployed
    assert "✅  Pushline-Foundation" in deployed


def test_the_cdk_cli_finds_nothing_left_to_change(deployed: str, cdk: Cdk) -> None:
    assert "There were no differences" in cdk("diff", STACK, "--exclusively", "--fail")
    assert f"{STACK} (no changes)" in cdk("deploy", STACK, "--exclusively", "--require-approval", "never")


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
        "print(json.dumps([made['StackStatus'], who, name, held, groups]))\n"
    )
    done = subprocess.run([sys.executable, "-c", asked], env=exported, capture_output=True, text=True, check=False,
                          timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["CREATE_COMPLETE", "000000000000", "pushline", "held", []]


def test_no_credentials_are_no_access(deployed: str, exported: dict[str, str]) -> None:
    wrong = {**exported, "AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16, "AWS_SECRET_ACCESS_KEY": "x"}
    command = [str(interpreter("codebuild").parent / "aws"), "codecommit", "list-repositories"]
    done = subprocess.run(command, env=wrong, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "security token" in done.stderr


def test_the_cdk_cli_takes_down_what_it_made(deployed: str, cdk: Cdk, exported: dict[str, str]) -> None:
    """Last in the file: the others look at the stack."""
    assert f"{STACK}: destroyed" in cdk("destroy", STACK, "--exclusively", "--force")
    stacks = aws(exported, "cloudformation", "list-stacks", "--stack-status-filter", "CREATE_COMPLETE")
    assert {found["StackName"] for found in stacks["StackSummaries"]} == {"CDKToolkit", "Pushline-Foundation"}
    assert os.environ.get("AWS_ENDPOINT_URL") is None
