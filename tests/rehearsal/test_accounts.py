"""Training, staging and production in accounts of their own: a version crosses them, and nobody else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from rehearsal import assembly as deployment
from rehearsal import audit, predictions, second_opinion, status
from rehearsal.approval import set_approval
from rehearsal.connection import in_each_account, look
from rehearsal.landscape import ClientOf, Landscape
from rehearsal.server import Running
from tests.conftest import ACCOUNTS, Assembly
from tests.rehearsal.daemon import running
from tests.rehearsal.registry import patient
from tests.rehearsal.serving import OF_THE_PLATFORM, packed
from tests.rehearsal.waiting import until

REGION = "eu-west-1"
IMAGE = f"141502667606.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:3.2-0"
ARTIFACTS = f"pushline-artifacts-{ACCOUNTS['training']}-{REGION}"
REFUSED = r"403|Access ?Denied|Forbidden"


@dataclass(frozen=True)
class Accounts:
    """The three accounts, deployed."""

    at: Running
    client_of: ClientOf
    landscape: Landscape

    def root(self, environment: str, service: str) -> Any:
        return self.at.client(service, account=ACCOUNTS[environment], region=REGION)

    def register(self, number: int, factor: int) -> str:
        """What retraining leaves behind: a model, its sample request with the recorded answer, and the version."""
        folder, s3 = f"flight-delay/run-{number}", self.root("training", "s3")
        objects = {f"training/{folder}/output/model.tar.gz": packed(factor, name=OF_THE_PLATFORM),
                   f"bundles/{folder}/sample_request.json": b"[1, 2]",
                   f"evaluation/{folder}/sample_answer.json": json.dumps([factor, 2 * factor]).encode()}  # fmt: skip
        for key, content in objects.items():
            s3.put_object(Bucket=ARTIFACTS, Key=key, Body=content)
        model, request, answer = (f"s3://{ARTIFACTS}/{key}" for key in objects)
        facts = {"sample_request": request, "sample_answer": answer, "approval": "automatic",
                 "serving_instance_type": "ml.m6i.large", "serving_minimum_instances": "2",
                 "serving_maximum_instances": "2"}  # fmt: skip
        container = {"Image": IMAGE, "ModelDataUrl": model}
        made = self.root("training", "sagemaker").create_model_package(
            ModelPackageGroupName="flight-delay", ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties=facts,
            InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["application/json"],
                                    "SupportedResponseMIMETypes": ["application/json"]})  # fmt: skip
        return str(made["ModelPackageArn"])

    def live(self, environment: str) -> int | None:
        parts = self.landscape.model("flight_delay")
        packages = status.model_packages(self.client_of, parts)
        rows = status.endpoints(self.client_of, parts, packages)
        return next(row["version"] for row in rows if row["environment"] == environment)

    def released(self, environment: str, version: int) -> None:
        until(lambda: self.live(environment) == version, self.reasons)

    def reasons(self) -> list[Any]:
        return [row["reason"] for row in status.releases(self.client_of, self.landscape.model("flight_delay"))]

    def audited(self) -> list[dict[str, Any]]:
        return audit.read(self.at.state_dir)


@pytest.fixture(scope="module")
def accounts(otherwise: dict[str, Assembly], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    with running(tmp_path_factory.mktemp("accounts"), time_scale=200) as at:
        cdk_out = patient(otherwise["accounts"], tmp_path_factory.mktemp("patient") / "cdk.out")
        deployment.deploy(at, cdk_out, Console(quiet=True))
        yield Accounts(at, *look(at))


@pytest.fixture(scope="module")
def first(accounts: Accounts) -> str:
    """The first version, live in production; every denial on its way is a failure."""
    made = accounts.register(1, factor=2)
    accounts.released("production", 1)
    denied = [entry for entry in accounts.audited() if entry["decision"] != "Allow"]
    assert denied == []
    return made


def test_a_version_registered_in_training_goes_live_in_both_other_accounts(accounts: Accounts, first: str) -> None:
    assert first.split(":")[4] == ACCOUNTS["training"]
    assert accounts.live("staging") == 1
    for environment in ("staging", "production"):
        endpoint = accounts.root(environment, "sagemaker").describe_endpoint(EndpointName=f"flight-delay-{environment}")
        assert endpoint["EndpointArn"].split(":")[4] == ACCOUNTS[environment]
    assert accounts.root("training", "sagemaker").list_endpoints()["Endpoints"] == []
    answer = predictions.predict(accounts.client_of, accounts.landscape, "flight_delay", "production", None)
    assert json.loads(answer["prediction"]) == [2, 4]


def test_staging_approved_it_and_each_reconciler_read_it_as_itself(accounts: Accounts, first: str) -> None:
    deciding = {(entry["principal"].split(":")[4], entry["resource"].split(":")[4]) for entry in accounts.audited()
                if entry["action"] == "sagemaker:UpdateModelPackage"}  # fmt: skip
    reading = {entry["principal"].split("/")[1] for entry in accounts.audited()
               if entry["action"] == "s3:GetObject" and "/model.tar.gz" in entry["resource"]}  # fmt: skip
    assert deciding == {(ACCOUNTS["staging"], ACCOUNTS["training"])}
    assert reading == {"pushline-flight-delay-staging-serving", "pushline-flight-delay-production-serving"}


def test_rejecting_a_version_rolls_production_back(accounts: Accounts, first: str) -> None:
    accounts.register(2, factor=3)
    accounts.released("production", 2)
    set_approval(accounts.client_of, accounts.landscape, "flight_delay", 2, "Rejected", "as a test")
    accounts.released("production", 1)
    accounts.released("staging", 1)


def session(accounts: Accounts, environment: str, role: str, service: str) -> Any:
    """A client that carries the session of one of the environment's roles, as its service would make it."""
    iam, sts = accounts.root(environment, "iam"), accounts.root(environment, "sts")
    root = f"arn:aws:iam::{ACCOUNTS[environment]}:root"
    trust = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": root}}]}  # fmt: skip
    name = f"probe-of-{role}"
    document = iam.list_role_policies(RoleName=role)["PolicyNames"]
    policy = iam.get_role_policy(RoleName=role, PolicyName=document[0])["PolicyDocument"]
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="same", PolicyDocument=json.dumps(policy))
    made = sts.assume_role(RoleArn=arn, RoleSessionName="probe")["Credentials"]
    return accounts.at.client(service, region=REGION, aws_access_key_id=made["AccessKeyId"],
                              aws_secret_access_key=made["SecretAccessKey"],
                              aws_session_token=made["SessionToken"])  # fmt: skip


