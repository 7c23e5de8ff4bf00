"""Real-time endpoints: created, updated blue/green and deleted, served by fleets behind the router."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

from rehearsal.application_autoscaling.records import DIMENSION, NAMESPACE, TARGET, resource_of, variant_of
from rehearsal.sagemaker.async_inference import AsyncInference
from rehearsal.sagemaker.capacity import deregistering, desired, must_keep_scaled, scaled_variants
from rehearsal.sagemaker.endpoint_life import EndpointLife
from rehearsal.sagemaker.endpoint_record import deployment, described, must_be_movable
from rehearsal.sagemaker.endpoint_record import plans as live_plans
from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.meter import Meter, Place
from rehearsal.sagemaker.models import CONFIG, ENDPOINT, MODEL, Models, config_arn, endpoint_arn, model_arn
from rehearsal.sagemaker.rollout import check_alarms
from rehearsal.sagemaker.router import Router, endpoint_url
from rehearsal.sagemaker.serverless import check_conversion
from rehearsal.sagemaker.tags import Permissions, request_tags, tagging
from rehearsal.sagemaker.traffic_policy import traffic_policy
from rehearsal.sagemaker.variant_plan import VariantPlan, retained, variant_plan
from rehearsal.service import Caller, Cloud, Params, Permission, ServiceError

Document = dict[str, Any]
URL_TAG = "rehearsal:url"
"""A tag that only the rehearsal's endpoints show: where they answer over plain HTTP."""


def _on_endpoint(operation: str) -> Any:
    return lambda params, caller: [Permission(f"sagemaker:{operation}", endpoint_arn(caller, params["EndpointName"]))]


def _deploys(operation: str) -> Any:
    def permissions(params: Params, caller: Caller) -> list[Permission]:
        made = endpoint_arn(caller, params["EndpointName"])
        config = config_arn(caller, params["EndpointConfigName"])
        action, tags = f"sagemaker:{operation}", request_tags(params)
        return [Permission(action, made, tags), Permission(action, config, tags), *tagging(made, params)]

    return permissions


