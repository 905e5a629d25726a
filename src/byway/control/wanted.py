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

What the state file has and cannot be yet (returning.py) waits here for its network: in a cluster
networks come after the start.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from byway.control.actions import Action, AddNetwork, AddPort
from byway.control.diff import Change, diff
from byway.control.fitting import cross_check
from byway.control.function_desk import FunctionDesk
from byway.control.function_needs import needs
from byway.control.inventory import Inventory
from byway.control.lasting import Lasting
from byway.control.model import ClusterConfig, Config, NetworkConfig, SwitchConfig
from byway.control.mtus import Ask, with_mtu, with_mtus
from byway.control.outcome import outcome
from byway.control.parts import Key, Part, key_of, mentions, parts_of
from byway.control.problem import ConfigError, EngineError, Problem
from byway.control.returning import fitting, unit
from byway.control.thishost import check_port
from byway.machine.addresses import mtu_of_address


class SwitchEngine(Protocol):
    """What control needs of an engine; every call is quick and made on the control thread."""

    @property
    def functions(self) -> FunctionDesk:
        """Its network functions."""

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

    def services(self) -> list[dict[str, Any]]:
        """Every service with its appliances' states."""

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
        self.on_return: Callable[[list[str]], None] = lambda said: None  # see restore
        self._left_out: dict[Key, Part] = {}  # of the state file
        self._said: set[str] = set()  # why
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

    async def change_built(self, new: Callable[[], Config]) -> list[Action]:
        """As `change`, when the code of network functions is built that it needs. ``new`` says what
        there is to be, as things stand when it is asked: others change them meanwhile."""
        return await self._when_built(
            lambda: diff(self.config, with_mtus(new(), self._ask)), lambda: self.change(new()))

    async def alter_built(self, change: Change | Callable[[], Change],
                          removing: Collection[str] = ()) -> list[Action]:
        """As `alter`, when the code of network functions is built that it needs; other changes do
        not wait for it. A change that is made of what there is, is asked for again when it is
        carried out. ``removing``: instances of functions that it is to remove."""
        made = change if callable(change) else lambda: change

        def carry_out() -> list[Action]:
            going = self.engine.functions.removing
            going.update(removing)  # and no other of the same function
            try:
                return self.alter(made())
            finally:
                going.difference_update(removing)

        return await self._when_built(lambda: self.has.actions(self._filled(made())), carry_out)

    async def _when_built(self, made: Callable[[], Sequence[Action]],
                          carry_out: Callable[[], list[Action]]) -> list[Action]:
        functions = self.engine.functions
        actions = made()
        wanted = needs(self.has.parts, outcome(actions))
        if functions.needs_building(wanted):
            self._refuse(self.has.misfits(actions))
            async with functions.changing:
                version = functions.version()
                try:
                    await functions.prepare(wanted)
                    # Others may have changed meanwhile what goes with it.
                    while functions.needs_building(wanted := replace(
                            needs(self.has.parts, outcome(made())), fresh=frozenset())):
                        await functions.prepare(wanted)
                    self._refuse(functions.check(wanted))
                    return carry_out()
                except (ConfigError, EngineError):
                    functions.back_to(version)
                    raise
        self._refuse(functions.check(wanted))
        return carry_out()

    @staticmethod
    def _refuse(problems: list[Problem]) -> None:
        if problems:
            raise ConfigError(problems)

    def restore(self) -> list[str]:
        """Have what the state file has besides; -> sentences on what of it is left out.

        A port that cannot be opened is there, and down. What does not fit to the rest, or is
        refused for another reason, stays in the file, and is tried again whenever a network comes
        that it could be about.
        """
        parts, sentences = self.lasting.load()
        self._left_out = {
            key_of(part): part for part in parts if self.has.parts.get(key_of(part)) is None}
        return sentences + self._bring_back()

    def _bring_back(self) -> list[str]:
        """Have what fits by now of what was left out; -> sentences that are new on the others."""
        parts = {key: with_mtu(part, self.has.underlay) if isinstance(part, NetworkConfig) else part
                 for key, part in self._left_out.items()}
        found, problems = fitting(self.has, parts)
        actions = [replace(action, patient=True) if isinstance(action, AddPort) else action
                   for action in found]
        said = [str(problem) for problem in problems]
        try:
            self._apply(actions)
        except EngineError:  # the one shall not hold up the others
            said += self._one_by_one(actions)
        new = [text for text in dict.fromkeys(said) if text not in self._said]
        self._said.update(new)
        return [f"not restored: {text}" for text in new]

    def _one_by_one(self, actions: Sequence[Action]) -> list[str]:
        """Apply each with what it cannot do without; -> why it was refused, of the others."""
        order = {key: number for number, key in enumerate(outcome(actions))}
        parts = {key: part for key, part in outcome(actions).items() if part}
        by_key = dict(zip(order, actions, strict=True))
        said = []
        for last in (False, True):
            for key in order:
                if key not in parts or key not in self._left_out:
                    continue
                some = [one for one in sorted(unit(key, parts), key=order.__getitem__)
                        if one in self._left_out]  # the others came by another way meanwhile
                refusal = self._refusal([by_key[one] for one in some])
                if not refusal:
                    for one in some:
                        del parts[one]
                elif last or len(some) == 1:  # else the others alone may be possible
                    del parts[key]
                    said += refusal
        return said

    def _refusal(self, actions: list[Action]) -> list[str]:
        """Apply these; -> why that was refused."""
        if problems := self.has.problems(actions):
            return [str(problem) for problem in problems]
        try:
            self._apply(actions)
        except EngineError as error:
            return [str(error)]
        return []

    def _after_networks(self, actions: Sequence[Action]) -> None:
        """Where networks have come: bring back what was left out and speaks of them."""
        came = {Key("network", action.network.name) for action in actions
                if isinstance(action, AddNetwork)}
        waiting = list(self._left_out)
        if came and any(mention.of in came for part in self._left_out.values()
                        for mention in mentions(part)):
            said = self._bring_back()
            back = [f"{key} is back" for key in waiting if key not in self._left_out]
            self.on_return([*back, *said])

    def _filled(self, change: Change) -> Change:
        """The change with the MTUs that nobody wrote."""
        return replace(change, add_networks=[
            with_mtu(network, self.has.underlay) for network in change.add_networks])

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
        self._after_networks(actions)
        return actions

    def _apply(self, actions: list[Action], keep: Collection[Key] = ()) -> None:
        if actions:
            with self.lasting.change(actions, keep):
                self.engine.apply(actions)
        self.has.commit(actions)
        for key in outcome(actions) if self._left_out else ():
            self._left_out.pop(key, None)
        if actions:
            self.on_change()
