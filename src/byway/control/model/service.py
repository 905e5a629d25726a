# SPDX-License-Identifier: Apache-2.0
"""Services: machines that frames of a port have to pass on their way.

Used through byway.control.model. Uses base and the values.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from byway.control.model.base import Model
from byway.control.network_values import at_most, once
from byway.control.problem import wrong
from byway.control.values import Name

MAX_APPLIANCES = 64


class ApplianceConfig(Model):
    """A machine that does a service: it joins two ports of the switch as a bridge does. `left`:
    towards the ports that have the service; `right`: towards all others."""

    left: Name
    right: Name

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.left == self.right:
            raise wrong(f'left and right are both "{self.left}"', "name two ports")
        return self


class ServiceConfig(Model):
    """A service. `appliances`: who does it; the flows are spread over those that work. `down`: what
    becomes of frames while none does. `spread`: whether what two addresses exchange may pass
    different appliances. `probe`: seconds between questions whether an appliance works, 0: its
    ports say so; `misses`: so many without an answer, and it does not."""

    name: Name
    appliances: Annotated[
        tuple[ApplianceConfig, ...], AfterValidator(once("appliance")),
        AfterValidator(at_most(MAX_APPLIANCES, "appliances", ""))] = ()
    down: Literal["block", "bypass"] = "block"
    spread: Literal["flow", "addresses"] = "flow"
    probe: Annotated[StrictInt, Field(ge=0, le=60)] = 1
    misses: Annotated[StrictInt, Field(ge=1, le=60)] = 3

    @property
    def ports(self) -> tuple[str, ...]:
        """The ports of its appliances."""
        return tuple(name for one in self.appliances for name in (one.left, one.right))

    @model_validator(mode="after")
    def _ports_once(self) -> Self:
        for name in self.ports:
            if self.ports.count(name) > 1:
                raise wrong(f'appliances: port "{name}" is named twice', "name it once")
        return self
