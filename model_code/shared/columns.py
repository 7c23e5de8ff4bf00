"""Rows as columns, and columns as numbers: what encodings are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, Sequence[Any]]
Vector = npt.NDArray[np.float32]


def vector(columns: Columns, source: tuple[str, ...], derive: Callable[..., float]) -> Vector:
    """`derive` of the source columns, row by row; raises ValueError naming them if a value can't be encoded."""
    return np.array(_each(columns, source, derive), dtype=np.float32)


def number(value: Any) -> float:
    """A number, missing if it is None; true and false are none."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    return np.nan if value is None else float(value)


@lru_cache(maxsize=4096)
def day(value: str) -> date:
    """A date written as YYYY-MM-DD."""
    return date.fromisoformat(value)


def _each(columns: Columns, source: tuple[str, ...], derive: Callable[..., float]) -> list[float]:
    try:
        return [derive(*row) for row in zip(*(columns[name] for name in source), strict=True)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{' or '.join(source)}: {error}") from None
