"""What staging and production have of their own: a key, a topic, and a bucket for what endpoints write."""

from __future__ import annotations

import json

import pytest

from config import load_settings
from tests.conftest import Assembly

SHARED = {"training": "Pushline-Foundation", "staging": "Pushline-Staging", "production": "Pushline-Production"}


@pytest.mark.parametrize("environment", SHARED)
def test_every_environment_has_one_key_that_rotates_and_a_topic_under_it(assembly: Assembly, environment: str) -> None:
    (key_id,) = assembly.resources("AWS::KMS::Key", SHARED[environment])
    topic = assembly.one("AWS::SNS::Topic", SHARED[environment])

    assert assembly.one("AWS::KMS::Key", SHARED[environment])["EnableKeyRotation"] is True
    assert key_id in json.dumps(topic["KmsMasterKeyId"])


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_what_endpoints_write_is_private_encrypted_with_their_own_key_and_kept_for_a_while(
    assembly: Assembly, environment: str
) -> None:
    (key_id,) = assembly.resources("AWS::KMS::Key", SHARED[environment])
    buckets = assembly.resources("AWS::S3::Bucket", SHARED[environment])
    (bucket,) = [found["Properties"] for name, found in buckets.items() if name.startswith("Traffic")]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    kept = {rule["Prefix"]: rule["ExpirationInDays"] for rule in bucket["LifecycleConfiguration"]["Rules"]
            if "Prefix" in rule}  # fmt: skip

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert key_id in json.dumps(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"])
    assert set(kept.values()) == {load_settings().retention.captured_days}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_a_releases_logs_volumes_and_messages_are_under_its_environments_key(
    assembly: Assembly, environment: str
) -> None:
    title = environment.capitalize()
    logs = assembly.one("AWS::Logs::LogGroup", f"FlightDelay-Release-{title}")
    config = assembly.one("AWS::SageMaker::EndpointConfig", f"FlightDelay-Serving-{title}")
    reconciler = assembly.one("AWS::StepFunctions::StateMachine", f"FlightDelay-Release-{title}")

    for imported in (logs["KmsKeyId"], config["KmsKeyId"], reconciler["DefinitionSubstitutions"]["Topic"]):
        assert imported["Fn::ImportValue"].startswith(f"{SHARED[environment]}:")
