"""What the function may be told; anything else, or anything from elsewhere, is refused with the reason.

Push      CodeCommit: the branch moved; S3: a new archive; CodePipeline: a connection's branch moved
Look      a rule, hourly: what was pushed is looked at, in case that its event was lost
Arrival   S3: an object landed below a model's raw data
Settled   Scheduler: a window of arrivals is over
Request   one model, by schedule, alarm or hand, or a deferred one whose time has come
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MANUAL_SOURCE = "pushline.manual"
SCHEDULE_SOURCE = "pushline.schedule"
SETTLED_SOURCE = "pushline.settled"
DEFERRED_SOURCE = "pushline.deferred"
LOOK_SOURCE = "pushline.look"
PUSH = ("aws.codecommit", "CodeCommit Repository State Change")
ARRIVAL = ("aws.s3", "Object Created")
ALARM = ("aws.cloudwatch", "CloudWatch Alarm State Change")
JOB = "CodePipeline.job"
"""CodePipeline invokes with a job, not with an event."""
TRIGGERS = ("push", "schedule", "data", "drift", "manual")
NONE = "none"
"""A pipeline variable is never empty."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAME = r"[a-z][a-z0-9_]{0,25}"
_KEY = re.compile(rf"raw/(?P<model>{_NAME})/(?P<rest>.+)")
_DATED = re.compile(r"dt=(\d{4}-\d{2}-\d{2})/")


Place = tuple[str, str]
"""Bucket and key."""


class Ignored(Exception):
    """The event starts nothing; the message says why, and the attributes what it would have been."""

    def __init__(self, reason: str, *, model: str | None = None, trigger: str | None = None) -> None:
        super().__init__(reason)
        self.model, self.trigger = model, trigger


@dataclass(frozen=True)
class Watched:
    """The one branch of the one repository (or the one archive), and the one bucket of data, that this function listens
    to, in one account."""

    source_arn: str
    branch: str
    data: str
    account: str

    @property
    def repository(self) -> str:
        return self.source_arn.split(":")[5]

    @property
    def has_commits(self) -> bool:
        """Whether the repository itself can be asked; where not, a zip of each push is compared."""
        return self.source_arn.split(":")[2] == "codecommit"

    @property
    def archive(self) -> Place | None:
        """Bucket and key of the sources, where no repository but an archive is pushed."""
        bucket, _, key = self.repository.partition("/")
        return (bucket, key) if self.source_arn.split(":")[2] == "s3" else None


@dataclass(frozen=True)
class Push:
    """The branch moved from `old_commit` ("" for a new branch, and for archives) to `commit`, at `time`."""

    commit: str
    old_commit: str
    time: dt.datetime
    archive: Place | None = None
    """The commit's files as a zip, where the repository itself can't be asked."""
    turn: int = 0
    """How many were routed before: the branch may move between the same two commits more than once."""


@dataclass(frozen=True)
class Look:
    """The source is to be looked at, whatever was or was not told of it: CodeCommit's events are best effort."""


@dataclass(frozen=True)
class Arrival:
    """An object of the data of `day` landed in the raw data of `model`."""

    model: str
    day: str


@dataclass(frozen=True)
class Settled:
    """Data arrived for `model` in the window that ended at `window`; the schedule was for `due`, `made` when the first
    of it arrived."""

    model: str
    window: dt.datetime
    due: dt.datetime
    made: dt.datetime


@dataclass(frozen=True)
class Request:
    """One model is to be retrained: why, on data up to `as_of`, asked when, and by which event (`id`).

    `commit` is what a push wants. `due` is when a request that was deferred may go on; None: it was never deferred.
    """

    model: str
    trigger: str
    reason: str
    asked: dt.datetime
    id: str
    as_of: str = NONE
    commit: str = ""
    due: dt.datetime | None = None


Told = Push | Look | Arrival | Settled | Request


