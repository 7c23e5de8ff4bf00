"""Pushes of archives: a bundle in S3, or what a connection's pipeline fetched, compared with what was routed before."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from lambdas.start_retraining import handler
from tests.lambdas.archive_source import BUCKET, KEY, archive, from_archives, put
from tests.lambdas.retraining_world import ACCOUNT, NEW, SECOND, Params, World, look_event

CODE = {"model_code/flight_delay/model.yaml": "a", "model_code/flight_delay/train.py": "b",
        "model_code/bike_demand/model.yaml": "c", "model_code/shared/columns.py": "d", "README.md": "e"}  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Sources in S3; two models that share code."""
    made = World(monkeypatch)
    from_archives(monkeypatch)
    made.deploy("flight_delay", "model_code/shared")
    made.deploy("bike_demand", "model_code/shared")
    return made


def pushed(world: World, version: str, **changes: str) -> Params:
    """A new version of the archive is there; the event that tells so. Keys of `changes` are CODE's file names."""
    files = {path: changes.get(path.rsplit("/", 1)[-1].split(".")[0], text) for path, text in CODE.items()}
    return put(world, version, {path: text for path, text in files.items() if text})


def decisions(made: list[Params]) -> dict[str, str]:
    return {str(row["model"]): str(row["decision"]) for row in made}


def test_the_first_archive_starts_every_model_it_has(world: World) -> None:
    assert decisions(world.invoke(pushed(world, "v1"))) == {"flight_delay": "start", "bike_demand": "start"}


def test_a_change_starts_the_models_that_watch_it(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    (made,) = world.invoke(pushed(world, "v2", train="changed"))
    assert (made["model"], made["decision"]) == ("flight_delay", "start")
    assert made["reason"] == "push v2 changes model_code/flight_delay/train.py"
    made = world.invoke(pushed(world, "v3", train="changed", columns="changed"))
    assert decisions(made) == {"flight_delay": "start", "bike_demand": "start"}


def test_nothing_that_a_model_watches(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    (made,) = world.invoke(pushed(world, "v2", README="changed"))
    assert (made["decision"], made["reason"]) == ("ignore", "push v2 touches no model")


def test_going_back_to_an_earlier_version_is_a_push(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    world.invoke(pushed(world, "v2", train="changed"))
    world.now += 60 * SECOND
    world.invoke(pushed(world, "v1"))
    assert len(world.started()) == 3


def test_the_same_event_twice_and_late_starts_nothing(world: World) -> None:
    first = pushed(world, "v1")
    world.invoke(first)
    second = pushed(world, "v2", train="changed")
    for event in (second, second, first):
        world.invoke(event)
    assert len(world.started()) == 2
    assert len(world.started("bike_demand")) == 1


def test_an_event_told_again_after_the_next_version_does_not_swallow_that(world: World) -> None:
    first = pushed(world, "v1")
    world.now += 10 * SECOND
    world.invoke(first)
    second = pushed(world, "v2", train="changed") | {"time": f"{world.now:%Y-%m-%dT%H:%M:%SZ}"}
    (made,) = world.invoke(first)
    assert (made["decision"], made["reason"]) == ("start", "push v2 changes model_code/flight_delay/train.py")
    assert decisions(world.invoke(second)) == {"None": "ignore"}
    assert len(world.started()) == 2


def test_a_lost_event_is_made_up_for_by_the_next(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    pushed(world, "v2", train="changed")
    made = world.invoke(pushed(world, "v3", train="changed", README="changed"))
    assert decisions(made) == {"flight_delay": "start"}


def test_a_lost_last_event_is_found_by_looking_and_found_once(world: World) -> None:
    assert world.invoke(look_event()) == []
    world.invoke(pushed(world, "v1"))
    event = pushed(world, "v2", train="changed")
    assert decisions(world.invoke(look_event())) == {"flight_delay": "start"}
    assert world.invoke(look_event()) == []
    assert decisions(world.invoke(event)) == {"None": "ignore"}


def test_a_connection_can_not_be_asked_what_was_pushed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.invoke(pushed(world, "v1"))
    monkeypatch.setenv("SOURCE_ARN", "arn:aws:codeconnections:us-east-1:000000000000:connection/c")
    assert world.invoke(look_event()) == []


def test_what_could_not_be_started_is_compared_again(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    world.refuse["StartPipelineExecution"] = ["PipelineNotFoundException"]
    event = pushed(world, "v2", columns="changed")
    with pytest.raises(handler.Unfinished):
        world.invoke(event)
    world.invoke(event, "request-2")
    assert [len(world.started(name)) for name in ("flight_delay", "bike_demand")] == [2, 2]


def test_a_model_that_is_gone_and_one_that_is_new(world: World) -> None:
    world.invoke(pushed(world, "v1"))
    files = {path: text for path, text in CODE.items() if "bike" not in path} | {"model_code/taxi/model.yaml": "t"}
    made = world.invoke(put(world, "v2", files))
    assert decisions(made) == {"bike_demand": "ignore", "taxi": "ignore"}
    assert [message["subject"] for message in world.messages] == ["taxi: waits for a cdk deploy"]


@pytest.mark.parametrize(
    ("event", "why"),
    [({"account": "999999999999"}, "account 999999999999 is not"),
     ({"detail": {"bucket": {"name": BUCKET}, "object": {"key": "other.zip", "version-id": "v"}}}, "is not sources/"),
     ({"detail": {"bucket": {"name": "foreign"}, "object": {"key": KEY, "version-id": "v"}}}, "is not about bucket"),
     ({"detail": {"bucket": {"name": BUCKET}, "object": {"key": KEY}}}, "lacks 'version-id'")],
)  # fmt: skip
def test_a_forged_event_is_ignored(world: World, event: Params, why: str) -> None:
    (made,) = world.invoke({**pushed(world, "v1"), **event})
    assert made["decision"] == "ignore"
    assert why in made["reason"]


def test_what_is_no_zip_is_ignored_and_the_next_is_routed(world: World) -> None:
    event = pushed(world, "v1")
    world.contents[BUCKET, KEY] = b"no zip"
    (made,) = world.invoke(event)
    assert made["reason"] == "what was pushed is no zip archive"
    assert len(world.invoke(pushed(world, "v2"))) == 2


def test_the_doorbells_job_is_routed_and_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_ARN", "arn:aws:codeconnections:us-east-1:000000000000:connection/c")
    world.contents["store", "pushline.push/Source/x"] = archive(CODE)
    world.head = NEW
    place = {"bucketName": "store", "objectKey": "pushline.push/Source/x"}
    job = {"id": "job-1", "accountId": ACCOUNT, "data": {
        "actionConfiguration": {"configuration": {"FunctionName": "f", "UserParameters": NEW}},
        "inputArtifacts": [{"name": "Source", "revision": NEW, "location": {"type": "S3", "s3Location": place}}],
        "outputArtifacts": []}}  # fmt: skip
    assert decisions(world.invoke({"CodePipeline.job": job})) == {"flight_delay": "start", "bike_demand": "start"}
    assert world.reported == ["job-1"]


def test_a_job_whose_archive_can_not_be_read_is_not_reported(world: World) -> None:
    job = {"id": "job-1", "data": {
        "actionConfiguration": {"configuration": {"UserParameters": NEW}},
        "inputArtifacts": [{"location": {"s3Location": {"bucketName": "store", "objectKey": "gone"}}}]}}  # fmt: skip
    with pytest.raises(ClientError):
        world.invoke({"CodePipeline.job": job})
    assert world.reported == []
