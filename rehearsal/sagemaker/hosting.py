"""Real-time endpoints: created, updated blue/green and deleted, served by fleets behind the router."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from rehearsal.sagemaker.artifact import ArtifactError
from rehearsal.sagemaker.capture import Capture
from rehearsal.sagemaker.fleet import Fleet, Unhealthy, VariantPlan, end_orphans
from rehearsal.sagemaker.listing import page
from rehearsal.sagemaker.meter import Meter
from rehearsal.sagemaker.models import (
    CONFIG,
    ENDPOINT,
    MODEL,
    Models,
    config_arn,
    container_of,
    endpoint_arn,
    model_arn,
)
from rehearsal.sagemaker.rollout import RolledBack, check_alarms, roll_out
from rehearsal.sagemaker.router import Router, endpoint_url
from rehearsal.sagemaker.tags import Permissions, request_tags, tagging
from rehearsal.sagemaker.traffic_policy import TrafficPolicy, traffic_policy
from rehearsal.service import Caller, Cloud, Params, Permission, ServiceError

log = logging.getLogger("rehearsal")
Document = dict[str, Any]
LOST = "lost when the rehearsal stopped"
URL_TAG = "rehearsal:url"
"""A tag that only the rehearsal's endpoints show: where they answer over plain HTTP."""
STARTUP_SECONDS = 600.0
"""SageMaker's default time for an instance to pass its health check."""
DRAIN_SECONDS = 60.0
"""SageMaker's limit for one request: after it nothing is in flight on an old fleet."""
_MOVABLE = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
_DESCRIBED = (
    "EndpointName",
    "EndpointArn",
    "EndpointStatus",
    "EndpointConfigName",
    "FailureReason",
    "CreationTime",
    "LastModifiedTime",
    "LastDeploymentConfig",
)


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
        "DescribeEndpoint": _on_endpoint("DescribeEndpoint"),
        "DeleteEndpoint": _on_endpoint("DeleteEndpoint"),
        "ListEndpoints": lambda params, caller: [Permission("sagemaker:ListEndpoints")],
    }

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.meter = Meter(cloud)
        self.router = Router(cloud.store, self.meter)
        self._fleets: dict[str, Fleet] = {}
        self._work: list[threading.Thread] = []
        self._stopping = threading.Event()

    # -- the daemon's life --------------------------------------------------------------------------------

    def start(self) -> None:
        super().start()
        for instance in end_orphans(self.cloud.store):
            log.warning("ended the model server %s that an earlier rehearsal left behind", instance)
        self.router.start()
        self.meter.start()
        for made, endpoint in self.cloud.store.list(ENDPOINT):
            self._resume(made, endpoint)

    def stop(self) -> None:
        self._stopping.set()
        self.router.stop()
        self.meter.stop()
        for thread in self._work:
            thread.join(60)
        stopping = [threading.Thread(target=fleet.stop) for fleet in self._fleets.values()]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
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
                    "pending": _deployment(params["EndpointConfigName"], plans, self._capture(caller, params)),
                },
            )
            self.tag(made, params.get("Tags"))
        self._announce(made)
        self._later(self._create, made)
        return {"EndpointArn": made}

    def describe_endpoint(self, caller: Caller, params: Params) -> Params:
        endpoint = self._endpoint(caller, params["EndpointName"])
        return _described(endpoint)

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
        self._kept(CONFIG, config_arn(caller, endpoint["EndpointConfigName"]), "endpoint configuration")
        plans = _retained(plans, endpoint, params)
        config = params.get("DeploymentConfig")
        if params.get("RetainDeploymentConfig"):
            config = endpoint.get("LastDeploymentConfig")
        live = [VariantPlan(**plan) for plan in (endpoint["live"] or {"plans": []})["plans"]]
        check_alarms(self.cloud, traffic_policy(config, plans, live).alarms, plans[0].role, caller)

        def change(document: Document) -> None:
            _must_be_movable(document, "update")
            document.pop("FailureReason", None)
            document.update(
                EndpointStatus="Updating",
                LastModifiedTime=time.time(),
                pending=_deployment(params["EndpointConfigName"], plans, self._capture(caller, params)),
            )
            if config:
                document["NextDeploymentConfig"] = config

        self.cloud.store.update(ENDPOINT, made, change)
        self._announce(made)
        self._later(self._update, made)
        return {"EndpointArn": made}

    def delete_endpoint(self, caller: Caller, params: Params) -> Params:
        def change(document: Document) -> None:
            _must_be_movable(document, "delete")
            document.update(EndpointStatus="Deleting", LastModifiedTime=time.time())

        made = self._endpoint(caller, params["EndpointName"])["EndpointArn"]
        self.cloud.store.update(ENDPOINT, made, change)
        self._announce(made)
        self._later(self._delete, made)
        return {}

    def tags_of(self, arn: str) -> list[dict[str, str]]:
        tags = super().tags_of(arn)
        endpoint = self.cloud.store.get(ENDPOINT, arn)
        url = self.endpoint_url(endpoint["EndpointName"]) if endpoint else None
        return [*tags, {"Key": URL_TAG, "Value": url}] if url else tags

    # -- what happens after the call has returned -----------------------------------------------------------

    def _create(self, made: str) -> None:
        try:
            fleet = self._bring_up(made)
        except (ArtifactError, Unhealthy) as error:
            self._settle(made, EndpointStatus="Failed", FailureReason=str(error), pending=None)
            return
        self._go_live(made, fleet)
        self._settle(made, EndpointStatus="InService", pending=None)

    def _update(self, made: str) -> None:
        """Blue/green: the healthy new fleet takes over the traffic in steps, the old one ends when it is drained."""
        began, old = time.monotonic(), self._fleets.get(made)
        try:
            fleet = self._bring_up(made)
        except (ArtifactError, Unhealthy) as error:
            self._roll_back(made, str(error))
            return
        endpoint = self.cloud.store.get(ENDPOINT, made) or {}
        config, policy = endpoint.get("NextDeploymentConfig"), _policy(endpoint)
        try:
            roll_out(self.cloud, self.router, endpoint, fleet, policy, began, self._stopping)
        except RolledBack as error:
            self._take_back(made, fleet, str(error))
            return
        if self._stopping.is_set():
            fleet.stop()  # the next start serves the old fleet: the rollout had not passed its last bake
            return
        self._go_live(made, fleet)
        self._stopping.wait(policy.termination_wait_seconds / self.cloud.time_scale)
        if old is not None:
            old.drain(DRAIN_SECONDS)
            old.stop()
            shutil.rmtree(old.folder, ignore_errors=True)
        self._settle(
            made,
            EndpointStatus="InService",
            pending=None,
            NextDeploymentConfig=None,
            **({"LastDeploymentConfig": config} if config else {}),
        )

    def _take_back(self, made: str, fleet: Fleet, reason: str) -> None:
        """An alarm went off: traffic is on the old fleet already, the new one ends."""
        log.warning("endpoint %s is rolled back: %s", made, reason)
        self._settle(made, EndpointStatus="RollingBack", FailureReason=reason)
        fleet.drain(DRAIN_SECONDS)
        fleet.stop()
        shutil.rmtree(fleet.folder, ignore_errors=True)
        self._roll_back(made, reason, announced=True)

    def _delete(self, made: str) -> None:
        self.router.remove(made)
        fleet = self._fleets.pop(made, None)
        if fleet is not None:
            fleet.drain(DRAIN_SECONDS)
            fleet.stop()
        self._forget(made)

    def _forget(self, made: str) -> None:
        shutil.rmtree(self._endpoint_folder(made), ignore_errors=True)
        with self.cloud.store.transaction():
            self.cloud.store.delete(ENDPOINT, made)
            self.untag_all(made)

    def _roll_back(self, made: str, reason: str, *, announced: bool = False) -> None:
        """The silent rollback: InService again on the old configuration, with the reason beside it."""
        if not announced:
            self._settle(made, EndpointStatus="RollingBack")
        back = "InService" if made in self._fleets else "UpdateRollbackFailed"
        self._settle(made, EndpointStatus=back, FailureReason=reason, pending=None, NextDeploymentConfig=None)

    def _bring_up(self, made: str, which: str = "pending") -> Fleet:
        """The fleet of a deployment, healthy; whatever was started for one that fails is ended."""
        endpoint = self.cloud.store.get(ENDPOINT, made) or {}
        deployment = endpoint[which]
        plans, folder = [VariantPlan(**plan) for plan in deployment["plans"]], self._endpoint_folder(made)
        fleet = Fleet(
            plans,
            folder / deployment["id"],
            self.cloud,
            endpoint["EndpointName"],
            _owner(endpoint),
            deployment["config"],
        )
        try:
            fleet.start(self._stopping)
        except BaseException as error:
            fleet.stop()
            if which == "pending":
                shutil.rmtree(fleet.folder, ignore_errors=True)
            if isinstance(error, ArtifactError | Unhealthy):
                raise
            log.exception("endpoint %s could not be brought up", made)
            raise Unhealthy(f"{type(error).__name__}: {error}"[:1024]) from error
        if capture := deployment.get("capture"):
            fleet.capture = Capture(capture, self.cloud, endpoint["EndpointName"], plans[0].role, _owner(endpoint))
        return fleet

    def _go_live(self, made: str, fleet: Fleet) -> Document:
        """Switch the traffic. The record is written first: a restart must serve what clients were told."""

        def change(document: Document) -> None:
            document["live"] = document["pending"]
            document["EndpointConfigName"] = document["pending"]["config"]

        document = self.cloud.store.update(ENDPOINT, made, change)
        self.router.switch(made, fleet)
        self._fleets[made] = fleet
        return document

    def _resume(self, made: str, endpoint: Document) -> None:
        status = endpoint["EndpointStatus"]
        if status == "Deleting":
            self._forget(made)
        elif status == "Creating" and endpoint["live"] is None:
            self._settle(made, EndpointStatus="Failed", FailureReason=LOST, pending=None)
        elif endpoint["live"] is not None:
            if status != "InService" and endpoint["live"] != endpoint["pending"]:
                self._settle(
                    made, EndpointStatus="InService", FailureReason=LOST, pending=None, NextDeploymentConfig=None
                )
            self._later(self._serve_again, made)

    def _serve_again(self, made: str) -> None:
        try:
            fleet = self._bring_up(made, "live")
        except (ArtifactError, Unhealthy) as error:
            if not self._stopping.is_set():
                self._settle(made, EndpointStatus="Failed", FailureReason=str(error), pending=None)
            return
        self.router.switch(made, fleet)
        self._fleets[made] = fleet
        endpoint = self.cloud.store.get(ENDPOINT, made) or {}
        if endpoint.get("EndpointStatus") != "InService":
            self._settle(made, EndpointStatus="InService", pending=None, NextDeploymentConfig=None)

    def _later(self, work: Callable[[str], None], made: str) -> None:
        self._work = [thread for thread in self._work if thread.is_alive()]
        thread = threading.Thread(target=work, args=(made,), name=f"{work.__name__.strip('_')} {made}", daemon=True)
        self._work.append(thread)
        thread.start()

    # -- state --------------------------------------------------------------------------------------------

    def _settle(self, made: str, *, announce: bool = True, **changes: Any) -> None:
        """Change the endpoint's record (None removes a member, but `pending` stays) and tell EventBridge."""
        if self._stopping.is_set():
            return  # what is under way now is decided by the next start

        def change(document: Document) -> None:
            for key, value in changes.items():
                document[key] = value
                if value is None and key != "pending":
                    del document[key]
            document["LastModifiedTime"] = time.time()

        self.cloud.store.update(ENDPOINT, made, change)
        if announce:
            self._announce(made)

    def _announce(self, made: str) -> None:
        endpoint = self.cloud.store.get(ENDPOINT, made)
        if endpoint is None:
            return
        detail = {key: endpoint[key] for key in _DESCRIBED if key in endpoint and key != "LastDeploymentConfig"}
        for key in ("CreationTime", "LastModifiedTime"):
            detail[key] = int(detail[key] * 1000)
        detail["EndpointStatus"] = _event_status(endpoint["EndpointStatus"])
        detail["ProductionVariants"] = _variants(endpoint["live"], times=False) if endpoint["live"] else []
        detail["Tags"] = {tag["Key"]: tag["Value"] for tag in self.tags_of(made)}
        self.cloud.emit("aws.sagemaker", "SageMaker Endpoint State Change", detail, [made], _owner(endpoint))

    def _endpoint(self, caller: Caller, name: str) -> Document:
        return self._kept(ENDPOINT, endpoint_arn(caller, name), "endpoint")

    def _endpoint_folder(self, made: str) -> Path:
        account, name = made.split(":")[4], made.rpartition("/")[2]
        return self.cloud.state_dir / "sagemaker" / "endpoints" / account / made.split(":")[3] / name

    def _plans(self, caller: Caller, config_name: str) -> list[VariantPlan]:
        config = self._kept(CONFIG, config_arn(caller, config_name), "endpoint configuration")
        return [self._plan(caller, variant) for variant in config["ProductionVariants"]]

    def _capture(self, caller: Caller, params: Params) -> Document | None:
        config = self._kept(CONFIG, config_arn(caller, params["EndpointConfigName"]), "endpoint configuration")
        capture: Document = config.get("DataCaptureConfig") or {}
        return capture if capture and capture.get("EnableCapture", True) else None

    def _plan(self, caller: Caller, variant: Document) -> VariantPlan:
        model = self._kept(MODEL, model_arn(caller, variant["ModelName"]), "model")
        container = container_of(model)
        return VariantPlan(
            name=variant["VariantName"],
            weight=variant.get("InitialVariantWeight", 1.0),
            count=variant["InitialInstanceCount"],
            image=container["Image"],
            model_data_url=container.get("ModelDataUrl"),
            environment=container.get("Environment") or {},
            role=model["ExecutionRoleArn"],
            startup_seconds=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS),
        )