def test_a_role_with_the_same_permissions_but_another_name_reads_nothing(accounts: Accounts, first: str) -> None:
    s3 = session(accounts, "production", "pushline-flight-delay-production-serving", "s3")
    with pytest.raises(ClientError, match=REFUSED):
        s3.get_object(Bucket=ARTIFACTS, Key="training/flight-delay/run-1/output/model.tar.gz")
    registry = session(accounts, "production", "pushline-flight-delay-production-reconcile", "sagemaker")
    with pytest.raises(ClientError, match="AccessDenied"):
        registry.describe_model_package(ModelPackageName=first)


def test_another_accounts_root_neither_reads_nor_decides(accounts: Accounts, first: str) -> None:
    with pytest.raises(ClientError, match=REFUSED):
        accounts.root("production", "s3").get_object(
            Bucket=ARTIFACTS, Key="bundles/flight-delay/run-1/sample_request.json"
        )
    with pytest.raises(ClientError, match="AccessDenied"):
        accounts.root("staging", "sagemaker").update_model_package(
            ModelPackageArn=first, ModelApprovalStatus="Rejected"
        )


def test_an_independent_evaluator_agrees_across_accounts(accounts: Accounts, first: str) -> None:
    """Last in the file: it judges what the others did, the refusals by other accounts' buckets among it."""
    entries = accounts.audited()
    crossing = [entry["decision"] for entry in entries
                if entry["resource"].startswith(f"arn:aws:s3:::{ARTIFACTS}/")
                and entry.get("role", "").split(":")[4:5] not in ([], [ACCOUNTS["training"]])]  # fmt: skip
    opinion = second_opinion.ask(in_each_account(accounts.at), entries)
    assert opinion.disagreements == []
    assert {"Allow", "ImplicitDeny"} <= set(crossing)
    assert set(opinion.left_out) <= {"administrator"}
