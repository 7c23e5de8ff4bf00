"""What every model shares in one environment: its key, the access logs, and the topic that people are notified through.

Training's is the foundation (`stacks/foundation_stack.py`); staging and production have one of these each, so that
every environment has a key of its own and can be in an account of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aws_cdk import Annotations, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from config import Settings
from stacks.budget import budget
from stacks.crossing import Reader
from stacks.deployment import ANSWERS, CAPTURE
from stacks.log_group import shared_log_groups
from stacks.network import Network
from stacks.place import is_first_of_its_account
from stacks.tags import SHARED, tag
from stacks.trust import service_principal

UNFINISHED_UPLOAD_DAYS = 7
SERVICES_THAT_NOTIFY = ("events", "cloudwatch", "budgets")


class EnvironmentStack(Stack):
    """The key, the bucket of access logs and the notifications topic of one environment."""

    network: Network | None = None
    """Where its jobs and endpoints run; a stack of its own, which logs under this one's key."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, environment: str, **stack: Any) -> None:
        super().__init__(scope, id, **stack)
        self.environment_name, self._retention = environment, settings.retention
        self.removal = self._removal(settings)
        self.key = self._key(settings)
        self.access_logs = self._access_logs()
        self.notifications = self._notifications(settings)
        if settings.retention.account_logs and is_first_of_its_account(settings, environment):
            shared_log_groups(self, settings=settings)
        if dollars := settings.budgets.of(environment):
            budget(self, "Budget", environment=environment, dollars=dollars, topic=self.notifications.topic_arn)
        tag(self, model=SHARED, environment=environment)

    def _removal(self, settings: Settings) -> RemovalPolicy:
        """Data and registry outlive their stacks unless two settings agree: one in config, one at the command."""
        asked = self.node.try_get_context("pushline:destroy-data") in (True, "true")
        if asked != settings.destroy_data:
            Annotations.of(self).add_warning_v2(
                "pushline:retained", "data is retained: destroy_data in config/platform.yaml and the context "
                "pushline:destroy-data do not agree")  # fmt: skip
        return RemovalPolicy.DESTROY if asked and settings.destroy_data else RemovalPolicy.RETAIN

    def _key(self, settings: Settings) -> kms.Key:
        key = kms.Key(self, "Key", enable_key_rotation=True, removal_policy=self.removal,
                      description=f"{settings.project} {self.environment_name}: data, logs and messages")  # fmt: skip
        key.add_to_resource_policy(self._logs_may_encrypt())
        for service in SERVICES_THAT_NOTIFY:
            key.add_to_resource_policy(self._may_notify(service))
        return key

    def _logs_may_encrypt(self) -> iam.PolicyStatement:
        groups = f"arn:{self.partition}:logs:{self.region}:{self.account}:log-group:*"
        return iam.PolicyStatement(
            principals=[iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com")],
            actions=["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey",
                     "kms:GenerateDataKeyWithoutPlaintext"],
            resources=["*"],
            conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}})  # fmt: skip

    def _may_notify(self, service: str) -> iam.PolicyStatement:
        return iam.PolicyStatement(
            principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
            actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=["*"],
            conditions={"StringEquals": {"aws:SourceAccount": self.account}})  # fmt: skip

    def _access_logs(self) -> s3.Bucket:
        # S3 delivers access logs only to buckets under its own key.
        return s3.Bucket(self, "AccessLogs", encryption=s3.BucketEncryption.S3_MANAGED, versioned=True,
                         enforce_ssl=True, block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
                         object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
                         lifecycle_rules=[self._lifecycle(self._retention.access_logs_days)],
                         removal_policy=self.removal)  # fmt: skip

    def bucket(self, id: str, *rules: s3.LifecycleRule, notify: bool = False, expires: int | None = None,
               name: str | None = None) -> s3.Bucket:  # fmt: skip
        """A private, versioned bucket under the environment's key; its objects go after `expires` days, if ever."""
        bucket = s3.Bucket(self, id, bucket_name=name, encryption=s3.BucketEncryption.KMS, encryption_key=self.key,
                           bucket_key_enabled=True, versioned=True, enforce_ssl=True,
                           block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
                           object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
                           server_access_logs_bucket=self.access_logs, server_access_logs_prefix=f"{id}/",
                           lifecycle_rules=[self._lifecycle(expires), *rules], removal_policy=self.removal)  # fmt: skip
        if notify:
            _notify_event_bus(bucket)
        return bucket

    def lend(self, bucket: s3.Bucket, reader: Reader) -> None:
        """Let a role of another account read from the bucket, and use the key for that and nothing else."""
        if reader.keys:
            self._lend_objects(bucket, reader)
        if reader.listed:
            prefixes: dict[str, dict[str, object]] = {"StringLike": {"s3:prefix": list(reader.listed)}}
            bucket.add_to_resource_policy(reader.visitor.may("s3:ListBucket", on=bucket.bucket_arn, when=prefixes))

    def _lend_objects(self, bucket: s3.Bucket, reader: Reader) -> None:
        keys = [bucket.arn_for_objects(key) for key in reader.keys]
        bucket.add_to_resource_policy(reader.visitor.may("s3:GetObject", on=keys))
        # By name, since the bucket itself refers to the key.
        resource = bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        named = f"arn:{self.partition}:s3:::{resource.bucket_name}"
        through: dict[str, object] = {"kms:ViaService": f"s3.{self.region}.{self.url_suffix}",
                                      "kms:EncryptionContext:aws:s3:arn": named}  # fmt: skip
        self.key.add_to_resource_policy(
            reader.visitor.may("kms:Decrypt", on="*", when={"StringEquals": through}))  # fmt: skip

    def _notifications(self, settings: Settings) -> sns.Topic:
        topic = sns.Topic(self, "Notifications", master_key=self.key, enforce_ssl=True,
                          display_name=f"{settings.project} {self.environment_name}")  # fmt: skip
        for service in SERVICES_THAT_NOTIFY:
            topic.add_to_resource_policy(self._may_publish(topic, service))
        if settings.notifications.email:
            topic.add_subscription(subscriptions.EmailSubscription(settings.notifications.email))
        return topic

    def _may_publish(self, topic: sns.Topic, service: str) -> iam.PolicyStatement:
        return iam.PolicyStatement(principals=[service_principal(self, service)], actions=["sns:Publish"],
                                   resources=[topic.topic_arn])  # fmt: skip

    def _lifecycle(self, expires: int | None) -> s3.LifecycleRule:
        old = self._retention.old_versions_days
        return s3.LifecycleRule(
            expiration=Duration.days(expires) if expires else None,
            noncurrent_version_expiration=Duration.days(min(expires or old, old)),
            abort_incomplete_multipart_upload_after=Duration.days(UNFINISHED_UPLOAD_DAYS))  # fmt: skip


