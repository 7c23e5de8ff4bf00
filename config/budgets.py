"""What each environment may cost in a month."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.section import Section

Dollars = Annotated[int, Field(ge=1, le=10_000_000)]


class Budgets(Section):
    """US dollars a month; None is no budget."""

    training: Dollars | None = 200
    staging: Dollars | None = 100
    production: Dollars | None = 400

    def of(self, environment: str) -> int | None:
        dollars: int | None = getattr(self, environment)
        return dollars
