"""Serving: hours as JSON or CSV -> the number of bikes in use in each.

The calendar is required; unknown weather is left out or empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from model_code.bike_demand.encoding import FIELDS, REQUIRED, matrix
from model_code.shared import boosted_trees
from model_code.shared.columns import Columns
from model_code.shared.requests import Form, answer

Counts = npt.NDArray[np.float32]

FORM = Form("hour", FIELDS, REQUIRED, text=frozenset({"date", "weathersit"}))


def model_fn(model_dir: str) -> xgb.Booster:
    """Load what train.py wrote."""
    return boosted_trees.load(model_dir)


def input_fn(body: str | bytes, content_type: str = "application/json") -> dict[str, list[Any]]:
    """The request as columns; raises ValueError saying which row and field is wrong."""
    return FORM.columns(body, content_type)


def predict_fn(columns: Columns, model: xgb.Booster) -> Counts:
    """Bikes in use, hour by hour; `columns` may be a data frame that also holds other columns."""
    return np.asarray(model.inplace_predict(matrix(columns), validate_features=False))


def output_fn(counts: Counts, accept: str = "application/json") -> tuple[str, str]:
    """The counts in the wanted format, and that format's content type."""
    return answer(counts, accept)
