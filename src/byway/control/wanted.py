# SPDX-License-Identifier: Apache-2.0
"""The wanted state of a running switch, and the one door through which it changes.

Used by the daemon (start, reload) and the API. Uses diff, the configuration checks and an engine.

A change is a new Config. It is checked whole, compared with the present one, and the actions go
to the engine in one call, so that hundreds of ports cost two plans. The engine applies all of them
or raises and applies none; `config` therefore always says what the engine has.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from byway.control.config import check_port, cross_check
from byway.control.diff import Action, AddPort, diff
from byway.control.model import Config, SwitchConfig
from byway.control.problem import ConfigError


class SwitchEngine(Protocol):
    """What control needs of an engine; every call is quick and made on the control thread."""

    def start(self) -> None:
        """Start the workers."""

    def close(self) -> None:
        """Stop the workers, close every port, remove their sockets."""

    def apply(self, actions: Sequence[Action]) -> None:
        """Carry out all actions with at most two plans, or raise and undo them."""

    def ports(self) -> list[dict[str, Any]]:
        """The state and the counters of every port."""

    def networks(self) -> list[dict[str, Any]]:
        """Every network with the names of its ports."""

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all."""

    def workers(self) -> list[dict[str, Any]]:
        """The counters of every worker."""


class Wanted:
    """Keeps the Config that the engine has, and changes both together."""

    def __init__(self, engine: SwitchEngine, switch: SwitchConfig) -> None:
        self.engine = engine
        self.config = Config(switch=switch)

    def change(self, new: Config) -> list[Action]:
        """Make the switch what `new` says; -> the actions that were needed (none: no change).

        Raises ConfigError when the parts of `new` do not fit together or the machine lacks what a
        new port names, and what the engine raises; the switch is then as it was. Pauses no
        worker: the plan is swapped between two passes.
        """
        if problems := cross_check(new):
            raise ConfigError(problems)
        actions = diff(self.config, new)
        problems = [
            problem
            for action in actions if isinstance(action, AddPort)
            for problem in check_port(action.port, f'port "{action.port.name}"')
        ]
        if problems:
            raise ConfigError(problems)
        if actions:
            self.engine.apply(actions)
        self.config = new
        return actions
