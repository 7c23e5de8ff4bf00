"""model.yaml: defaults, names, and messages that say file, line, key, value found and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import Guardrails
from contract import Model, deployed, load_models, sample_request
from contract.model import model_name
from contract.schedule import schedule_error

Change = Callable[..., None]
Problems = Callable[[], str]
SMALLEST = {"name": "buy", "framework": {"name": "xgboost", "version": "3.2-0"}, "evaluation": {"metric": "auc"}}


def test_framework_and_metric_are_enough() -> None:
    model = Model.model_validate(SMALLEST)
    assert (model.features.script, model.training.script, model.serving.script) == (
        "features.py", "train.py", "inference.py")  # fmt: skip
    assert (model.slug, model.title, model.paths) == ("buy", "Buy", ("model_code/buy",))
    assert model.framework.image.tag == "3.2-0"


def test_a_loss_is_minimized_unless_said_otherwise() -> None:
    assert Model.model_validate(SMALLEST | {"evaluation": {"metric": "rmse"}}).evaluation.goal == "minimize"
    assert Model.model_validate(SMALLEST).evaluation.goal == "maximize"


def test_models_are_loaded_in_the_order_of_their_names(repository: Path, guardrails: Guardrails) -> None:
    from contract.new import write_model

    write_model(repository, "aardvark")
    assert [model.name for model in load_models(repository, guardrails)] == ["aardvark", "buy"]


def test_the_sample_request_comes_with_its_content_type(repository: Path, guardrails: Guardrails) -> None:
    (model,) = load_models(repository, guardrails)
    request = sample_request(repository, model)
    assert request is not None
    assert request.content_type == "application/json"


def test_the_shipped_models_are_valid(guardrails: Guardrails) -> None:
    assert load_models(Path(__file__).resolve().parents[2], guardrails)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"nam": "buy"}, "nam: found an unknown key; allowed: approval"),
    ({"training__instance_typ": "x"}, "training.instance_typ: found an unknown key; allowed: hyperparameters"),
    ({"training__instance_typ": "x"}, "did you mean 'instance_type'?"),
    ({"evaluation__metric": ...}, "evaluation.metric: is required, and missing"),
    ({"framework": ...}, "framework: is required, and missing"),
    ({"name": "Buy"}, "name: found 'Buy'; allowed: a lower-case Python identifier"),
    ({"name": "other"}, "name: found 'other'; allowed: 'buy', the folder's name"),
    ({"framework__version": "0.1"}, 'framework: found xgboost 0.1; allowed: {name: xgboost, version: "3.2-0"}'),
    ({"framework__version": 3.2}, "framework.version: found 3.2; allowed: a valid string"),
    ({"training__instance_type": "ml.p5.48xlarge"}, "found 'ml.p5.48xlarge'; allowed: ml.m5.large"),
    ({"training__instance_type": "ml.p5.48xlarge"}, "(config/platform.yaml, guardrails.training)"),
    ({"training__instance_count": 99}, "training.instance_count: found 99; allowed: at most 4"),
    ({"training__instance_count": 0}, "training.instance_count: found 0; allowed: greater than or equal to 1"),
    ({"training__max_runtime_minutes": 9999}, "training.max_runtime_minutes: found 9999; allowed: at most 360"),
    ({"training__volume_gb": 5000}, "training.volume_gb: found 5000; allowed: at most 200"),
    ({"training__spot": "yes please"}, "training.spot: found 'yes please'; allowed: a valid boolean"),
    ({"training__script": "../train.py"}, "training.script: found '../train.py'; allowed: a Python file inside"),
    ({"training__script": "/etc/passwd"}, "training.script: found '/etc/passwd'; allowed: a Python file inside"),
    ({"training__script": "fit.py"}, "training.script: found 'fit.py', which is missing"),
    ({"evaluation__script": "judge.py"}, "evaluation.script: found 'judge.py', which is missing"),
    ({"training__hyperparameters": {"sagemaker_program": "x"}}, "names that do not start with sagemaker_"),
    ({"training__hyperparameters": {"eta": float("nan")}}, "found nan; allowed: text, a finite number"),
    ({"training__hyperparameters": {"eta": [1]}}, "found [1]; allowed: text, a finite number"),
    ({"training__hyperparameters": {"eta": "a\nb"}}, "allowed: one line of at most 2500"),
    ({"training__hyperparameters": {"eta": "--help"}}, "has no leading '-'"),
    ({"training__hyperparameters": {f"a{n}": 1 for n in range(91)}}, "found 91 entries; allowed: at most 90"),
    ({"features__arguments": {"as_of": "2013-01-01"}}, "found 'as_of', which Glue or the platform sets"),
    ({"features__arguments": {"conf": "spark.x=y"}}, "found 'conf', which Glue or the platform sets"),
    ({"features__arguments": {"a-b": 1}}, "found the name 'a-b'; allowed: [a-z][a-z0-9_]*"),
    ({"features__worker_type": "Z.1X"}, "features.worker_type: found 'Z.1X'; allowed: 'G.1X', 'G.2X'"),
    ({"features__worker_type": "G.8X"}, "features.worker_type: found 'G.8X'; allowed: G.1X, G.2X (config/"),
    ({"features__workers": 50}, "features.workers: found 50; allowed: at most 10"),
    ({"features__timeout_minutes": 2000}, "features.timeout_minutes: found 2000; allowed: at most 240"),
    ({"evaluation__metric": "gini"}, "evaluation.metric: found 'gini'; allowed without evaluate.py: accuracy, auc"),
    ({"evaluation__guards": [{"metric": "auc"}]}, "evaluation.guards[0]: found a guard without a bound"),
    ({"evaluation__guards": [{"metric": "auc", "at_most": 0.1, "at_least": 0.2}]}, "found at_least 0.2 above"),
    ({"evaluation__minimum_improvement": -1.0}, "evaluation.minimum_improvement: found -1.0; allowed: greater"),
    ({"serving__instance_type": "ml.p5.48xlarge"}, "(config/platform.yaml, guardrails.serving)"),
    ({"serving__instances": {"minimum": 3, "maximum": 2}}, "found minimum 3 above maximum 2"),
    ({"serving__instances": {"minimum": 3, "maximum": 20}}, "serving.instances.maximum: found 20; allowed: at most 8"),
    ({"serving__rollout": {"type": "canary", "percent": 60}}, "serving.rollout.percent: found 60; allowed: less"),
    ({"serving__rollout": {"type": "linear", "percent": 5}}, "found linear steps of 5 percent; allowed: 10 to 50"),
    ({"serving__rollout": {"type": "all_at_once", "percent": 5}}, "found percent with all_at_once"),
    (
        {"serving__rollout": {"type": "linear", "percent": 10, "bake_minutes": 60}},
        "found 10 steps of 60 minutes; allowed: at most 360 minutes in all",
    ),
    ({"serving__alarms": {"errors_5xx_percent": 0}}, "serving.alarms.errors_5xx_percent: found 0; allowed: greater"),
    (
        {"serving": {"endpoint": "serverless", "rollout": {"type": "canary"}}},
        "found rollout with endpoint: serverless, which knows no such thing",
    ),
    ({"serving": {"endpoint": "async", "serverless": {"memory_mb": 1024}}}, "found serverless with endpoint: async"),
    (
        {"serving": {"endpoint": "serverless", "instances": {"minimum": 1}, "rollout": {"type": "canary"}}},
        "found instances, rollout with endpoint: serverless, which knows no such thing; allowed: leave them out",
    ),
    (
        {"serving": {"endpoint": "none", "alarms": {"p99_latency_ms": 5}, "instance_type": "ml.m6i.large"}},
        "found alarms, instance_type with endpoint: none",
    ),
    ({"serving": {"endpoint": "lambda"}}, "serving.endpoint: found 'lambda'; allowed: 'instance', 'serverless'"),
    ({"serving": {"instances": {"minimum": 1}, "rollout": {"type": "canary"}}}, "found a canary rollout with"),
    ({"retraining__schedule": "daily"}, "retraining.schedule: found 'daily'; allowed: rate(1 day) or cron("),
    ({"approval": "maybe"}, "approval: found 'maybe'; allowed: 'automatic' or 'manual'"),
    ({"watch": ["model_code/../config"]}, "watch[0]: found 'model_code/../config'; allowed: a folder below"),
    ({"watch": ["model_code/nowhere"]}, "watch[0]: found 'model_code/nowhere', which is not a folder"),
    ({"watch": ["model_code/buy"]}, "watch[0]: found 'model_code/buy' again"),
    ({"description": "x" * 300}, "description: found "),
    (
        {"monitoring": {"native": ["data_quality"]}, "serving": {"endpoint": "none"}},
        "monitoring: found native with serving.endpoint: none; allowed: with endpoint: instance",
    ),
    (
        {
            "monitoring": {"native": ["model_quality"]},
            "serving": {"capture_percent": 0, "endpoint": "async"},
            "evaluation__metric": "gini",
            "evaluation__script": "features.py",
        },
        "allowed: 1 to 100, since captured requests are what is monitored; found model_quality with the metric gini",
    ),
    ({"monitoring": {"native": ["bias"]}}, "monitoring.native[0]: found 'bias'; allowed: 'data_quality' or"),
    ({"monitoring": {"native": ["data_quality"] * 2}}, "allowed: each of data_quality and model_quality once"),
    ({"monitoring": {"quality_loss": 0}}, "monitoring.quality_loss: found 0; allowed: greater than 0"),
    ({"monitoring": {"problem_type": "regression"}}, "found problem_type without model_quality"),
]


@pytest.mark.parametrize(("values", "said"), BAD)
def test_what_is_wrong_is_said(change: Change, problems: Problems, values: dict[str, Any], said: str) -> None:
    change(**values)
    text = problems()
    assert said in text
    assert text.startswith("model_code/buy/model.yaml:")


def test_all_problems_come_at_once_each_with_its_line(change: Change, problems: Problems, repository: Path) -> None:
    change(training__instance_type="ml.p5.48xlarge", features__workers=50, serving__instance_type="ml.x9.huge")
    (repository / "model_code" / "buy" / "train.py").unlink()
    lines = problems().splitlines()
    assert len(lines) == 4
    source = (repository / "model_code" / "buy" / "model.yaml").read_text().splitlines()
    for line in lines:
        _, number, key, *_ = line.split(":")
        if "script" not in key:
            assert key.split(".")[-1].strip() in source[int(number) - 1]


def test_what_the_schema_refuses_hides_nothing_else(change: Change, problems: Problems, repository: Path) -> None:
    change(training__instance_type="ml.p5.48xlarge", training__learning="fast", serving__rollout={"type": "sudden"})
    (repository / "model_code" / "buy" / "train.py").unlink()
    text = problems()
    for said in ("training.learning", "ml.p5.48xlarge", "serving.rollout", "'train.py', which is missing"):
        assert said in text


def test_problems_of_several_models_come_together(repository: Path, change: Change, problems: Problems) -> None:
    from contract.new import write_model

    write_model(repository, "other")
    (repository / "model_code" / "other" / "inference.py").unlink()
    change(features__workers=50)
    assert "model_code/buy/model.yaml" in problems()
    assert "model_code/other/model.yaml" in problems()


def test_names_too_close_to_each_other_are_refused(repository: Path, problems: Problems) -> None:
    from contract.new import write_model

    folder = write_model(repository, "zoo")
    folder.rename(folder.with_name("b_uy"))
    path = folder.with_name("b_uy") / "model.yaml"
    path.write_text(path.read_text().replace("name: zoo", "name: b_uy", 1))
    assert "found 'buy', too close to 'b_uy'" in problems()


def test_a_link_out_of_the_folder_is_refused(repository: Path, problems: Problems) -> None:
    (repository / "model_code" / "buy" / "secrets.csv").symlink_to("/etc/passwd")
    assert problems().startswith("model_code/buy/secrets.csv: is a symbolic link")


def test_a_model_yaml_that_is_a_link_is_not_read(repository: Path, problems: Problems) -> None:
    path = repository / "model_code" / "buy" / "model.yaml"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert problems() == "model_code/buy/model.yaml: is a symbolic link; allowed: ordinary files and folders"


@pytest.mark.parametrize(
    "source",
    ["1: 2", "name: [1]", "training: 5", "training: {1: 2}", '"\\ud800": 1', '"a\\nb": 1', "watch: {a: b}",
     "name: 2013-01-01", "evaluation: {guards: [1, {}]}", "features: {arguments: {1: 1}}", "features: {arguments: [a]}",
     "null: null", "serving: {instances: null}", "training: {hyperparameters: {a: 1e999, b: .inf, c: null}}",
     "description: \u0007"],
)  # fmt: skip
def test_nonsense_is_answered_by_one_line_a_problem(repository: Path, problems: Problems, source: str) -> None:
    (repository / "model_code" / "buy" / "model.yaml").write_text(source)
    lines = problems().splitlines()
    assert all(line.startswith("model_code/buy/model.yaml:") for line in lines)
    problems().encode()


def test_a_folder_that_is_a_link_is_refused(repository: Path, problems: Problems) -> None:
    (repository / "model_code" / "buy").rename(repository / "elsewhere")
    (repository / "model_code" / "buy").symlink_to(repository / "elsewhere")
    assert "model_code/buy: is not a folder of this repository" in problems()


def test_an_oversize_file_is_refused(repository: Path, problems: Problems) -> None:
    with (repository / "model_code" / "buy" / "data.bin").open("wb") as file:
        file.truncate(11_000_000)
    assert problems() == "model_code/buy/data.bin: has 11.0 MB; allowed: at most 10 MB"


@pytest.mark.parametrize("name", ["class", "1st", "a-b", "a__b", "_a", "a_", "é", "shared", "a" * 27, "", "a\n"])
def test_names_that_can_not_name_aws_resources_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        model_name(name)


@pytest.mark.parametrize(
    "schedule",
    ["rate(1 day)", "rate(5 minutes)", "cron(0 3 * * ? *)", "cron(0/15 8-18 ? * MON-FRI *)", "cron(0 0 L * ? 2030)",
     "cron(0 9 ? * 6#3 *)", "cron(1,2 0 1W jan,FEB ? *)"],
)  # fmt: skip
def test_schedules_of_eventbridge_are_accepted(schedule: str) -> None:
    assert schedule_error(schedule) is None


@pytest.mark.parametrize(
    "schedule",
    ["0 3 * * *", "rate(1 days)", "rate(2 day)", "rate(0 days)", "cron(0 3 * * *)", "cron(0 3 * * * *)",
     "cron(0 3 ? * ? *)", "cron(60 3 * * ? *)", "cron(0 24 * * ? *)", "cron(0 3 0 * ? *)", "cron(0 3 * FOO ? *)",
     "cron(5-1 3 * * ? *)", "cron(? 3 * * ? *)", "cron(0 3 * * ? *", "at(2030-01-01T00:00:00)"],
)  # fmt: skip
def test_schedules_that_eventbridge_would_refuse_are_refused(schedule: str) -> None:
    assert schedule_error(schedule) is not None


def test_deployed_settings_are_plain_values_by_key(repository: Path, guardrails: Guardrails) -> None:
    (model,) = load_models(repository, guardrails)
    assert deployed(model)["retraining.cool_down_hours"] == 6
    assert all("." in key or key == "watch" for key in deployed(model))