class ServingEnvironmentStack(EnvironmentStack):
    """What the endpoints of one environment share."""

    def __init__(self, scope: Construct, id: str, *, settings: Settings, environment: str,
                 readers: Sequence[Reader] = (), **stack: Any) -> None:  # fmt: skip
        super().__init__(scope, id, settings=settings, environment=environment, **stack)
        self.traffic = self._traffic(settings, readers)

    def _traffic(self, settings: Settings, readers: Sequence[Reader]) -> s3.Bucket:
        # Its name is made up by CloudFormation, unless training's account has to name it.
        name = f"{settings.project}-traffic-{self.account}-{self.region}" if readers else None
        traffic = self.bucket("Traffic", *self._for_a_while(), name=name)
        for reader in readers:
            self.lend(traffic, reader)
        return traffic

    def _for_a_while(self) -> list[s3.LifecycleRule]:
        """What endpoints write is kept for a while only; raw data and features stay."""
        days, once = Duration.days(self._retention.captured_days), Duration.days(1)
        return [s3.LifecycleRule(prefix=prefix, expiration=days, noncurrent_version_expiration=once)
                for prefix in (CAPTURE, ANSWERS)]  # fmt: skip


def _notify_event_bus(bucket: s3.Bucket) -> None:
    # CDK's own switch would add a custom resource: a Lambda with a managed policy.
    resource = bucket.node.default_child
    assert isinstance(resource, s3.CfnBucket)
    resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
        event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
    )


__all__ = ["ANSWERS", "CAPTURE", "EnvironmentStack", "ServingEnvironmentStack"]