def _policy(endpoint: Document) -> TrafficPolicy:
    plans, live = ([VariantPlan(**plan) for plan in endpoint[which]["plans"]] for which in ("pending", "live"))
    return traffic_policy(endpoint.get("NextDeploymentConfig"), plans, live)


def _must_be_movable(endpoint: Document, verb: str) -> None:
    if endpoint["EndpointStatus"] not in _MOVABLE or (verb == "update" and endpoint["EndpointStatus"] == "Failed"):
        raise ServiceError(
            "ValidationException",
            f'Cannot {verb} in-progress endpoint "{endpoint["EndpointArn"]}".'
            if endpoint["EndpointStatus"] != "Failed"
            else f'Cannot update failed endpoint "{endpoint["EndpointArn"]}"; delete and create it.',
        )


def _retained(plans: list[VariantPlan], endpoint: Document, params: Params) -> list[VariantPlan]:
    """The plans with what RetainAllVariantProperties keeps of the live variants of the same name."""
    if not params.get("RetainAllVariantProperties") or not endpoint["live"]:
        return plans
    excluded = {p["VariantPropertyType"] for p in params.get("ExcludeRetainedVariantProperties") or []}
    live = {plan["name"]: plan for plan in endpoint["live"]["plans"]}
    kept = {"count": "DesiredInstanceCount", "weight": "DesiredWeight"}

    def retain(plan: VariantPlan) -> VariantPlan:
        before = live.get(plan.name, {})
        return VariantPlan(
            **{
                **asdict(plan),
                **{key: before[key] for key, kind in kept.items() if key in before and kind not in excluded},
            }
        )

    return [retain(plan) for plan in plans]


