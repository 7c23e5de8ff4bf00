"""Serving: flights as JSON or CSV -> the probability that each arrives more than 15 minutes late.

The schedule is required; an unknown plane or unknown weather is left out or empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from model_code.flight_delay.encoding import CATEGORIES, FIELDS, REQUIRED, Encoding
from model_code.flight_delay.train import ENCODING_FILE
from model_code.shared import boosted_trees
from model_code.shared.columns import Columns
from model_code.shared.requests import Form, answer

Scores = npt.NDArray[np.float32]

FORM = Form("flight", FIELDS, REQUIRED, text=frozenset({"flight_date", *CATEGORIES}))


class Model(NamedTuple):
    """The trees and the encoding they were trained under."""

    booster: xgb.Booster
    encoding: Encoding


def model_fn(model_dir: str) -> Model:
    """Load what train.py wrote."""
    return Model(boosted_trees.load(model_dir), Encoding.load(Path(model_dir) / ENCODING_FILE))


def input_fn(body: str | bytes, content_type: str = "application/json") -> dict[str, list[Any]]:
    """The request as columns; raises ValueError saying which row and field is wrong."""
    return FORM.columns(body, content_type)


def predict_fn(columns: Columns, model: Model) -> Scores:
    """The probability of being late, row by row; `columns` may be a data frame that also holds other columns."""
    return np.asarray(model.booster.inplace_predict(model.encoding.matrix(columns), validate_features=False))


def output_fn(scores: Scores, accept: str = "application/json") -> tuple[str, str]:
    """The probabilities in the wanted format, and that format's content type."""
    return answer(scores, accept)