class Hosting(Models):
    """CreateEndpoint, UpdateEndpoint, DeleteEndpoint and what they show; each runs on in a thread of its own."""

    PERMISSIONS: ClassVar[Permissions] = {
        "CreateEndpoint": _deploys("CreateEndpoint"),
        "UpdateEndpoint": _deploys("UpdateEndpoint"),
        "UpdateEndpointWeightsAndCapacities": _on_endpoint("UpdateEndpointWeightsAndCapacities"),
        "DescribeEndpoint": _on_endpoint("DescribeEndpoint"),
        "DeleteEndpoint": _on_endpoint("DeleteEndpoint"),
        "ListEndpoints": lambda params, caller: [Permission("sagemaker:ListEndpoints")],
    }

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.meter = Meter(cloud, self._scaled)
        self.router = Router(cloud.store, self.meter)
        self._life = EndpointLife(cloud, self.router, self)
        self._queues = AsyncInference(cloud, self.router, self.meter)

    # -- the daemon's life --------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        self._life.start()  # before the router: it says which endpoints are to be waited for
        self.router.start()
        self.meter.start()
        self._queues.start()

    def stop(self) -> None:
        self._life.give_up()
        self._queues.stop()
        self.router.stop()
        self.meter.stop()
        self._life.stop()
        super().stop()

    def endpoint_url(self, name: str) -> str | None:
        return endpoint_url(self.cloud.store, name)

    # -- operations ---------------------------------------------------------------------------------------

    def create_endpoint(self, caller: Caller, params: Params) -> Params:
        made, now = endpoint_arn(caller, params["EndpointName"]), time.time()
        plans = self._plans(caller, params["EndpointConfigName"])
        _ = traffic_policy(params.get("DeploymentConfig"), plans, plans)
        with self.cloud.store.transaction():
            if self.cloud.store.get(ENDPOINT, made) is not None:
                raise ServiceError("ValidationException", f'Cannot create already existing endpoint "{made}".')
            self.cloud.store.put(
                ENDPOINT,
                made,
                {
                    "EndpointName": params["EndpointName"],
                    "EndpointArn": made,
                    "EndpointStatus": "Creating",
                    "EndpointConfigName": params["EndpointConfigName"],
                    "CreationTime": now,
                    "LastModifiedTime": now,
                    "account": caller.account,
                    "region": caller.region,
                    "live": None,
                    "pending": self._deployment(caller, params, plans),
                },
            )
            self.tag(made, params.get("Tags"))
        self._life.announce(made)
        self._life.create(made)
        return {"EndpointArn": made}

    def describe_endpoint(self, caller: Caller, params: Params) -> Params:
        endpoint = self._endpoint(caller, params["EndpointName"])
        return described(endpoint)

    def list_endpoints(self, caller: Caller, params: Params) -> Params:
        owned = self._owned(ENDPOINT, endpoint_arn(caller, ""))
        if status := params.get("StatusEquals"):
            owned = [endpoint for endpoint in owned if endpoint["EndpointStatus"] == status]
        found, token = page(owned, params, name="EndpointName", key="EndpointArn", status="EndpointStatus")
        keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
        return {"Endpoints": [{key: endpoint[key] for key in keys} for endpoint in found], "NextToken": token}

    def update_endpoint(self, caller: Caller, params: Params) -> Params:
        endpoint = self._endpoint(caller, params["EndpointName"])
        made, plans = endpoint["EndpointArn"], self._plans(caller, params["EndpointConfigName"])
        # SageMaker reads the live configuration too, and refuses when it was deleted under the endpoint.
        before, after = (self._config(caller, name) for name in
                         (endpoint["EndpointConfigName"], params["EndpointConfigName"]))  # fmt: skip
        must_keep_scaled(self.cloud.store, caller, params["EndpointName"], before, after)
        plans = retained(plans, endpoint, params)
        config = params.get("DeploymentConfig")
        if params.get("RetainDeploymentConfig"):
            config = endpoint.get("LastDeploymentConfig")
        live = live_plans(endpoint["live"]) if endpoint["live"] else []
        check_conversion(live, plans)
        check_alarms(self.cloud, traffic_policy(config, plans, live).alarms, plans[0].role, caller)

        def change(document: Document) -> None:
            must_be_movable(document, "update")
            document.pop("FailureReason", None)
            document.update(
                EndpointStatus="Updating",
                LastModifiedTime=time.time(),
                pending=self._deployment(caller, params, plans),
            )
            if config:
                document["NextDeploymentConfig"] = config

        self.cloud.store.update(ENDPOINT, made, change)
        self._life.announce(made)
        self._life.update(made)
        return {"EndpointArn": made}

    def update_endpoint_weights_and_capacities(self, caller: Caller, params: Params) -> Params:
        endpoint = self._endpoint(caller, params["EndpointName"])
        made, wanted = endpoint["EndpointArn"], desired(endpoint, params)

        def change(document: Document) -> None:
            must_be_movable(document, "update")
            document.pop("FailureReason", None)
            document.update(EndpointStatus="Updating", LastModifiedTime=time.time(), desired=wanted)

        self.cloud.store.update(ENDPOINT, made, change)
        self._life.announce(made)
        self._life.resize(made)
        return {"EndpointArn": made}

    def implied_permissions(self, operation: str, params: Params, caller: Caller) -> list[Permission]:
        """What an operation takes besides its own permission, as the endpoint stands."""
        if operation != "DeleteEndpoint":
            return []
        name = params["EndpointName"]
        return [*deregistering(self.cloud.store, caller, name, self._live_variants(caller, name))]

    def delete_endpoint(self, caller: Caller, params: Params) -> Params:
        def change(document: Document) -> None:
            must_be_movable(document, "delete")
            document.update(EndpointStatus="Deleting", LastModifiedTime=time.time())

        made = self._endpoint(caller, params["EndpointName"])["EndpointArn"]
        self.cloud.store.update(ENDPOINT, made, change)
        self._deregister(caller, params["EndpointName"])
        self._life.announce(made)
        self._life.delete(made)
        return {}

    def tags_of(self, arn: str) -> list[dict[str, str]]:
        tags = super().tags_of(arn)
        endpoint = self.cloud.store.get(ENDPOINT, arn)
        url = self.endpoint_url(endpoint["EndpointName"]) if endpoint else None
        return [*tags, {"Key": URL_TAG, "Value": url}] if url else tags

    # -- what it is made of ---------------------------------------------------------------------------------

    def _endpoint(self, caller: Caller, name: str) -> Document:
        return self._kept(ENDPOINT, endpoint_arn(caller, name), "endpoint")

    def _config(self, caller: Caller, name: str) -> Document:
        return self._kept(CONFIG, config_arn(caller, name), "endpoint configuration")

    def _live_variants(self, caller: Caller, name: str) -> list[str]:
        endpoint = self.cloud.store.get(ENDPOINT, endpoint_arn(caller, name)) or {}
        return [plan["name"] for plan in (endpoint.get("live") or {"plans": []})["plans"]]

    def _scaled(self) -> Iterator[Place]:
        """The variants that are scaled, on what they run now."""
        for _, target in self.cloud.store.list(TARGET):
            where, (name, variant) = Caller(target["account"], target["region"]), variant_of(target["ResourceId"])
            endpoint = self.cloud.store.get(ENDPOINT, endpoint_arn(where, name))
            if endpoint and endpoint["live"]:
                yield Place(name, variant, endpoint["live"]["config"], where.account, where.region)

    def _deregister(self, caller: Caller, name: str) -> None:
        """An endpoint takes its scalable targets with it; the caller's permission to do that has been asked for."""
        scaling = self.cloud.client("application-autoscaling", account=caller.account, region=caller.region)
        for variant in scaled_variants(self.cloud.store, caller, name, self._live_variants(caller, name)):
            scaling.deregister_scalable_target(ServiceNamespace=NAMESPACE, ScalableDimension=DIMENSION,
                                               ResourceId=resource_of(name, variant))  # fmt: skip

    def _plans(self, caller: Caller, config_name: str) -> list[VariantPlan]:
        config = self._config(caller, config_name)
        return [
            variant_plan(variant, self._model(caller, variant), shadow=shadow)
            for key, shadow in (("ProductionVariants", False), ("ShadowProductionVariants", True))
            for variant in config.get(key) or []
        ]

    def _model(self, caller: Caller, variant: Document) -> Document:
        return self._kept(MODEL, model_arn(caller, variant["ModelName"]), "model")

    def _deployment(self, caller: Caller, params: Params, plans: list[VariantPlan]) -> Document:
        name = params["EndpointConfigName"]
        config = self._config(caller, name)
        capture: Document = config.get("DataCaptureConfig") or {}
        captures = capture if capture and capture.get("EnableCapture", True) else None
        return deployment(name, plans, captures, config.get("AsyncInferenceConfig"))