def _deployment(config: str, plans: list[VariantPlan], capture: Document | None) -> Document:
    return {
        "id": secrets.token_hex(6),
        "config": config,
        "plans": [asdict(plan) for plan in plans],
        "capture": capture,
        "since": time.time(),
    }


def _described(endpoint: Document) -> Params:
    described = {key: endpoint[key] for key in _DESCRIBED if key in endpoint}
    if endpoint["live"]:
        described["ProductionVariants"] = _variants(endpoint["live"])
    if endpoint["pending"]:
        described["PendingDeploymentSummary"] = {
            "EndpointConfigName": endpoint["pending"]["config"],
            "StartTime": endpoint["pending"]["since"],
            "ProductionVariants": _variants(endpoint["pending"]),
        }
    return described


def _variants(deployment: Document, *, times: bool = True) -> list[Document]:
    return [
        {
            "VariantName": plan["name"],
            "DeployedImages": [
                {
                    "SpecifiedImage": plan["image"],
                    "ResolvedImage": plan["image"],
                    "ResolutionTime": deployment["since"] if times else _iso(deployment["since"]),
                }
            ],
            "CurrentWeight": plan["weight"],
            "DesiredWeight": plan["weight"],
            "CurrentInstanceCount": plan["count"],
            "DesiredInstanceCount": plan["count"],
        }
        for plan in deployment["plans"]
    ]


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def _event_status(status: str) -> str:
    """Events spell a status in capitals: IN_SERVICE, ROLLING_BACK."""
    return "".join(f"_{c}" if c.isupper() and number else c for number, c in enumerate(status)).upper()


def _owner(endpoint: Document) -> Caller:
    account = endpoint["account"]
    return Caller(account, endpoint["region"], f"arn:aws:iam::{account}:root")
