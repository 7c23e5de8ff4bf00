"""The network that jobs and endpoints of an environment run in: one of their own, an existing one, or none."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from config.section import Section

NEW, NONE = "new", "none"
_ID = r"-[0-9a-f]{8,17}$"
Vpc = Annotated[str, StringConstraints(pattern=rf"^({NEW}|{NONE}|vpc-[0-9a-f]{{8,17}})$")]
Subnet = Annotated[str, StringConstraints(pattern="^subnet" + _ID)]
SecurityGroup = Annotated[str, StringConstraints(pattern="^sg" + _ID)]
Zone = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z0-9]+)+[a-z]$")]
OF_AN_EXISTING_VPC = ("subnets", "security_groups", "availability_zone")


class Network(Section):
    """`new` is isolated subnets with endpoints for what is used; an id is a VPC that others look after."""

    vpc: Vpc = NEW
    subnets: Annotated[tuple[Subnet, ...], Field(strict=False, max_length=16)] = ()
    security_groups: Annotated[tuple[SecurityGroup, ...], Field(strict=False, max_length=5)] = ()
    availability_zone: Zone | None = None
    """Of the first subnet, in which feature jobs run: Glue wants both, and synth asks nobody."""

    @property
    def exists(self) -> bool:
        return self.vpc not in (NEW, NONE)

    @model_validator(mode="after")
    def _whole(self) -> Network:
        given = [name for name in OF_AN_EXISTING_VPC if getattr(self, name)]
        if self.exists and len(given) < len(OF_AN_EXISTING_VPC):
            missing = ", ".join(name for name in OF_AN_EXISTING_VPC if name not in given)
            raise ValueError(f"found {self.vpc} without {missing}; allowed: an existing VPC with all of them")
        if given and not self.exists:
            raise ValueError(f"found {', '.join(given)} with vpc: {self.vpc}; allowed: only with the id of a VPC")
        return self


class Networks(Section):
    """Each environment's."""

    training: Network = Network()
    staging: Network = Network()
    production: Network = Network()

    def of(self, environment: str) -> Network:
        found: Network = getattr(self, environment)
        return found
