"""The demo's proof: requests to production while versions come and go, none failed, none answered by the unapproved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rehearsal import predictions
from rehearsal.landscape import ClientOf, Landscape
from rehearsal.traffic import Tally, Traffic

PER_SECOND, PEAK, WORKERS = 20, 120, 8
"""A trickle while jobs need the machine; the full load whenever a reconciler works on the endpoint."""


@dataclass
class ZeroDowntime:
    """What production was asked in all the scenes, and when each version was approved."""

    tally: Tally = field(default_factory=Tally)
    approved: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def traffic(self, client_of: ClientOf, landscape: Landscape, model: str) -> Iterator[Tally]:
        """Ask production as long as the block runs; what it was asked is in the tally when the block has ended."""
        endpoint, package = predictions.live_version(client_of, landscape, model, "production")
        payload = predictions.sample_payload(client_of, package["metadata"])
        machines = landscape.model(model).reconcilers.values()
        states = client_of("stepfunctions")

        def busy() -> bool:
            return any(states.list_executions(stateMachineArn=arn, statusFilter="RUNNING", maxResults=1)["executions"]
                       for arn in machines)  # fmt: skip

        self.note_approvals(client_of, landscape, model)
        load = Traffic(endpoint["url"], payload.body, payload.content_type, PER_SECOND, WORKERS, peak=PEAK, busy=busy)
        with load as tally:
            yield tally
        self.tally.add(tally)
        self.note_approvals(client_of, landscape, model)

    def note_approvals(self, client_of: ClientOf, landscape: Landscape, model: str) -> None:
        """Remember when versions were approved, since a rejection later overwrites that."""
        sagemaker, group = client_of("sagemaker"), landscape.model(model).group
        found = sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
        for row in found["ModelPackageSummaryList"]:
            described = sagemaker.describe_model_package(ModelPackageName=row["ModelPackageArn"])
            when = described.get("LastModifiedTime") or described["CreationTime"]
            self.approved.setdefault(row["ModelPackageArn"], when.timestamp())

    @property
    def unapproved(self) -> int:
        """Answers by a version that nobody had approved when it first answered."""
        return sum(count for package, count in self.tally.answers.items()
                   if self.tally.first[package] < self.approved.get(package, float("inf")))  # fmt: skip

    @property
    def told(self) -> str:
        tally = self.tally
        return (f"{tally.sent} requests to production through a rollout, a rejection and a rollback, {tally.peak:.0f} a"
                f" second while versions changed: {tally.failed} failed, {self.unapproved} answered by a version that"
                " was not approved")  # fmt: skip
