"""IAM roles and statements with exact actions and resources, where CDK's own grants would use wildcard actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.trust import service_principal


def service_role(scope: Construct, id: str, service: str, *, statements: Sequence[iam.PolicyStatement],
                 source: str | None = None, name: str | None = None) -> iam.Role:  # fmt: skip
    """A role for one AWS service, which may assume it only on behalf of this account (confused deputy).

    `source` is the one resource for which the service may; `name` only where another account's policies name the role.
    """
    return role(scope, id, service_principal(scope, service, source), statements=statements, name=name)


def role(scope: Construct, id: str, principal: iam.IPrincipal, *,
         statements: Sequence[iam.PolicyStatement], name: str | None = None) -> iam.Role:  # fmt: skip
    """A role with one inline policy, so that role and permissions appear and vanish together."""
    policies = {"Permissions": iam.PolicyDocument(statements=list(statements))} if statements else {}
    return iam.Role(scope, id, role_name=name, assumed_by=principal, inline_policies=policies)


def allow(*actions: str, on: str | Sequence[str], when: Mapping[str, Any] | None = None) -> iam.PolicyStatement:
    """Allow `actions` on the named resources, under a condition if there is one."""
    resources = [on] if isinstance(on, str) else list(on)
    return iam.PolicyStatement(actions=list(actions), resources=resources, conditions=dict(when or {}))


def arn(scope: Construct, service: str, resource: str) -> str:
    """The ARN of a resource of this stack's account and region: `arn(self, "glue", "job/flight-delay-features")`."""
    stack = Stack.of(scope)
    return f"arn:{stack.partition}:{service}:{stack.region}:{stack.account}:{resource}"


def read_objects(bucket: s3.IBucket, *keys: str) -> iam.PolicyStatement:
    """Get objects below the keys."""
    return allow("s3:GetObject", on=[bucket.arn_for_objects(key) for key in keys])


def read_versions(bucket: s3.IBucket, *keys: str) -> iam.PolicyStatement:
    """Get objects below the keys by version, as CodePipeline hands them on."""
    return allow("s3:GetObject", "s3:GetObjectVersion", on=[bucket.arn_for_objects(key) for key in keys])


def write_objects(bucket: s3.IBucket, *keys: str) -> iam.PolicyStatement:
    """Put objects below the keys, in several parts where they are large."""
    return allow("s3:PutObject", "s3:AbortMultipartUpload", on=[bucket.arn_for_objects(key) for key in keys])


def delete_objects(bucket: s3.IBucket, *keys: str) -> iam.PolicyStatement:
    """Delete objects below the keys."""
    return allow("s3:DeleteObject", on=[bucket.arn_for_objects(key) for key in keys])


def list_objects(bucket: s3.IBucket, *prefixes: str) -> iam.PolicyStatement:
    """List the bucket below the prefixes only."""
    return allow("s3:ListBucket", on=bucket.bucket_arn, when={"StringLike": {"s3:prefix": list(prefixes)}})


def use_key(key: kms.IKey) -> iam.PolicyStatement:
    """Read and write what is encrypted with the key."""
    return allow("kms:Decrypt", "kms:GenerateDataKey", on=key.key_arn)


def read_with_key(key: kms.IKey) -> iam.PolicyStatement:
    """Read what is encrypted with the key."""
    return allow("kms:Decrypt", on=key.key_arn)


def read_with_foreign_key(bucket: s3.IBucket, owner: Stack) -> iam.PolicyStatement:
    """Read what a bucket of another account holds; the id of its key is known in that account only."""
    through = {"kms:ViaService": f"s3.{owner.region}.{owner.url_suffix}",
               "kms:EncryptionContext:aws:s3:arn": bucket.bucket_arn}  # fmt: skip
    return allow("kms:Decrypt", on=arn(owner, "kms", "key/*"), when={"StringEquals": through})


def lend_key(key: kms.IKey) -> iam.PolicyStatement:
    """Let the AWS service that runs a job attach volumes encrypted with the key, and nobody else."""
    return allow("kms:CreateGrant", on=key.key_arn, when={"Bool": {"kms:GrantIsForAWSResource": "true"}})


def write_log(group: logs.ILogGroup) -> iam.PolicyStatement:
    """Write streams of one log group."""
    return allow("logs:CreateLogStream", "logs:PutLogEvents", on=group.log_group_arn)


def pass_role(target: iam.IRole, service: str) -> iam.PolicyStatement:
    """Hand one role to one service."""
    return allow("iam:PassRole", on=target.role_arn,
                 when={"StringEquals": {"iam:PassedToService": f"{service}.amazonaws.com"}})  # fmt: skip
