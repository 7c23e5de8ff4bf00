"""Deploys a cloud assembly as the CDK CLI would: bootstrap, publish assets, then each stack in dependency order."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from rich.console import Console

from rehearsal.place import Place, remember
from rehearsal.server import Running
from rehearsal.toolkit_stack import TOOLKIT, VERSION_PARAMETER
from rehearsal.toolkit_stack import template as toolkit_template

WAIT_SECONDS = 1800
POLL_SECONDS = 0.1
_BLOCKED = ("ROLLBACK_FAILED", "DELETE_FAILED", "CREATE_FAILED", "UPDATE_FAILED")


class DeployFailed(Exception):
    """A stack did not come about, or the assembly can't be deployed here; the message says what and why."""


@dataclass(frozen=True)
class StackArtifact:
    """One stack of the assembly."""

    id: str
    name: str
    place: Place
    template: dict[str, Any]
    template_url: str
    tags: dict[str, str]
    protected: bool
    assets: Path | None
    needs: frozenset[str] = field(default_factory=frozenset)
    role: str = ""
    """What CloudFormation acts as. The CDK CLI names it each time, or the role of the last update would stay."""


def deploy(
    at: Running, cdk_out: Path, console: Console, wanted: Callable[[StackArtifact], bool] = lambda _: True
) -> None:
    """Publish assets and create or update every wanted stack of the assembly; DeployFailed at the first that fails."""
    assembled = read(cdk_out, Place(at.root.account, at.root.region))
    stacks = [stack for stack in assembled if wanted(stack)]
    for place in dict.fromkeys(stack.place for stack in stacks):
        _bootstrap(at, place)
    remember(at.state_dir, dict.fromkeys([_home(assembled), *(stack.place for stack in stacks)]))
    for stack in stacks:
        started = time.monotonic()
        if stack.assets is not None:
            _publish(at, cdk_out, stack)
        with console.status(f"{stack.name}: deploying"):
            outcome = _deploy_stack(at, stack)
        console.print(f"{stack.name}: {outcome} ({time.monotonic() - started:.1f} s)", highlight=False, markup=False)


def _home(stacks: list[StackArtifact]) -> Place:
    """Where models are trained: the place of the pipelines, else of the first stack."""
    trained = [stack.place for stack in stacks if "Pipeline" in stack.template.get("Outputs", {})]
    return [*trained, *(stack.place for stack in stacks)][0]


# -- reading the assembly -----------------------------------------------------------------------------


