"""What an endpoint config holds: the one variant, what is captured, and where an asynchronous endpoint answers."""

from __future__ import annotations

from aws_cdk import CfnParameter
from aws_cdk import aws_sagemaker as sagemaker

from contract.model import Serverless
from stacks.deployment import Deployment
from stacks.environment_stack import ANSWERS, CAPTURE

Config = sagemaker.CfnEndpointConfig


def instance_variant(name: str, model: sagemaker.CfnModel, instance_type: str,
                     count: CfnParameter) -> Config.ProductionVariantProperty:  # fmt: skip
    """All traffic on instances of one type."""
    return Config.ProductionVariantProperty(
        variant_name=name, model_name=model.attr_model_name, instance_type=instance_type,
        initial_instance_count=count.value_as_number, initial_variant_weight=1)  # fmt: skip


def serverless_variant(name: str, model: sagemaker.CfnModel, size: Serverless) -> Config.ProductionVariantProperty:
    """All traffic on capacity that comes and goes with the requests."""
    serverless = Config.ServerlessConfigProperty(
        memory_size_in_mb=size.memory_mb, max_concurrency=size.maximum_concurrency
    )
    return Config.ProductionVariantProperty(variant_name=name, model_name=model.attr_model_name,
                                            initial_variant_weight=1, serverless_config=serverless)  # fmt: skip


def data_capture(deployment: Deployment, bucket: str, key: str) -> Config.DataCaptureConfigProperty:
    """A sample of requests and answers, encrypted, in the data bucket."""
    modes = [Config.CaptureOptionProperty(capture_mode=mode) for mode in ("Input", "Output")]
    kinds = Config.CaptureContentTypeHeaderProperty(
        csv_content_types=["text/csv"], json_content_types=["application/json"]
    )
    return Config.DataCaptureConfigProperty(
        enable_capture=True, initial_sampling_percentage=deployment.model.serving.capture_percent,
        destination_s3_uri=f"{bucket}/{CAPTURE}{deployment.place}", kms_key_id=key, capture_options=modes,
        capture_content_type_header=kinds)  # fmt: skip


def asynchronous(deployment: Deployment, bucket: str, key: str) -> Config.AsyncInferenceConfigProperty:
    """Answers and failures of queued requests, encrypted, in the data bucket."""
    place = f"{bucket}/{ANSWERS}{deployment.place}"
    output = Config.AsyncInferenceOutputConfigProperty(
        s3_output_path=f"{place}/answers", s3_failure_path=f"{place}/failures", kms_key_id=key
    )
    return Config.AsyncInferenceConfigProperty(output_config=output)
