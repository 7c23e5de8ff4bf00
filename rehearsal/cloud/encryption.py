"""Keys that templates give to buckets and topics; ministack's CloudFormation drops them, and so their IAM checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from ministack.services import s3, sns
from ministack.services.cloudformation import provisioners

from rehearsal.service import Params

Made = tuple[str, Params]


def install() -> None:
    """A bucket's default encryption and a topic's key are what the template says, also after an update."""
    configured = ("BucketEncryption", _configuration, s3._put_bucket_encryption, s3._delete_bucket_encryption)
    if configured[0] not in {row[0] for row in provisioners._S3_BUCKET_CONFIGURATIONS}:
        provisioners._S3_BUCKET_CONFIGURATIONS += (configured,)
    topics = provisioners._RESOURCE_HANDLERS["AWS::SNS::Topic"]
    topics["create"] = _created(topics["create"])
    topics["update"] = _updated(topics["update"])


def _configuration(encryption: Params) -> bytes:
    """S3's own document of a template's BucketEncryption."""
    (rule,) = encryption["ServerSideEncryptionConfiguration"]
    default = rule["ServerSideEncryptionByDefault"]
    named = "KMSMasterKeyID" in default
    key = f"<KMSMasterKeyID>{escape(default['KMSMasterKeyID'])}</KMSMasterKeyID>" if named else ""
    # Without a name it is S3's own key, which asks for no permission and which ministack does not have.
    algorithm = default["SSEAlgorithm"] if named else "AES256"
    return (
        f'<ServerSideEncryptionConfiguration xmlns="{s3.S3_NS}"><Rule><ApplyServerSideEncryptionByDefault>'
        f"<SSEAlgorithm>{escape(algorithm)}</SSEAlgorithm>{key}</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{str(rule.get('BucketKeyEnabled', False)).lower()}</BucketKeyEnabled></Rule>"
        "</ServerSideEncryptionConfiguration>"
    ).encode()


def _created(original: Callable[..., Made]) -> Callable[..., Made]:
    def create(logical_id: str, properties: Params, stack_name: str) -> Made:
        made = original(logical_id, properties, stack_name)
        _keep_key(made[0], properties)
        return made

    return create


def _updated(original: Callable[..., Made]) -> Callable[..., Made]:
    def update(physical_id: str, old: Params, new: Params, *more: Any) -> Made:
        made = original(physical_id, old, new, *more)
        _keep_key(made[0], new)
        return made

    return update


def _keep_key(topic: str, properties: Params) -> None:
    attributes = sns._topics[topic]["attributes"]
    if key := properties.get("KmsMasterKeyId"):
        attributes["KmsMasterKeyId"] = key
    else:
        attributes.pop("KmsMasterKeyId", None)
