# SPDX-License-Identifier: Apache-2.0
"""The wanted state of a running switch, and the one door through which it changes.

Used by the daemon (start, reload) and the API. Uses diff, the configuration checks, lasting and an
engine.

A change is a new Config (start, reload: checked whole and compared with the present one), or says
what goes and what comes (the API: checked against what it touches, so that it costs the same
however many ports there are). Either way the actions go to the engine in one call, so that hundreds
of ports cost two exchanges with the workers. The engine applies all of them or raises and applies
none; the inventory therefore always says what the engine has. What else a change needs, the state
file and the rules of gateways, is done around the engine's part (lasting.py).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from byway.control.actions import Action, AddPort
from byway.control.diff import Change, diff
from byway.control.fitting import cross_check
from byway.control.inventory import Inventory
from byway.control.lasting import Lasting
from byway.control.model import ClusterConfig, Config, NetworkConfig, SwitchConfig
from byway.control.mtus import Ask, with_mtu, with_mtus
from byway.control.parts import Key, Part, key_of, parts_of
from byway.control.problem import ConfigError, EngineError
from byway.control.thishost import check_port
from byway.machine.addresses import mtu_of_address


class SwitchEngine(Protocol):
    """What control needs of an engine; every call is quick and made on the control thread."""

    def start(self) -> None:
        """Start the workers."""

    def close(self) -> None:
        """Stop the workers, close every port, remove their sockets."""

    def join_cluster(self) -> None:
        """A cluster tells from now on who is where: addresses are not learned from tunnels."""

    def apply(self, actions: Sequence[Action]) -> None:
        """Carry out all actions with at most two exchanges, or raise and undo them."""

    def ports(self) -> list[dict[str, Any]]:
        """The state and the counters of every port."""

    def port(self, name: str) -> dict[str, Any]:
        """One port, which is there."""

    def networks(self) -> list[dict[str, Any]]:
        """Every network with the names of its ports."""

    def network(self, name: str) -> dict[str, Any]:
        """One network, which is there."""

    def fdb(self, network: str | None) -> list[dict[str, Any]]:
        """The learned addresses of one network, or of all."""

    def hosts(self) -> list[dict[str, Any]]:
        """Every other host with its address, its networks and counters."""

    def underlay(self) -> dict[str, Any] | None:
        """What carries the tunnels, with its counters; None: there is none."""

    def population(self, network: str | None) -> list[dict[str, Any]]:
        """Who is known to be where, in one network, or in all."""

    def connections(self, port: str | None, limit: int) -> list[dict[str, Any]]:
        """The connections of one port, or of all; at most so many."""

    def workers(self) -> list[dict[str, Any]]:
        """The counters of every worker."""


class Wanted:
    """Keeps what the engine has, and changes both together. ``ask``: see mtus.py."""

    def __init__(self, engine: SwitchEngine, switch: SwitchConfig,
                 lasting: Lasting | None = None, cluster: ClusterConfig | None = None,
                 ask: Ask = mtu_of_address) -> None:
        self.engine = engine
        self.lasting = lasting or Lasting(switch.name)
        self.has = Inventory(switch, cluster)
        self.on_change: Callable[[], None] = lambda: None  # after every change, however it came
        self.of_cluster: dict[Key, str] = {}  # what the cluster put here, and how to change it
        self._ask = ask

    @property
    def config(self) -> Config:
        """What the engine has, as one Config."""
        return self.has.config()

    def change(self, new: Config) -> list[Action]:
        """Make the switch what `new` says; -> the actions that were needed (none: no change).

        Raises ConfigError when the parts of `new` do not fit together or the machine lacks what a
        new port names, and what the engine raises; the switch is then as it was. Pauses no
        worker: plans change between two passes.
        """
        new = with_mtus(new, self._ask)
        if self.of_cluster:
            parts = parts_of(new)
            self._keep_off(
                key for key in self.of_cluster if parts.get(key) != self.has.parts.get(key))
        if problems := cross_check(new):
            raise ConfigError(problems)
        return self._carry_out(diff(self.config, new), keep=())

    def alter(self, change: Change, keep: bool = True, patient: bool = False) -> list[Action]:
        """Remove and add what `change` says; -> and raises as `change`. What is to go and is not
        there is passed over. ``keep``: it is to outlive the switch, in the state file; what the
        cluster put here is then refused. ``patient``: a new port that cannot be opened is there,
        and down."""
        if keep:
            self._keep_off(change.after())
        actions = self.has.actions(self._filled(change))
        if patient:
            actions = [replace(action, patient=True) if isinstance(action, AddPort)
                       and action.port.name not in self.has.ports else action for action in actions]
        if problems := self.has.problems(actions):
            raise ConfigError(problems)
        return self._carry_out(actions, change.after() if keep else ())

    def restore(self) -> list[str]:
        """Have what the state file has besides; -> sentences on what of it is left out.

        A port that cannot be opened is there, and down. What does not fit to the rest, or is
        refused for another reason, stays in the file.
        """
        parts, left_out = self.lasting.load()
        after: dict[Key, Part | None] = {
            key_of(part): part for part in parts if self.has.parts.get(key_of(part)) is None}
        found = [replace(action, patient=True) if isinstance(action, AddPort) else action
                 for action in self.has.new(self._filled_parts(after))]
        actions = found
        if self.has.problems(found):
            actions = []
            for action in found:
                if problems := self.has.problems([*actions, action]):
                    left_out += [f"not restored: {problem}" for problem in problems]
                else:
                    actions.append(action)
        try:
            self._apply(actions)
        except EngineError:  # the one shall not hold up the others
            left_out += self._one_by_one(actions)
        return left_out

    def _one_by_one(self, actions: list[Action]) -> list[str]:
        refused = []
        for action in actions:
            try:
                self._apply([action])
            except EngineError as error:
                refused.append(f"not restored: {error}")
        return refused

    def _filled(self, change: Change) -> Change:
        """The change with the MTUs that nobody wrote."""
        return replace(change, add_networks=[
            with_mtu(network, self.has.underlay) for network in change.add_networks])

    def _filled_parts(self, after: dict[Key, Part | None]) -> dict[Key, Part | None]:
        return {key: with_mtu(part, self.has.underlay) if isinstance(part, NetworkConfig) else part
                for key, part in after.items()}

    def _keep_off(self, keys: Iterable[Key]) -> None:
        """Nobody but the cluster changes what it put here: its hosts are to have the same."""
        for key in keys:
            if fix := self.of_cluster.get(key):
                raise EngineError(f"{key} is of the cluster", fix)

    def _carry_out(self, actions: list[Action], keep: Collection[Key]) -> list[Action]:
        problems = [
            problem
            for action in actions if isinstance(action, AddPort) and not action.patient
            for problem in check_port(action.port, f'port "{action.port.name}"')
        ]
        if problems:
            raise ConfigError(problems)
        self._apply(actions, keep)
        return actions

    def _apply(self, actions: list[Action], keep: Collection[Key] = ()) -> None:
        if actions:
            with self.lasting.change(actions, keep):
                self.engine.apply(actions)
        self.has.commit(actions)
        if actions:
            self.on_change()