def parse(event: Mapping[str, Any], watched: Watched, id: str, now: dt.datetime) -> Told:
    """Read the event, or raise Ignored; `id` identifies the invocation across its retries."""
    source, kind = event.get("source"), event.get("detail-type")
    try:
        if JOB in event:
            return _pulled(event[JOB], now)
        if source in _OURS:
            return _OURS[source](event, _detail(event), id, now)
        if (source, kind) in _AWS:
            return _AWS[source, kind](event, _detail(event), watched, now)
    except KeyError as missing:
        raise Ignored(f"the event of {source} lacks {missing}") from None
    raise Ignored(f"unknown event: source {source!r}, detail-type {kind!r}")


def _detail(event: Mapping[str, Any]) -> Mapping[str, Any]:
    detail = event.get("detail")
    if not isinstance(detail, Mapping):
        raise Ignored("the event has no detail")
    return detail


# -- events of AWS ----------------------------------------------------------------------------------------


def _push(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched, now: dt.datetime) -> Push:
    _refuse_foreign(event, watched, "push")
    named = {str(detail.get("repositoryName")), *(str(arn).split(":")[-1] for arn in event.get("resources") or [])}
    if named != {watched.repository} or watched.source_arn not in (event.get("resources") or []):
        raise Ignored(f"the event is not about repository {watched.repository}", trigger="push")
    if (detail.get("referenceType"), detail.get("referenceName")) != ("branch", watched.branch):
        found = f"{detail.get('referenceType')} {detail.get('referenceName')}"
        raise Ignored(f"{found} is not branch {watched.branch}", trigger="push")
    if detail.get("event") == "referenceDeleted":
        raise Ignored(f"branch {watched.branch} was deleted", trigger="push")
    commit, old_commit = str(detail.get("commitId") or ""), str(detail.get("oldCommitId") or "")
    if not _COMMIT.fullmatch(commit) or (old_commit and not _COMMIT.fullmatch(old_commit)):
        raise Ignored("the event names no commit", trigger="push")
    return Push(commit, old_commit, _time(event.get("time"), now))


def _arrival(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched,
             now: dt.datetime) -> Arrival | Push:  # fmt: skip
    bucket, item = detail.get("bucket"), detail.get("object")
    if watched.archive and isinstance(bucket, Mapping) and bucket.get("name") == watched.archive[0]:
        return _bundle(event, detail, watched, now)
    _refuse_foreign(event, watched, "data")
    if not isinstance(bucket, Mapping) or bucket.get("name") != watched.data or not isinstance(item, Mapping):
        raise Ignored(f"the event is not about bucket {watched.data}", trigger="data")
    key = _KEY.fullmatch(str(item.get("key")))
    if key is None:
        raise Ignored("the object is not a model's raw data", trigger="data")
    dated = _DATED.match(key["rest"])
    if dated is None or not _is_day(dated[1]):
        raise Ignored("an object outside of dt=YYYY-MM-DD/ is not data", model=key["model"], trigger="data")
    return Arrival(key["model"], dated[1])


def _bundle(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched, now: dt.datetime) -> Push:
    """A new version of the archive; it is what a commit is elsewhere."""
    _refuse_foreign(event, watched, "push")
    item = detail["object"]
    if (detail["bucket"]["name"], item.get("key")) != watched.archive:
        raise Ignored(f"the object is not {'/'.join(watched.archive or ())}", trigger="push")
    return Push(str(item["version-id"]), "", _time(event.get("time"), now), watched.archive)


def _pulled(job: Mapping[str, Any], now: dt.datetime) -> Push:
    """The doorbell's pipeline fetched a commit; only it may invoke with a job."""
    commit = str(job["data"]["actionConfiguration"]["configuration"]["UserParameters"])
    if not _COMMIT.fullmatch(commit):
        raise Ignored("the event names no commit", trigger="push")
    place = job["data"]["inputArtifacts"][0]["location"]["s3Location"]
    return Push(commit, "", now, (str(place["bucketName"]), str(place["objectKey"])))


