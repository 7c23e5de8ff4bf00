"""Models and endpoint configurations: what an endpoint is made of. Nothing runs yet."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from rehearsal.environments import images
from rehearsal.sagemaker.artifact import ArtifactError, check_readable
from rehearsal.sagemaker.async_request import check_asynchronous
from rehearsal.sagemaker.container import SAGEMAKER
from rehearsal.sagemaker.fleet import server_image
from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.serverless import check_serverless, check_serverless_model
from rehearsal.sagemaker.tags import Permissions, Tags, request_tags, tagging
from rehearsal.sagemaker.variant_plan import container_of
from rehearsal.service import Caller, Params, Permission, ServiceError, Unsupported, arn
from rehearsal.vpc import check_for_sagemaker, vpc_context

Document = dict[str, Any]
MODEL, CONFIG, ENDPOINT = "sagemaker/model", "sagemaker/endpoint-config", "sagemaker/endpoint"
_CONTAINER_REFUSED = (
    "ModelDataSource",
    "AdditionalModelDataSources",
    "ModelPackageName",
    "MultiModelConfig",
    "InferenceSpecificationName",
    "ContainerMetricsConfig",
)
_VARIANT_REFUSED = (
    "AcceleratorType",
    "InstancePools",
    "ManagedInstanceScaling",
    "RoutingConfig",
    "CapacityReservationConfig",
    "CoreDumpConfig",
    "EnableSSMAccess",
)
_CONFIG_REFUSED = (
    "ExplainerConfig",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "MetricsConfig",
)


def model_arn(caller: Caller, name: str) -> str:
    # SageMaker puts model, configuration and endpoint names into ARNs in lower case.
    return arn("sagemaker", caller, f"model/{name.lower()}")


def config_arn(caller: Caller, name: str) -> str:
    return arn("sagemaker", caller, f"endpoint-config/{name.lower()}")


def endpoint_arn(caller: Caller, name: str) -> str:
    return arn("sagemaker", caller, f"endpoint/{name.lower()}")


def _creates_model(params: Params, caller: Caller) -> list[Permission]:
    made, role = model_arn(caller, params["ModelName"]), params.get("ExecutionRoleArn")
    context = {
        "sagemaker:NetworkIsolation": str(params.get("EnableNetworkIsolation", False)).lower(),
        **vpc_context(params.get("VpcConfig")),
        **request_tags(params),
    }
    passed = [Permission("iam:PassRole", role, {"iam:PassedToService": SAGEMAKER})] if role else []
    return [Permission("sagemaker:CreateModel", made, context), *passed, *tagging(made, params)]


def _creates_config(params: Params, caller: Caller) -> list[Permission]:
    made, variants = config_arn(caller, params["EndpointConfigName"]), variants_of(params)
    models = [model_arn(caller, v["ModelName"]) for v in variants if "ModelName" in v]
    types = [v["InstanceType"] for v in variants if "InstanceType" in v]
    sizes = [v["ServerlessConfig"] for v in variants if "ServerlessConfig" in v]
    key = params.get("KmsKeyId")
    # The service authorization reference and the key's own page differ in its name: both are given.
    keys = {"sagemaker:VolumeKmsKey": key, "sagemaker:VolumeKmsKeyArn": key} if key else {}
    context = {
        "sagemaker:ModelArn": models,
        **({"sagemaker:InstanceTypes": types} if types else {}),
        **({"sagemaker:ServerlessMemorySize": max(size["MemorySizeInMB"] for size in sizes)} if sizes else {}),
        **({"sagemaker:ServerlessMaxConcurrency": max(size["MaxConcurrency"] for size in sizes)} if sizes else {}),
        **keys,
        **request_tags(params),
    }
    return [Permission("sagemaker:CreateEndpointConfig", made, context), *tagging(made, params)]


def _on_model(operation: str) -> Any:
    return lambda params, caller: [Permission(f"sagemaker:{operation}", model_arn(caller, params["ModelName"]))]


def _on_config(operation: str) -> Any:
    return lambda params, caller: [
        Permission(f"sagemaker:{operation}", config_arn(caller, params["EndpointConfigName"]))
    ]


class Models(Tags):
    """CreateModel and CreateEndpointConfig, and their Describe, List and Delete."""

    PERMISSIONS: ClassVar[Permissions] = {
        "CreateModel": _creates_model,
        "DescribeModel": _on_model("DescribeModel"),
        "DeleteModel": _on_model("DeleteModel"),
        "ListModels": lambda params, caller: [Permission("sagemaker:ListModels")],
        "CreateEndpointConfig": _creates_config,
        "DescribeEndpointConfig": _on_config("DescribeEndpointConfig"),
        "DeleteEndpointConfig": _on_config("DeleteEndpointConfig"),
        "ListEndpointConfigs": lambda params, caller: [Permission("sagemaker:ListEndpointConfigs")],
    }

    def create_model(self, caller: Caller, params: Params) -> Params:
        made, container = model_arn(caller, params["ModelName"]), _only_container(params)
        role = params.get("ExecutionRoleArn")
        if role is None:
            raise ServiceError("ValidationException", "ExecutionRoleArn is required to host a model")
        if self.cloud.store.get(MODEL, made) is not None:
            raise ServiceError("ValidationException", f'Cannot create already existing model "{made}".')
        check_for_sagemaker(self.cloud, params.get("VpcConfig"), role, caller)
        if url := container.get("ModelDataUrl"):
            try:
                check_readable(self.cloud, url, role, caller)
            except ArtifactError as error:
                raise ServiceError("ValidationException", str(error)) from None
        self._keep(MODEL, made, params, ModelArn=made)
        return {"ModelArn": made}

    def describe_model(self, caller: Caller, params: Params) -> Params:
        return self._kept(MODEL, model_arn(caller, params["ModelName"]), "model")

    def list_models(self, caller: Caller, params: Params) -> Params:
        found, token = page(self._owned(MODEL, model_arn(caller, "")), params, name="ModelName", key="ModelArn")
        keys = ("ModelName", "ModelArn", "CreationTime")
        return {"Models": [{key: model[key] for key in keys} for model in found], "NextToken": token}

    def delete_model(self, caller: Caller, params: Params) -> Params:
        self._drop(MODEL, model_arn(caller, params["ModelName"]), "model")
        return {}

    def create_endpoint_config(self, caller: Caller, params: Params) -> Params:
        made = config_arn(caller, params["EndpointConfigName"])
        _check_config(params)
        for variant in variants_of(params):
            model = self._kept(MODEL, model_arn(caller, variant["ModelName"]), "model")
            if variant.get("ServerlessConfig"):
                check_serverless_model(model)
        if self.cloud.store.get(CONFIG, made) is not None:
            message = f'Cannot create already existing endpoint configuration "{made}".'
            raise ServiceError("ValidationException", message)
        self._keep(CONFIG, made, params, EndpointConfigArn=made)
        return {"EndpointConfigArn": made}

    def describe_endpoint_config(self, caller: Caller, params: Params) -> Params:
        return self._kept(CONFIG, config_arn(caller, params["EndpointConfigName"]), "endpoint configuration")

    def list_endpoint_configs(self, caller: Caller, params: Params) -> Params:
        found, token = page(
            self._owned(CONFIG, config_arn(caller, "")), params, name="EndpointConfigName", key="EndpointConfigArn"
        )
        keys = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return {"EndpointConfigs": [{key: config[key] for key in keys} for config in found], "NextToken": token}

    def delete_endpoint_config(self, caller: Caller, params: Params) -> Params:
        self._drop(CONFIG, config_arn(caller, params["EndpointConfigName"]), "endpoint configuration")
        return {}

    def _keep(self, kind: str, made: str, params: Params, **more: str) -> None:
        with self.cloud.store.transaction():
            document = {key: value for key, value in params.items() if key != "Tags"}
            self.cloud.store.put(kind, made, {**document, **more, "CreationTime": time.time()})
            self.tag(made, params.get("Tags"))

    def _kept(self, kind: str, made: str, what: str) -> Document:
        document = self.cloud.store.get(kind, made)
        if document is None:
            raise ServiceError("ValidationException", f'Could not find {what} "{made}".')
        return document

    def _drop(self, kind: str, made: str, what: str) -> None:
        self._kept(kind, made, what)
        with self.cloud.store.transaction():
            self.cloud.store.delete(kind, made)
            self.untag_all(made)

    def _owned(self, kind: str, prefix: str) -> list[Document]:
        return [document for key, document in self.cloud.store.list(kind) if key.startswith(prefix)]


def _only_container(params: Params) -> Document:
    if params.get("InferenceExecutionConfig") or len(params.get("Containers") or []) > 1:
        raise Unsupported(f"model {params['ModelName']}: inference pipelines of several containers are not rehearsed")
    if not params.get("PrimaryContainer") and not params.get("Containers"):
        raise ServiceError("ValidationException", "PrimaryContainer or Containers is required")
    container = container_of(params)
    _refuse(container, _CONTAINER_REFUSED, f"the container of model {params['ModelName']}")
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise Unsupported(f"model {params['ModelName']}: multi-model containers are not rehearsed")
    if "Image" not in container:
        raise ServiceError("ValidationException", "Image is required")
    if server_image(container["Image"]) not in images():
        raise Unsupported(f"the image {container['Image']} can't be served; there are {', '.join(images())}")
    return container


def variants_of(config: Document) -> list[Document]:
    """Production variants, then the shadow variant."""
    return [*config["ProductionVariants"], *(config.get("ShadowProductionVariants") or [])]


def _check_shadow(params: Params) -> None:
    shadows = params.get("ShadowProductionVariants") or []
    if shadows and (len(shadows) > 1 or len(params["ProductionVariants"]) > 1):
        message = "ShadowProductionVariants takes one variant, beside one of ProductionVariants"
        raise ServiceError("ValidationException", message)
    if shadows and (params.get("AsyncInferenceConfig") or any("ServerlessConfig" in v for v in variants_of(params))):
        message = "ShadowProductionVariants needs variants on instances that are invoked in real time"
        raise ServiceError("ValidationException", message)


def _check_config(params: Params) -> None:
    check_serverless(params)
    _refuse(params, _CONFIG_REFUSED, f"endpoint configuration {params['EndpointConfigName']}")
    _check_shadow(params)
    check_asynchronous(params)
    names = [variant["VariantName"] for variant in variants_of(params)]
    if len(set(names)) < len(names):
        raise ServiceError("ValidationException", f"variant names must be unique: {', '.join(names)}")
    for variant in variants_of(params):
        _refuse(variant, _VARIANT_REFUSED, f"variant {variant['VariantName']}")
        needed = (
            ("ModelName",) if variant.get("ServerlessConfig") else ("ModelName", "InstanceType", "InitialInstanceCount")
        )
        missing = [key for key in needed if key not in variant]
        if missing:
            raise ServiceError("ValidationException", f"variant {variant['VariantName']} lacks {', '.join(missing)}")


def _refuse(params: Params, refused: tuple[str, ...], where: str) -> None:
    found = [key for key in refused if params.get(key)]
    if found:
        raise Unsupported(f"{', '.join(found)} of {where} is not rehearsed")
