"""Where models are trained, tried and served: the accounts of one region."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints, model_validator

from config.section import Section

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]


def _twelve_digits(value: Any) -> Any:
    if value is None or (isinstance(value, str) and re.fullmatch(r"[0-9]{12}", value)):
        return value
    raise ValueError(f"found {value!r}; allowed: 12 digits in quotes, which YAML would else read as a number")


Account = Annotated[str, BeforeValidator(_twelve_digits)]


class Environment(Section):
    """One account; without values the deployer's own."""

    account: Account | None = None
    region: Region | None = None


class Environments(Section):
    """Training, staging and production: in one account, or in accounts of their own."""

    training: Environment = Environment()
    staging: Environment = Environment()
    production: Environment = Environment()

    def items(self) -> tuple[tuple[str, Environment], ...]:
        return ("training", self.training), ("staging", self.staging), ("production", self.production)

    @model_validator(mode="after")
    def _one_region_and_all_accounts(self) -> Environments:
        if wrong := [*self._wrong_regions(), *self._wrong_accounts()]:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong_regions(self) -> Iterator[str]:
        regions = {name: environment.region for name, environment in self.items()}
        accounts = {environment.account for _, environment in self.items()}
        if len(set(regions.values())) > 1:
            yield (
                f"found more than one region ({_listed(regions)}); allowed: the same for all, since SageMaker wants "
                "artefact and image in the endpoint's region"
            )
        elif len(accounts) > 1 and None in regions.values():
            yield "found accounts of their own without a region; allowed: the region of all, named for each"

    def _wrong_accounts(self) -> Iterator[str]:
        accounts = {name: environment.account for name, environment in self.items()}
        if None in accounts.values() and set(accounts.values()) != {None}:
            yield f"found an account for some ({_listed(accounts)}); allowed: one for each environment, or for none"


def _listed(values: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {value or 'not set'}" for name, value in values.items())
