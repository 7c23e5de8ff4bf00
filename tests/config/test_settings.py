"""platform.yaml: what is shipped holds, and what is wrong is said all at once, by file, line, key, value and rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from config import Invalid, load_settings
from config.settings import PLATFORM_FILE


def settings_file(folder: Path, **changes: object) -> Path:
    data = yaml.safe_load(PLATFORM_FILE.read_text()) | changes
    (folder / "config").mkdir()
    path = folder / "config" / "platform.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def problems(path: Path) -> str:
    with pytest.raises(Invalid) as caught:
        load_settings(path)
    return str(caught.value)


def test_the_shipped_settings_are_valid_and_name_no_account() -> None:
    settings = load_settings()
    assert settings.project == "pushline"
    assert settings.region is None
    assert [name for name, _ in settings.environments.items()] == ["training", "staging", "production"]
    assert "ml.m6i.large" in settings.guardrails.training.instance_types


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().project = "other"  # type: ignore[misc]


def test_every_problem_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path, project="Push Line", retention={"logs_days": 8}, notification={}, notifications={"email": "nobody"}
    )
    lines = problems(path).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("config/platform.yaml:1: project: found 'Push Line'; allowed: ")
    assert any("retention.logs_days: found 8; allowed: 1, 3, 5" in line for line in lines)
    assert any("notification: found an unknown key; allowed: " in line for line in lines)
    assert any("did you mean 'notifications'?" in line for line in lines)
    assert any("notifications.email: found 'nobody'; allowed: " in line for line in lines)


def test_a_wrong_key_of_one_kind_of_source_is_told_where_the_file_has_it(tmp_path: Path) -> None:
    path = settings_file(tmp_path, source={"type": "connection", "connection_ar": "arn", "repository": "models"})
    lines = {number: text.strip() for number, text in enumerate(path.read_text().splitlines(), 1)}
    told = dict(line.removeprefix("config/platform.yaml:").split(": ", 1) for line in problems(path).splitlines())
    assert {lines[int(line)]: text.split(";")[0] for line, text in told.items()} == {
        "source:": "source.connection_arn: is required, and missing",
        "connection_ar: arn": "source.connection_ar: found an unknown key",
        "repository: models": "source.repository: found 'models'",
    }
    assert "allowed: connection_arn, repository, type; did you mean 'connection_arn'?" in problems(path)


def test_a_second_region_is_refused_with_the_reason(tmp_path: Path) -> None:
    regions = {
        "training": {"region": "eu-west-1"},
        "staging": {"region": "eu-west-1"},
        "production": {"region": "us-east-1"},
    }
    text = problems(settings_file(tmp_path, environments=regions))
    assert "production us-east-1" in text
    assert "SageMaker wants artefact and image in the endpoint's region" in text


def test_accounts_in_one_region_are_accepted(tmp_path: Path) -> None:
    where = {name: {"account": "123456789012", "region": "eu-west-1"} for name in ("training", "staging", "production")}
    assert load_settings(settings_file(tmp_path, environments=where)).region == "eu-west-1"


def test_an_account_that_yaml_reads_as_a_number_is_refused(tmp_path: Path) -> None:
    where = {"training": {"account": 123456789012}, "staging": {"account": "12345"}, "production": {}}
    lines = problems(settings_file(tmp_path, environments=where)).splitlines()
    assert "environments.training.account: found 123456789012; allowed: 12 digits in quotes" in lines[0]
    assert "environments.staging.account: found '12345'; allowed: 12 digits in quotes" in lines[1]


def test_an_account_for_some_environments_is_refused_together_with_a_second_region(tmp_path: Path) -> None:
    where = {"training": {"account": "111111111111", "region": "eu-west-1"}, "staging": {"region": "us-east-1"}}
    text = problems(settings_file(tmp_path, environments=where))
    assert "training 111111111111, staging not set, production not set" in text
    assert "found more than one region (training eu-west-1, staging us-east-1, production not set)" in text


def test_different_accounts_need_the_region(tmp_path: Path) -> None:
    digits = {"training": "1", "staging": "2", "production": "3"}
    where = {name: {"account": digit * 12} for name, digit in digits.items()}
    assert "found accounts of their own without a region" in problems(settings_file(tmp_path, environments=where))
    named = {name: {**environment, "region": "eu-west-1"} for name, environment in where.items()}
    (tmp_path / "named").mkdir()
    assert load_settings(settings_file(tmp_path / "named", environments=named)).environments.staging.account == "2" * 12


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "config/platform.yaml:1: found None; allowed: a mapping"),
        ("- a\n", "allowed: a mapping"),
        ("project: [", "is not valid YAML"),
        ("project: a\nproject: b\n", "config/platform.yaml:2: project: found twice, first on line 1"),
        ("a: &x [1]\nb: *x\n", "anchors and aliases are not allowed"),
        ("a: " + "[" * 5000, "nested deeper than"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
        ("a: 'x\x00'\n", "is not valid YAML"),
        ("a: " + "9" * 5000 + "\n", "is not valid YAML"),
        ("a: " + "x" * 70_000, "bytes; allowed: at most"),
        ("\xff\xfe", "allowed: a mapping"),
        ("? [a]\n: 1\n", "is not valid YAML"),
    ],
)  # fmt: skip
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "platform.yaml"
    path.write_text(source, encoding="utf-8")
    text = problems(path)
    assert said in text
    assert len(text.splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "platform.yaml: can't be read: No such file" in problems(tmp_path / "platform.yaml")
