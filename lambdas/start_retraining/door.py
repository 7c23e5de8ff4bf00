"""What one invocation knows and does: asks AWS what a decision needs, and acts on it."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lambdas.start_retraining import advice, executions, later
from lambdas.start_retraining.alarms import still_on
from lambdas.start_retraining.archives import Archives
from lambdas.start_retraining.arrivals import gather, later_windows, window_name
from lambdas.start_retraining.commits import Commits
from lambdas.start_retraining.decide import (
    BY_PEOPLE,
    Defer,
    Ignore,
    Limits,
    Start,
    busy,
    decide,
    last_day,
    look_again,
)
from lambdas.start_retraining.events import (
    Arrival,
    Ignored,
    Look,
    Place,
    Push,
    Request,
    Settled,
    Told,
    Watched,
    is_name,
)
from lambdas.start_retraining.later import Event, Schedules
from lambdas.start_retraining.made import Failed, Made
from lambdas.start_retraining.route import Changed, Gone, Model, alarmed, concerned, gone
from lambdas.start_retraining.routed import Routed

_DAY = re.compile(r"/dt=(\d{4}-\d{2}-\d{2})/$")
_NO_ROOM = ("ConcurrentPipelineExecutionsLimitExceededException", "ConflictException", "ThrottlingException")
"""CodePipeline's answers that a later start does not get, after the calls' own retries."""
LONG = dt.timedelta(hours=1)
"""Who heard already that a request waits hears again only if it is for longer than that."""
NEW_FOLDERS = 20
"""How many unknown folders of one push are looked into, and told one by one."""
AT_ONCE = 8
"""So many models are asked and started side by side, within the connections that a client keeps."""
SPARE_SECONDS = 120
"""With less time left no other model is begun: its calls may all be throttled and tried again."""


@dataclass(frozen=True)
class Setting:
    """Where the function stands, from its environment."""

    watched: Watched
    limits: Limits
    models_path: str
    topic: str
    schedule_group: str
    schedule_role: str
    function: str
    routed: Place
    """Where it is kept what was routed last."""


class Door:
    """The one door to retraining, for one event."""

    def __init__(self, setting: Setting, client: Callable[[str], Any], now: dt.datetime, pushed: set[str],
                 seconds_left: Callable[[], float]) -> None:  # fmt: skip
        self.setting, self.now = setting, now
        self._client, self._limits, self._pushed, self._left = client, setting.limits, pushed, seconds_left

    def answer(self, told: Told) -> Iterator[Made]:
        match told:
            case Push():
                yield from self._push(told)
            case Look():
                if push := self._sources.unrouted(self.now):
                    yield from self._push(push)
            case Arrival():
                yield self._arrival(told)
            case Settled():
                yield self._settled(told)
            case Request():
                made = self._request(told)
                yield made
                if made.then:
                    yield made.then

    # -- triggers ---------------------------------------------------------------------------------------

    def _push(self, push: Push) -> Iterator[Made]:
        sources = self._sources
        push = sources.placed(push, self.now)
        changed = self._while_models_are_read(lambda: sources.changed(push))
        away = gone(self._models, changed, self._routed.gone)
        concerns = concerned(push, self._models, changed, away, self._routed.owed)
        made = [*self._each(concerns), *self._new_folders(push, changed)]
        sources.routed(push, [one.decision.model for one in made if isinstance(one.decision, Failed)], away)
        if not made:
            raise Ignored(f"push {push.commit[:8]} touches no model", trigger="push")
        yield from made

    def _new_folders(self, push: Push, changed: Changed) -> Iterator[Made]:
        """What is told of folders that no deployed model has, where they are models."""
        unknown = sorted(changed.folders - {model.name for model in self._models})
        for name in unknown[:NEW_FOLDERS]:
            if self._sources.is_model(push, name):
                yield self._tell_new(name, push) if is_name(name) else self._tell_unfit(name)
        if more := unknown[NEW_FOLDERS:]:
            yield self._tell_more(more)

    def _arrival(self, arrival: Arrival) -> Made:
        self._refuse_before_the_first_push(arrival.model, "data")
        decision = gather(arrival, self._limits, self.now)
        if isinstance(decision, Ignore):
            return Made(decision)
        return self._put(decision, later.settled(arrival.model, decision.until, self._limits.settling, self.now))

    def _settled(self, settled: Settled) -> Made:
        model = self._model(settled.model, "data")
        for end in later_windows(settled, self._limits, self.now):
            if self._schedules.exists(window_name(model.name, end)):
                why = f"data went on arriving: the window until {end:%H:%M} UTC retrains on it"
                return Made(Ignore(model.name, "data", why))
        # Where schedules run ahead of this clock, as in a rehearsal, the window is not over yet: all that this schedule
        # stands for has arrived by now, and what comes later makes another one.
        asked, id = min(settled.window, self.now), f"{settled.window.isoformat()} {settled.made.isoformat()}"
        return self._request(Request(model.name, "data", "new data", asked, id, due=settled.due))

    def _request(self, request: Request) -> Made:
        if request.trigger == "drift" and request.due is None:
            request = self._about_its_model(request)
        self._model(request.model, request.trigger)
        self._refuse_before_the_first_push(request.model, request.trigger)
        if request.model in self._routed.gone:
            raise Ignored(advice.about_gone(request.model), model=request.model, trigger=request.trigger)
        if request.trigger == "drift" and request.due is not None:
            request = self._still_drifting(request)
        return self._decide(self._on_newest_data(request) if request.trigger == "data" else request)

    def _still_drifting(self, request: Request) -> Request:
        """An alarm may be over while its request waited, and an alarm that stays on is told only by itself."""
        why = still_on(self._client("cloudwatch"), self._model(request.model, request.trigger))
        if why is None:
            raise Ignored("no drift alarm of the model is on any more", model=request.model, trigger="drift")
        return replace(request, reason=why)

    def _about_its_model(self, request: Request) -> Request:
        model = alarmed(request.model, self._models)
        if model is None:
            raise Ignored(f"alarm {request.model} is about no deployed model", trigger="drift")
        return replace(request, model=model.name)

    def _on_newest_data(self, request: Request) -> Request:
        last = last_day(max(self.now, request.due or self.now))
        day = _newest_day(self._client("s3"), self.setting.watched.data, request.model, last)
        if day is None:
            raise Ignored("there is no day of data", model=request.model, trigger="data")
        return replace(request, as_of=day, reason=f"new data up to {day}")

    # -- what is known ----------------------------------------------------------------------------------

    @cached_property
    def _models(self) -> list[Model]:
        pages = self._client("ssm").get_paginator("get_parameters_by_path").paginate(Path=self.setting.models_path)
        return [_model(parameter) for page in pages for parameter in page["Parameters"]]

    def _while_models_are_read(self, work: Callable[[], Changed]) -> Changed:
        """Both take a page after the other, of different services."""
        self._client("ssm")  # made here, since only using one is safe in threads
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(lambda: self._models)
            changed = work()
            reading.result()
        return changed

    def _model(self, name: str, trigger: str) -> Model:
        model = next((model for model in self._models if model.name == name), None)
        if model is None:
            known = ", ".join(sorted(model.name for model in self._models)) or "none"
            raise Ignored(f"there is no model {name!r}; deployed are: {known}", model=name, trigger=trigger)
        return model

    @cached_property
    def _sources(self) -> Commits | Archives:
        watched = self.setting.watched
        if watched.has_commits:
            return Commits(self._client("codecommit"), watched, self._routed)
        return Archives(self._client("s3"), watched, self._routed)

    @cached_property
    def _routed(self) -> Routed:
        return Routed(self._client("s3"), self.setting.routed)

    @cached_property
    def _schedules(self) -> Schedules:
        setting = self.setting
        return Schedules(self._client("scheduler"), setting.schedule_group, setting.schedule_role, setting.function)

    def _refuse_before_the_first_push(self, model: str, trigger: str) -> None:
        if self.setting.watched.source_arn in self._pushed:
            return
        if not self._sources.any():
            raise Ignored("nothing was ever pushed; the first push trains on what is there", model=model,
                          trigger=trigger)  # fmt: skip
        self._pushed.add(self.setting.watched.source_arn)

    # -- acting -----------------------------------------------------------------------------------------

    def _each(self, concerns: Sequence[Request | Gone]) -> list[Made]:
        """Side by side; what was made of each, in their order."""
        for service in ("codepipeline", "scheduler", "sns"):
            self._client(service)  # made here, since only using one is safe in threads
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._one_of_many, concerns))

    def _one_of_many(self, request: Request | Gone) -> Made:
        if isinstance(request, Gone):
            return Made(Ignore(request.model, "push", advice.about_gone(request.model)))
        try:
            return self._decide(request) if self._left() > SPARE_SECONDS else self._run_out(request)
        except (ClientError, BotoCoreError) as error:
            return Made(Failed(request.model, request.trigger, str(error)))

    def _decide(self, request: Request) -> Made:
        model = self._model(request.model, request.trigger)
        runs = executions.recent(self._client("codepipeline"), model, request, self._limits, self.now)
        decision = decide(request, model, runs, self._limits, self.now)
        match decision:
            case Start(trigger="drift"):
                # Before it starts, so that none starts without: what is repeated joins the schedule.
                then = self._defer(*look_again(request, model, self.now))
                return replace(self._start(decision, request, model), then=then)
            case Start():
                return self._start(decision, request, model)
            case Defer():
                return self._come_again(decision, request)
        return Made(decision)

    def _run_out(self, request: Request) -> Made:
        """It comes again in an invocation of its own, soon, so that nobody has to hear of it."""
        defer = busy(request, self._model(request.model, request.trigger), "this invocation is nearly over", self.now)
        return self._defer(defer, request)

    def _start(self, start: Start, request: Request, model: Model) -> Made:
        try:
            answer = self._client("codepipeline").start_pipeline_execution(
                name=start.pipeline, variables=start.variables, clientRequestToken=start.token
            )
        except ClientError as error:
            if (code := error.response["Error"]["Code"]) not in _NO_ROOM:
                raise
            why = f"CodePipeline has no room for it now ({code})"
            return self._come_again(busy(request, model, why, self.now), request)
        return Made(start, execution=answer["pipelineExecutionId"])

    def _come_again(self, defer: Defer, request: Request) -> Made:
        made = self._defer(defer, request)
        news = request.due is None or defer.until - max(self.now, request.due) > LONG
        if made.decision is defer and request.trigger in BY_PEOPLE and news:
            self._tell(f"{defer.model}: a retraining waits", f"{defer.reason}.\nIt starts then by itself.")
        return made

    def _defer(self, defer: Defer, request: Request) -> Made:
        return self._put(defer, later.again(request, defer.until))

    def _put(self, defer: Defer, event: Event) -> Made:
        if self._schedules.put(defer, event):
            return Made(defer)
        return Made(replace(defer, reason=f"{defer.reason} (joins what waits for that already)"))

    def _tell_new(self, name: str, push: Push) -> Made:
        command = advice.first_retraining(name, self.setting.function)
        self._tell(f"{name}: waits for a cdk deploy",
                   f"{advice.about_new(name)}; on AWS:\n{command}\nCommit: {push.commit}\n"
                   "Nothing else is affected.")  # fmt: skip
        return Made(Ignore(name, "push", advice.about_new(name)))

    def _tell_unfit(self, name: str) -> Made:
        self._tell("A new folder of a model has a name that no model can have", f"{advice.about_unfit(name)}.")
        return Made(Ignore(None, "push", advice.about_unfit(name)))

    def _tell_more(self, names: Sequence[str]) -> Made:
        self._tell(f"{len(names)} more new folders of models", f"{advice.about_more(names)}.")
        return Made(Ignore(None, "push", advice.about_more(names)))

    def _tell(self, subject: str, message: str) -> None:
        self._client("sns").publish(TopicArn=self.setting.topic, Subject=subject, Message=message)


def _model(parameter: Mapping[str, str]) -> Model:
    value = json.loads(parameter["Value"])
    return Model(parameter["Name"].rsplit("/", 1)[-1], **{**value, "watch": tuple(value["watch"])})


def _newest_day(s3: Any, bucket: str, model: str, last: str) -> str | None:
    """The newest day that the model has data of; what claims to be of the future is left out."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"raw/{model}/dt=", Delimiter="/")
    found = (_DAY.search(prefix["Prefix"]) for page in pages for prefix in page.get("CommonPrefixes", ()))
    return max((day[1] for day in found if day and day[1] <= last), default=None)
