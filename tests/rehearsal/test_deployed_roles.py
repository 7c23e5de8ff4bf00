"""The roles as deployed: none does its neighbour's work, AWS knows what they are granted, a second evaluator agrees."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal import audit, connection, policies, second_opinion
from rehearsal.server import Running
from tests.conftest import Assembly
from tests.rehearsal.daemon import running
from tests.rehearsal.iam_reference import Reference, reference
from tests.rehearsal.scientist import Scientist
from tests.rehearsal.works import ACCOUNT, Work, works

DENIED = ("AccessDenied", "AccessDeniedException", "AuthorizationError")
ClientOf = Callable[[str], Any]


@dataclass(frozen=True)
class Deployed:
    """The assembly deployed; `roles` by `stack/logical id`, `parts` are physical ids likewise."""

    at: Running
    client_of: ClientOf
    roles: dict[str, str]
    parts: dict[str, str]


class Parts(dict[str, str]):
    """Physical ids by the beginning of `stack/logical id`."""

    def __missing__(self, beginning: str) -> str:
        return next(found for name, found in self.items() if name.startswith(beginning))


@pytest.fixture(scope="module")
def deployed(assembly: Assembly, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with running(tmp_path_factory.mktemp("roles") / "state") as at:
        Scientist(at, at.state_dir).verb("deploy", str(assembly.path))
        client_of = connection.clients(at)
        parts, roles = Parts(), {}
        for stack in assembly.templates:
            for found in client_of("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]:
                name = f"{stack}/{found['LogicalResourceId']}"
                parts[name] = found.get("PhysicalResourceId", "")
                if found["ResourceType"] == "AWS::IAM::Role":
                    roles[name] = parts[name]
        yield Deployed(at, client_of, roles, parts)


@pytest.fixture(scope="module")
def work(deployed: Deployed) -> list[Work]:
    data, artifacts = deployed.parts["Pushline-Foundation/Data"], deployed.parts["Pushline-Foundation/Artifacts"]
    return works(data, artifacts, deployed.parts)


@pytest.fixture(scope="module")
def allowed(deployed: Deployed, work: list[Work]) -> dict[str, set[str]]:
    """Role to the works that were not its own and were not refused."""
    return {name: {done.name for done in work if not _own(name, done) and _does(session, done)}
            for name, session in _sessions(deployed)}  # fmt: skip


def test_no_role_can_do_its_neighbours_work(allowed: dict[str, set[str]], deployed: Deployed) -> None:
    assert set(allowed) == set(deployed.roles)
    assert {role: done for role, done in allowed.items() if done} == {}


def test_every_work_belongs_to_roles_that_exist_and_may_do_it(deployed: Deployed, work: list[Work]) -> None:
    granted = {role.name: json.dumps(role.policies) for role in policies.roles(deployed.client_of).values()}
    for done in work:
        for owner in done.owners:
            owners = [role for name, role in deployed.roles.items() if re.fullmatch(owner, name)]
            assert owners, f"{done.name}: no role is called {owner}"
            action = done.method.replace("_", "")
            assert all(action in granted[role].lower() for role in owners), f"{done.name}: {owner} may not"


def test_a_feature_job_does_not_see_another_models_keys(deployed: Deployed) -> None:
    client_of = next(
        found for name, found in _sessions(deployed) if name.startswith("FlightDelay-Training/JobsFeatures")
    )
    data, s3 = deployed.parts["Pushline-Foundation/Data"], client_of("s3")
    for prefix in ("raw/flight_delay/dt=2013-01-01/", "features/flight-delay/run-1"):
        s3.list_objects_v2(Bucket=data, Prefix=prefix)
    for prefix in ("", "raw/", "features/"):
        s3.list_objects_v2(Bucket=data, Prefix=prefix, Delimiter="/")
    for prefix in ("raw/bike_demand/", "raw/flight_delayed", "features/bike-demand/", "features/", "raw/"):
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.list_objects_v2(Bucket=data, Prefix=prefix)


def test_an_independent_evaluator_agrees_with_every_refusal(
    allowed: dict[str, set[str]], deployed: Deployed, work: list[Work]
) -> None:
    opinion = second_opinion.ask([deployed.client_of], audit.read(deployed.at.state_dir))
    assert opinion.disagreements == []
    assert opinion.denied >= len(deployed.roles) * (len(work) - 4)
    assert set(opinion.left_out) <= {"administrator"}


def test_aws_knows_every_granted_action_resource_and_condition(deployed: Deployed) -> None:
    known = reference()
    roles = [role for role in policies.roles(deployed.client_of).values() if role.name in deployed.roles.values()]
    complaints = {f"{role.name}: {complaint}" for role in roles for policy in role.policies.values()
                  for complaint in _complaints(known, policy)}  # fmt: skip
    complaints |= {f"{arn}: {complaint}" for arn, policy in policies.of_resources(deployed.client_of).items()
                   for complaint in _complaints(known, policy, arn)}  # fmt: skip
    assert complaints == set()


def _complaints(known: Reference, policy: dict[str, Any], of: str = "") -> Iterator[str]:
    """`of` is the resource whose own policy it is: there `*` is that resource, and actions may be wildcards."""
    for statement in policies.listed(policy["Statement"]):
        keys = [key for keys in statement.get("Condition", {}).values() for key in keys]
        resources = [of if of and found == "*" else found for found in policies.listed(statement["Resource"])]
        for action in policies.listed(statement["Action"]):
            if of and "*" in action:
                continue
            # One action of a statement may concern one of its resources, another another.
            complaints = {found: known.complaints(action, [found], keys) for found in resources}
            if all(complaints.values()):
                yield from (complaint for found in complaints.values() for complaint in found)


def _own(role: str, done: Work) -> bool:
    return any(re.fullmatch(owner, role) for owner in done.owners)


def _sessions(deployed: Deployed) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """A session of each role; the administrator lets himself in first, beside those whom the trust policy names."""
    iam, sts = deployed.client_of("iam"), deployed.client_of("sts")
    visitor = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    for name, role in deployed.roles.items():
        found = iam.get_role(RoleName=role)["Role"]
        trust = found["AssumeRolePolicyDocument"]
        widened = {**trust, "Statement": [*trust["Statement"], visitor]}
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(widened))
        session = sts.assume_role(RoleArn=found["Arn"], RoleSessionName="probe")["Credentials"]
        yield name, _clients(deployed.at, session)


def _clients(at: Running, session: dict[str, Any]) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def client_of(service: str) -> Any:
        if service not in made:
            made[service] = at.client(
                service,
                aws_access_key_id=session["AccessKeyId"],
                aws_secret_access_key=session["SecretAccessKey"],
                aws_session_token=session["SessionToken"],
            )
        return made[service]

    return client_of


def _does(client_of: Callable[[str], Any], done: Work) -> bool:
    """Whether the call got past IAM."""
    try:
        getattr(client_of(done.service), done.method)(**done.parameters)
    except ClientError as error:
        return error.response["Error"]["Code"] not in DENIED
    return True
