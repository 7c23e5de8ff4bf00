"""Dynamic frames live in Glue's own Java library, so every use of them is refused."""

from __future__ import annotations

from typing import Any, NoReturn

_REASON = "is not rehearsed: dynamic frames need Glue's own Java library; use Spark DataFrames"


class _Refuses(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{cls.__name__} {_REASON}")

    def __getattr__(cls, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotImplementedError(f"{cls.__name__}.{name} {_REASON}")


class DynamicFrame(metaclass=_Refuses):
    """Importable, as scripts made from Glue's template import it; refuses to be used."""


class DynamicFrameCollection(metaclass=_Refuses):
    """Importable; refuses to be used."""