def read(cdk_out: Path, default: Place) -> list[StackArtifact]:
    """The stacks of an assembly, each after what it depends on."""
    try:
        artifacts: dict[str, Any] = json.loads((cdk_out / "manifest.json").read_text()).get("artifacts", {})
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise DeployFailed(f"{cdk_out} is no cloud assembly; `./pushline synth` writes one") from None
    if nested := [name for name, a in artifacts.items() if a["type"] == "cdk:cloud-assembly"]:
        raise DeployFailed(f"nested assemblies (CDK stages) are not rehearsed: {', '.join(sorted(nested))}")
    stacks = {
        name: _stack(cdk_out, name, artifacts, default)
        for name, artifact in artifacts.items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    return list(_ordered(stacks))


def _stack(cdk_out: Path, name: str, artifacts: dict[str, Any], default: Place) -> StackArtifact:
    artifact = artifacts[name]
    properties, needs = artifact["properties"], artifact.get("dependencies", [])
    place = _place(artifact["environment"], default)
    manifest = next((artifacts[need] for need in needs if artifacts[need]["type"] == "cdk:asset-manifest"), None)
    return StackArtifact(
        name,
        properties.get("stackName", name),
        place,
        json.loads((cdk_out / properties["templateFile"]).read_text()),
        place.fill(properties.get("stackTemplateAssetObjectUrl", "")),
        properties.get("tags", {}),
        properties.get("terminationProtection", False),
        cdk_out / manifest["properties"]["file"] if manifest else None,
        frozenset(needs),
        place.fill(properties.get("cloudFormationExecutionRoleArn", "")),
    )


def _place(environment: str, default: Place) -> Place:
    account, _, region = environment.removeprefix("aws://").partition("/")
    return Place(
        default.account if account == "unknown-account" else account,
        default.region if region == "unknown-region" else region,
    )


def _ordered(stacks: dict[str, StackArtifact]) -> Iterator[StackArtifact]:
    waiting = dict(stacks)
    while waiting:
        ready = [name for name, stack in waiting.items() if not stack.needs & waiting.keys()]
        if not ready:
            raise DeployFailed(f"these stacks depend on each other in a circle: {', '.join(sorted(waiting))}")
        for name in ready:
            yield waiting.pop(name)


# -- bootstrap and assets -----------------------------------------------------------------------------


def _bootstrap(at: Running, place: Place) -> None:
    """What `cdk bootstrap` leaves behind, unless it (or an earlier deploy) already has."""
    ssm = at.client("ssm", account=place.account, region=place.region)
    try:
        ssm.get_parameter(Name=VERSION_PARAMETER)
    except ssm.exceptions.ParameterNotFound:
        _deploy_stack(at, StackArtifact(TOOLKIT, TOOLKIT, place, toolkit_template(), "", {}, False, None))


def _publish(at: Running, cdk_out: Path, stack: StackArtifact) -> None:
    assert stack.assets is not None  # the caller asked only for stacks with assets
    manifest = json.loads(stack.assets.read_text())
    if images := manifest.get("dockerImages"):
        raise DeployFailed(f"{stack.name}: container image assets are not rehearsed ({len(images)} in the assembly)")
    for asset in manifest.get("files", {}).values():
        if "executable" in asset["source"]:
            raise DeployFailed(f"{stack.name}: assets built by a command are not rehearsed")
        for destination in asset["destinations"].values():
            place = _published_as(destination, stack.place)
            s3 = at.client("s3", account=place.account, region=place.region)
            bucket, key = (stack.place.fill(destination[part]) for part in ("bucketName", "objectKey"))
            if not _exists(s3, bucket, key):
                s3.put_object(Bucket=bucket, Key=key, Body=_content(cdk_out, asset["source"]))


def _published_as(destination: dict[str, str], default: Place) -> Place:
    """A manifest may list other stacks' assets, which belong to the account of the role that publishes them."""
    role = default.fill(destination.get("assumeRoleArn", "")).split(":")
    return Place(role[4] if len(role) > 4 else default.account, destination.get("region", default.region))


def _exists(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    return True


def _content(cdk_out: Path, source: dict[str, str]) -> bytes:
    path = cdk_out / source["path"]
    return _zipped(path) if source.get("packaging") == "zip" else path.read_bytes()


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980, so that bytes stay the same
            entry.external_attr = (path.stat().st_mode & 0o777) << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


# -- stacks -------------------------------------------------------------------------------------------


def _deploy_stack(at: Running, stack: StackArtifact) -> str:
    """Create or update one stack and wait; says what happened to it."""
    cloudformation = at.client("cloudformation", account=stack.place.account, region=stack.place.region)
    found = _settled(cloudformation, stack.name)
    if found and found["StackStatus"] == "ROLLBACK_COMPLETE":
        cloudformation.delete_stack(StackName=stack.name)  # its first create failed: AWS lets it only be deleted
        found = _settled(cloudformation, stack.name)
    if found and found["StackStatus"].endswith(_BLOCKED):
        reason = found.get("StackStatusReason") or _why(cloudformation, found)
        raise DeployFailed(f"{stack.name} is {found['StackStatus']}: {reason}")
    try:
        stack_id = _update(cloudformation, stack, found) if found else _create(cloudformation, stack)
    except ClientError as error:
        message = error.response["Error"]["Message"]
        if "No updates are to be performed" in message:
            return "no changes"
        raise DeployFailed(f"{stack.name}: {message[:1000]}") from None
    done = _settled(cloudformation, stack_id)
    if done is None or done["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise DeployFailed(f"{stack.name}: {_why(cloudformation, done)}")
    return "updated" if found else "created"


def _create(cloudformation: Any, stack: StackArtifact) -> str:
    created: str = cloudformation.create_stack(
        StackName=stack.name, EnableTerminationProtection=stack.protected, **_common(stack)
    )["StackId"]
    return created


def _update(cloudformation: Any, stack: StackArtifact, found: dict[str, Any]) -> str:
    """Parameters keep the values they have, as with the CDK CLI: the release workflow has set some of them."""
    kept = {p["ParameterKey"] for p in found.get("Parameters", [])} & stack.template.get("Parameters", {}).keys()
    parameters = [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept)]
    updated: str = cloudformation.update_stack(StackName=stack.name, Parameters=parameters, **_common(stack))["StackId"]
    return updated


def _common(stack: StackArtifact) -> dict[str, Any]:
    body = json.dumps(stack.template)
    where = {"TemplateURL": _https(stack)} if stack.template_url else {"TemplateBody": body}
    return {
        **where,
        **({"RoleARN": stack.role} if stack.role else {}),
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        "Tags": [{"Key": key, "Value": value} for key, value in sorted(stack.tags.items())],
    }


def _https(stack: StackArtifact) -> str:
    bucket, _, key = re.sub("^s3://", "", stack.template_url).partition("/")
    return f"https://s3.{stack.place.region}.amazonaws.com/{bucket}/{key}"


def _settled(cloudformation: Any, name: str) -> dict[str, Any] | None:
    """The stack once no operation runs on it, or None if there is none (any more)."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            found: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in error.response["Error"]["Message"]:
                return None
            raise
        if not found["StackStatus"].endswith("_IN_PROGRESS"):
            return None if found["StackStatus"] == "DELETE_COMPLETE" else found
        time.sleep(POLL_SECONDS)
    raise DeployFailed(f"{name} did not settle in {WAIT_SECONDS} s")


def _why(cloudformation: Any, stack: dict[str, Any] | None) -> str:
    """The failed events of the last operation, in plain words."""
    if stack is None:
        return "the stack is gone"
    failures = []
    for event in cloudformation.describe_stack_events(StackName=stack["StackId"])["StackEvents"]:
        status, reason = event["ResourceStatus"], event.get("ResourceStatusReason", "")
        if event["ResourceType"] == "AWS::CloudFormation::Stack" and reason == "User Initiated":
            break
        if status.endswith("_FAILED") and reason:
            failures.append(f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}")
    told = "; ".join(reversed(failures)) or stack.get("StackStatusReason", "no reason given")
    return f"{stack['StackStatus']}; {told}"