def _alarm(event: Mapping[str, Any], detail: Mapping[str, Any], watched: Watched, now: dt.datetime) -> Request:
    _refuse_foreign(event, watched, "drift")
    state, name = detail.get("state"), str(detail.get("alarmName") or "")
    if not isinstance(state, Mapping) or state.get("value") != "ALARM":
        raise Ignored(f"alarm {name} is over", trigger="drift")
    return Request(name, "drift", why_alarmed(name, state.get("reason")),
                   _time(event.get("time"), now), str(event.get("id")))  # fmt: skip


def why_alarmed(name: str, reason: Any) -> str:
    """The reason for a retraining, from the alarm's own for its state."""
    why = " ".join(str(reason or "").split())
    return f"alarm {name}: {why}" if why else f"alarm {name}"


def _refuse_foreign(event: Mapping[str, Any], watched: Watched, trigger: str) -> None:
    if event.get("account") != watched.account:
        raise Ignored(f"account {event.get('account')} is not {watched.account}", trigger=trigger)


# -- requests of our own: whoever may invoke the function may send them --------------------------------------


def _manual(event: Mapping[str, Any], detail: Mapping[str, Any], id: str, now: dt.datetime) -> Request:
    model, reason, as_of = (str(detail.get(key) or "") for key in ("model", "reason", "as_of"))
    if not model:
        raise Ignored("a manual request must name the model", trigger="manual")
    if as_of and not _is_day(as_of):
        raise Ignored(f"as_of is {as_of!r}, not a date YYYY-MM-DD", model=model, trigger="manual")
    return Request(model, "manual", reason or "manual request", now, id, as_of or NONE)


def _scheduled(event: Mapping[str, Any], detail: Mapping[str, Any], id: str, now: dt.datetime) -> Request:
    at = str(event["time"])
    # The scheduled time identifies the firing, and whatever began since does for it: Scheduler delivers at least once.
    return Request(str(detail["model"]), "schedule", f"schedule of {at}", min(_time(at, now), now), at)


def _look(event: Mapping[str, Any], detail: Mapping[str, Any], id: str, now: dt.datetime) -> Look:
    return Look()


def _settled(event: Mapping[str, Any], detail: Mapping[str, Any], id: str, now: dt.datetime) -> Settled:
    return Settled(str(detail["model"]), *(_time(detail[name], now) for name in ("window", "due", "made")))


def _deferred(event: Mapping[str, Any], detail: Mapping[str, Any], id: str, now: dt.datetime) -> Request:
    if detail.get("trigger") not in TRIGGERS:
        raise Ignored(f"trigger is {detail.get('trigger')!r}; allowed: {', '.join(TRIGGERS)}")
    return Request(str(detail["model"]), str(detail["trigger"]), str(detail["reason"]), _time(detail["asked"], now),
                   str(detail["id"]), str(detail["as_of"]), str(detail["commit"]),
                   _time(detail["due"], now))  # fmt: skip


_AWS: Mapping[Any, Callable[..., Told]] = {PUSH: _push, ARRIVAL: _arrival, ALARM: _alarm}
_OURS: Mapping[Any, Callable[..., Told]] = {MANUAL_SOURCE: _manual, SCHEDULE_SOURCE: _scheduled, LOOK_SOURCE: _look,
                                            SETTLED_SOURCE: _settled, DEFERRED_SOURCE: _deferred}  # fmt: skip


def is_name(text: str) -> bool:
    """Whether a model can be called so."""
    return bool(re.fullmatch(_NAME, text))


def _is_day(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return bool(_DAY.fullmatch(text))


def _time(text: Any, now: dt.datetime) -> dt.datetime:
    """ISO 8601 with a zone; now where the event says nothing that can be read."""
    try:
        time = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return now
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)
