"""An endpoint's life after the call has returned: brought up, rolled out, rolled back, deleted, served again."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rehearsal.sagemaker.artifact import ArtifactError
from rehearsal.sagemaker.capture import Capture
from rehearsal.sagemaker.endpoint_record import event_detail, owner, plans
from rehearsal.sagemaker.fleet import Fleet, Unhealthy, end_orphans
from rehearsal.sagemaker.models import ENDPOINT
from rehearsal.sagemaker.rollout import RolledBack, roll_out
from rehearsal.sagemaker.router import Router
from rehearsal.sagemaker.serverless import variant_kind
from rehearsal.sagemaker.tags import Tags
from rehearsal.sagemaker.traffic_policy import TrafficPolicy, traffic_policy
from rehearsal.service import Cloud

log = logging.getLogger("rehearsal")
Document = dict[str, Any]
LOST = "lost when the rehearsal stopped"
DRAIN_SECONDS = 60.0
"""SageMaker's limit for one request: after it nothing is in flight on an old fleet."""


class EndpointLife:
    """The fleets of every endpoint; each change of one runs in a thread of its own, one after the other."""

    def __init__(self, cloud: Cloud, router: Router, tags: Tags) -> None:
        self._cloud, self._router, self._tags = cloud, router, tags
        self._fleets: dict[str, Fleet] = {}
        self._work: list[threading.Thread] = []
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Pick up what an earlier process left."""
        for instance in end_orphans(self._cloud.store):
            log.warning("ended the model server %s that an earlier rehearsal left behind", instance)
        for made, endpoint in self._cloud.store.list(ENDPOINT):
            self._resume(made, endpoint)

    def give_up(self) -> None:
        """Whatever is under way ends without a result; the next start decides."""
        self._stopping.set()

    def stop(self) -> None:
        """End every fleet."""
        self._stopping.set()
        for thread in self._work:
            thread.join(60)
        stopping = [threading.Thread(target=fleet.stop) for fleet in self._fleets.values()]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def create(self, made: str) -> None:
        """Bring up the pending deployment of a new endpoint."""
        self._later(self._create, made)

    def update(self, made: str) -> None:
        """Replace what is live by the pending deployment."""
        self._later(self._update, made)

    def resize(self, made: str) -> None:
        """Give the live variants the instances and weights that are desired."""
        self._later(self._resize, made)

    def delete(self, made: str) -> None:
        """End the endpoint and forget it."""
        self._later(self._delete, made)

    def announce(self, made: str) -> None:
        """Tell EventBridge how the endpoint stands."""
        endpoint = self._cloud.store.get(ENDPOINT, made)
        if endpoint is not None:
            detail = event_detail(endpoint, self._tags.tags_of(made))
            self._cloud.emit("aws.sagemaker", "SageMaker Endpoint State Change", detail, [made], owner(endpoint))

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
        endpoint = self._cloud.store.get(ENDPOINT, made) or {}
        config, policy = endpoint.get("NextDeploymentConfig"), _policy(endpoint)
        try:
            roll_out(self._cloud, self._router, endpoint, fleet, policy, began, self._stopping)
        except RolledBack as error:
            self._take_back(made, fleet, str(error))
            return
        if self._stopping.is_set():
            fleet.stop()  # the next start serves the old fleet: the rollout had not passed its last bake
            return
        self._go_live(made, fleet)
        self._stopping.wait(policy.termination_wait_seconds / self._cloud.time_scale)
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

    def _resize(self, made: str) -> None:
        endpoint, fleet = self._cloud.store.get(ENDPOINT, made) or {}, self._fleets[made]
        try:
            fleet.resize(endpoint["desired"], self._stopping)
        except Unhealthy as error:
            self._settle(made, EndpointStatus="InService", FailureReason=str(error), desired=None)
            return
        live = {**endpoint["live"], "plans": [asdict(variant.plan) for variant in fleet.variants]}
        self._settle(made, EndpointStatus="InService", live=live, desired=None)

    def _take_back(self, made: str, fleet: Fleet, reason: str) -> None:
        """An alarm went off: traffic is on the old fleet already, the new one ends."""
        log.warning("endpoint %s is rolled back: %s", made, reason)
        self._settle(made, EndpointStatus="RollingBack", FailureReason=reason)
        fleet.drain(DRAIN_SECONDS)
        fleet.stop()
        shutil.rmtree(fleet.folder, ignore_errors=True)
        self._roll_back(made, reason, announced=True)

    def _delete(self, made: str) -> None:
        self._router.remove(made)
        fleet = self._fleets.pop(made, None)
        if fleet is not None:
            fleet.drain(DRAIN_SECONDS)
            fleet.stop()
        self._forget(made)

    def _forget(self, made: str) -> None:
        shutil.rmtree(self._endpoint_folder(made), ignore_errors=True)
        with self._cloud.store.transaction():
            self._cloud.store.delete(ENDPOINT, made)
            self._tags.untag_all(made)

    def _roll_back(self, made: str, reason: str, *, announced: bool = False) -> None:
        """The silent rollback: InService again on the old configuration, with the reason beside it."""
        if not announced:
            self._settle(made, EndpointStatus="RollingBack")
        back = "InService" if made in self._fleets else "UpdateRollbackFailed"
        self._settle(made, EndpointStatus=back, FailureReason=reason, pending=None, NextDeploymentConfig=None)

    def _bring_up(self, made: str, which: str = "pending") -> Fleet:
        """The fleet of a deployment, healthy; whatever was started for one that fails is ended."""
        endpoint = self._cloud.store.get(ENDPOINT, made) or {}
        deployment = endpoint[which]
        variants, folder = plans(deployment), self._endpoint_folder(made)
        fleet = Fleet(
            variants,
            folder / deployment["id"],
            self._cloud,
            endpoint["EndpointName"],
            owner(endpoint),
            deployment["config"],
            variant_kind,
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
        fleet.asynchronous = bool(deployment.get("asynchronous"))
        if capture := deployment.get("capture"):
            fleet.capture = Capture(capture, self._cloud, endpoint["EndpointName"], variants[0].role, owner(endpoint))
        return fleet

    def _go_live(self, made: str, fleet: Fleet) -> Document:
        """Switch the traffic. The record is written first: a restart must serve what clients were told."""

        def change(document: Document) -> None:
            document["live"] = document["pending"]
            document["EndpointConfigName"] = document["pending"]["config"]

        document = self._cloud.store.update(ENDPOINT, made, change)
        self._router.switch(made, fleet)
        self._fleets[made] = fleet
        return document

    def _resume(self, made: str, endpoint: Document) -> None:
        status = endpoint["EndpointStatus"]
        if status == "Deleting":
            self._forget(made)
        elif status == "Creating" and endpoint["live"] is None:
            self._settle(made, EndpointStatus="Failed", FailureReason=LOST, pending=None)
        elif endpoint["live"] is not None:
            if status != "InService":
                changes: Document = dict.fromkeys(("pending", "NextDeploymentConfig", "desired"))
                if endpoint["live"] != endpoint["pending"]:
                    changes["FailureReason"] = LOST
                self._settle(made, EndpointStatus="InService", **changes)
            self._router.expect(made)
            self._later(self._serve_again, made)

    def _serve_again(self, made: str) -> None:
        try:
            fleet = self._bring_up(made, "live")
        except (ArtifactError, Unhealthy) as error:
            if not self._stopping.is_set():
                self._settle(made, EndpointStatus="Failed", FailureReason=str(error), pending=None)
            self._router.remove(made)
            return
        self._router.switch(made, fleet)
        self._fleets[made] = fleet

    def _later(self, work: Callable[[str], None], made: str) -> None:
        def in_turn() -> None:
            with self._turns[made]:
                work(made)

        self._work = [thread for thread in self._work if thread.is_alive()]
        thread = threading.Thread(target=in_turn, name=f"{work.__name__.strip('_')} {made}", daemon=True)
        self._work.append(thread)
        thread.start()

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

        self._cloud.store.update(ENDPOINT, made, change)
        if announce:
            self.announce(made)

    def _endpoint_folder(self, made: str) -> Path:
        account, name = made.split(":")[4], made.rpartition("/")[2]
        return self._cloud.state_dir / "sagemaker" / "endpoints" / account / made.split(":")[3] / name


def _policy(endpoint: Document) -> TrafficPolicy:
    return traffic_policy(endpoint.get("NextDeploymentConfig"), plans(endpoint["pending"]), plans(endpoint["live"]))
