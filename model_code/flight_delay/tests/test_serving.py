"""Requests in, probabilities out, and the same numbers that the training code sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_code.flight_delay.encoding import FEATURES, FIELDS, REQUIRED
from model_code.flight_delay.inference import Model, input_fn, output_fn, predict_fn

from .conftest import flights

HERE = Path(__file__).parent
ROW = {
    "flight_date": "2013-02-01",
    "sched_dep_time": 1930,
    "carrier": "AA",
    "origin": "JFK",
    "dest": "LAX",
    "distance": 2475,
    "visib": 1.0,
}


def test_the_sample_requests_say_the_same_in_both_formats(model: Model) -> None:
    columns = [
        input_fn((HERE / f"sample_request.{suffix}").read_text(), content_type)
        for suffix, content_type in (("json", "application/json"), ("csv", "text/csv"))
    ]
    from_json, from_csv = (predict_fn(each, model) for each in columns)
    assert len(from_json) == 2
    np.testing.assert_array_equal(from_json, from_csv)
    assert ((from_json > 0) & (from_json < 1)).all()


def test_a_feature_row_and_a_request_for_it_score_the_same(model: Model) -> None:
    rows = flights(seed=5)
    request = rows[list(FIELDS)].to_json(orient="records", double_precision=15)
    csv = rows[list(FIELDS)].to_csv(index=False, header=False)
    expected = predict_fn(rows, model)
    np.testing.assert_array_equal(predict_fn(input_fn(request, "application/json"), model), expected)
    np.testing.assert_array_equal(predict_fn(input_fn(csv, "text/csv"), model), expected)


def test_it_learned_what_makes_a_flight_late(model: Model) -> None:
    late, punctual = predict_fn(input_fn(json.dumps([ROW, {**ROW, "visib": 10.0}])), model)
    assert late > 0.5 > punctual


def test_the_encoding_derives_what_the_model_sees(model: Model) -> None:
    matrix = model.encoding.matrix(input_fn(json.dumps({**ROW, "plane_year": 2003})))
    seen = dict(zip(FEATURES, matrix[0], strict=True))
    assert seen["day_of_week"] == 4  # a Friday
    assert seen["departure_hour"] == 19.5
    assert seen["plane_age"] == 10
    assert np.isnan(seen["temp"])
    assert seen["carrier"] == 0


def test_unknown_categories_and_missing_values_are_scored(model: Model) -> None:
    strange = {**{name: ROW[name] for name in REQUIRED}, "carrier": "ZZ", "dest": "XXX", "engine": "Warp", "temp": None}
    assert np.isfinite(predict_fn(input_fn(json.dumps(strange)), model)).all()


def test_one_row_as_an_object_and_several_under_instances(model: Model) -> None:
    one, several = input_fn(json.dumps(ROW)), input_fn(json.dumps({"instances": [ROW, ROW]}))
    assert [len(predict_fn(columns, model)) for columns in (one, several)] == [1, 2]


def test_the_answer_comes_in_the_accepted_format() -> None:
    scores = np.array([0.25, 0.5], dtype=np.float32)
    assert json.loads(output_fn(scores, "application/json")[0]) == {"predictions": [0.25, 0.5]}
    assert output_fn(scores, "*/*")[1] == "application/json"
    assert output_fn(scores, "text/csv") == ("0.250000\n0.500000\n", "text/csv")
    with pytest.raises(ValueError, match="image/png"):
        output_fn(scores, "image/png")


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (json.dumps({**ROW, "dep_delay": 40}), "application/json", "unknown fields: dep_delay"),
        (json.dumps([ROW, {**ROW, "distance": "far"}]), "application/json", "Row 2: distance must be a number"),
        (json.dumps({**ROW, "carrier": 7}), "application/json", "carrier must be text"),
        (json.dumps({**ROW, "distance": True}), "application/json", "distance: True is not a number"),
        (json.dumps({**ROW, "sched_dep_time": 1975}), "application/json", "1975 is not a time of day"),
        (json.dumps({**ROW, "flight_date": "02/01/2013"}), "application/json", "flight_date"),
        (json.dumps({name: ROW[name] for name in REQUIRED[1:]}), "application/json", "Row 1 lacks flight_date"),
        ("[]", "application/json", "no flight"),
        ("[1]", "application/json", "Row 1 is not an object"),
        ("{", "application/json", "not JSON"),
        ("2013-02-01,900", "text/csv", "Row 1 has 2 values, expected 18"),
        ("flight_date,colour\n2013-02-01,red", "text/csv", "unknown fields: colour"),
        ("", "text/csv", "no flight"),
        ("<row/>", "application/xml", "send application/json or text/csv"),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(body: str, content_type: str, reason: str, model: Model) -> None:
    with pytest.raises(ValueError, match=reason):
        predict_fn(input_fn(body, content_type), model)
