# SPDX-License-Identifier: Apache-2.0
"""What a running switch has, in a form in which a change costs what it changes.

Used by wanted. Uses parts, diff, outcome, claims, fitting and the model; passive, like them.

``config()`` gives the same as one Config, which diff and the reload compare whole. For the API
that would be too dear: with thousands of ports, each more would cost a look at all of them. So
parts are kept by name, with those that speak of them, and claims by what they claim.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from byway.control.actions import Action
from byway.control.claims import Place, claims, switch_claims, twice
from byway.control.diff import Change, actions
from byway.control.fitting import left_behind, misfits
from byway.control.model import (
    ClusterConfig,
    Config,
    NetworkConfig,
    PortConfig,
    SwitchConfig,
    UnderlayConfig,
)
from byway.control.outcome import outcome
from byway.control.parts import UNDERLAY, Key, Part, Parts
from byway.control.problem import Problem


class Inventory:
    """The parts of a switch. What the mappings hold is to be read only."""

    def __init__(self, switch: SwitchConfig, cluster: ClusterConfig | None = None) -> None:
        self.switch = switch
        self.cluster = cluster
        self.parts = Parts()
        self._taken: dict[Place, str] = {c.place: c.key for c in switch_claims(switch)}

    @property
    def networks(self) -> Mapping[str, NetworkConfig]:
        """The networks by name."""
        return self.parts.all("network")

    @property
    def ports(self) -> Mapping[str, PortConfig]:
        """The ports by name."""
        return self.parts.all("port")

    @property
    def underlay(self) -> UnderlayConfig | None:
        """The underlay, where there is one."""
        found = self.parts.get(UNDERLAY)
        return found if isinstance(found, UnderlayConfig) else None

    def config(self) -> Config:
        """All of it."""
        found: dict[str, Any] = {
            "networks": "network", "hosts": "host", "entries": "entry", "routers": "router",
            "groups": "group", "functions": "function", "services": "service",
            "ports": "port"}
        found = {field: tuple(self.parts.all(kind).values()) for field, kind in found.items()}
        return Config(switch=self.switch, cluster=self.cluster, underlay=self.underlay, **found)

    def actions(self, change: Change) -> list[Action]:
        """The actions that a change needs, in an order that is valid at every step; as diff."""
        return actions(self.parts, change.after())

    def new(self, parts: Mapping[Key, Part | None]) -> list[Action]:
        """The actions by which these parts come; in an order that is valid at every step."""
        return actions(self.parts, parts)

    def orphans(self, change: Change) -> dict[Key, list[Key]]:
        """What the change takes away and does not bring again, with the parts that stay and speak
        of it."""
        return left_behind(self.parts, change.after())

    def problems(self, made: Sequence[Action]) -> list[Problem]:
        """What of these actions does not fit together, or to what stays."""
        return self.misfits(made) + self.taken_twice(made)

    def misfits(self, made: Sequence[Action]) -> list[Problem]:
        """Of these, what is said by their values and by what they speak of."""
        return misfits(self.parts, outcome(made))

    def taken_twice(self, made: Sequence[Action]) -> list[Problem]:
        """Of these, what no two parts may share."""
        after = outcome(made)
        # What is claimed by what stays: only what is asked for is looked up.
        gone = {claim.place for key in after if (old := self.parts.get(key))
                for claim in claims(old, str(key))}
        wanted = [claim for key, part in after.items() if part for claim in claims(part, str(key))]
        taken = {c.place: self._taken[c.place] for c in wanted
                 if c.place in self._taken and c.place not in gone}
        return twice(wanted, taken)

    def commit(self, made: Sequence[Action]) -> None:
        """The actions have been carried out."""
        after = outcome(made)
        for key in after:
            if old := self.parts.get(key):
                for claim in claims(old, str(key)):
                    self._taken.pop(claim.place, None)
        for key, part in after.items():
            if part is None:
                self.parts.drop(key)
            else:
                self.parts.put(key, part)
                self._taken.update((claim.place, claim.key) for claim in claims(part, str(key)))
