# SPDX-License-Identifier: Apache-2.0
"""Network functions of a running switch: their instances, and what each port's frames go through.

Used by policy (which puts chains into the stages of ports), wanted and the API. Uses the library of
code, function_places, function_steps and byway.functions, which has instances and chains in memory.

Theory of operation
-------------------
An *instance* is a function at work. It exists as long as it is wanted: by a [[function]], or by the
chain that it stands in. A port has a chain for each of its networks and either direction; it is one
piece of code, made for the functions in it, and reaches their instances by a record that never
changes. Another chain is another record: its address is stored into the stages of the port, and
workers take it up with their next batch.

Code is built by another process, which takes seconds the first time. A change that comes through
the API or by a reload waits for it (``prepare``), and is refused where something cannot be built.
What comes at the start, out of the state file or from the cluster does not wait: as long as its
code is lacking, a port that has a chain already keeps it, and one that has none yet is not opened
(``why_shut``): a guard that is missing must not leave the gate open.

Where the code of a function becomes another one, a new instance takes its place, with the state
that is described as before, and every chain that it stands in is made anew. The old instance's
counters are added when no worker is in it any more.

Everything belongs to the control thread. ``changing`` is held by who builds, so that of two changes
the second is looked at when the first one is there.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from byway.control.actions import Action, AddFunction, ChangeFunction, RemoveFunction
from byway.control.chains import Values
from byway.control.function_builder import Later, Unbuilt, again, in_parts
from byway.control.function_instances import Instances
from byway.control.function_library import Built, Library
from byway.control.function_needs import Needs
from byway.control.function_places import Fitted, Place, Places
from byway.control.function_steps import (
    Order,
    Owned,
    Placed,
    Way,
    network_owner,
    own_of,
    ways,
)
from byway.control.model import FunctionConfig, NetworkConfig, PortConfig
from byway.control.problem import ConfigError, EngineError, NotThere, Problem, nearest
from byway.functions.blueprint import Blueprint

if TYPE_CHECKING:
    from byway.functions.memory import Chain

EXPIRE_SECONDS = 60  # between two looks at what has aged out


@dataclass(frozen=True)
class Watched:
    """A chain that notes what it does. ``trace``: where; ``of``: its functions' code."""

    trace: Any
    of: tuple[str, ...]


class Functions:
    """The network functions of one switch. ``hz``: ticks a second of the time stamp counter."""

    def __init__(self, loop: asyncio.AbstractEventLoop, number: Callable[[str], int], hz: float,
                 library: Library | None = None) -> None:
        self._loop = loop
        self._number = number
        self._hz = hz
        self.library = library or Library()
        self.instances = Instances(number, hz)
        self.named: dict[str, FunctionConfig] = {}
        self.places = Places()
        self._own = Owned()
        self._lacking: dict[Order | str, None] = {}  # orders, and uses that are in none
        self._task: asyncio.Task[None] | None = None
        self._loose: set[str] = set()  # instances that may be wanted no longer
        self._unbuilt: dict[Order, str] = {}  # why, where it is none of its functions
        self._later = Later()
        self._wrong: dict[str, str] = {}  # what could not be had, and why
        self._refused: EngineError | None = None  # by the change that is under way
        self._seconds = 0
        self._traced: dict[tuple[Place, Order], Watched] = {}  # while somebody looks
        self.changing = asyncio.Lock()
        self.removing: set[str] = set()  # instances that the change under way is to remove
        self.refit: Callable[[Iterable[str]], None] = lambda ports: None
        self.settle: Callable[[], None] = lambda: None
        self.ready: Callable[[], None] = lambda: None  # ports may have become able to be opened

    # ------------------------------------------------------------ chains of ports
    def chains(self, port: PortConfig, network: NetworkConfig, kept: list[Any]) -> dict[str, int]:
        """What stands in a port's stages, for frames of a network; ``kept`` gets what it leads to.
        """
        place = port.name, network.name
        wanted = ways(port, network, self._use_of)
        before = self.places.get(place)
        if before is None and not any(way.placed for way in wanted):
            return {}
        for owner in (port.name, network_owner(network.name)):
            self._name_anew(owner, wanted)
        fitted = self._fit(place, wanted, before)
        self._loose.update(self.places.put(place, fitted))
        rx, tx = fitted.chains
        kept += [chain for chain in fitted.chains if chain]
        return {"chain_rx": rx.address if rx else 0, "chain_tx": tx.address if tx else 0}

    def _use_of(self, name: str) -> str:
        return self.named[name].use

    def _fit(self, place: Place, wanted: tuple[Way, Way], before: Fitted | None) -> Fitted:
        old = before.chains if before else (None, None)
        kept = tuple(one.name for one in before.instances) if before else ()
        try:
            if lacking := [way.order for way in wanted
                           if way.placed and self.library.lacks(way.order)]:
                self._lack(lacking)
                return Fitted(wanted, old, complete=False, kept=kept)
            made = (self._chain(place, wanted[0], old[0]), self._chain(place, wanted[1], old[1]))
        except EngineError as error:
            problem = error
        except Exception as error:  # code that cannot be loaded, no memory
            self._failed(f'the chain of port "{place[0]}"', error)
            problem = EngineError(f"its chain cannot be had: {type(error).__name__}: {error}",
                                  "see what the switch has said")
        else:
            return Fitted(wanted, made, complete=True)
        if before is None or before.ways != wanted:
            self._refused = problem
        return Fitted(wanted, old, complete=False, kept=kept, problem=str(problem))

    def _failed(self, what: str, error: Exception) -> None:
        """Something went wrong that nobody foresaw."""
        self._loop.call_exception_handler({
            "message": f"network functions: {what}", "exception": error})

    def _chain(self, place: Place, way: Way, old: "Chain | None") -> "Chain | None":
        from byway.functions.memory import Chain

        code = self.library.code(way.order) if way.placed else None
        if code is None or not code.places:
            return None
        instances = [self._instance(way.placed[number]) for number in code.places]
        watched = self._traced.get((place, way.order))
        trace = watched.trace if watched and watched.of == self._digests(way.order) else None
        if old and old.trace is trace and [*map(id, old.instances)] == [*map(id, instances)]:
            return old
        return Chain(instances, way.direction, self._hz, trace)

    def _digests(self, order: Order) -> tuple[str, ...]:
        """Which code its functions have."""
        return tuple(self.library.blueprints[use].digest for use, _ in order.steps)

    def _instance(self, placed: Placed) -> Any:
        config = self.named[placed.name] if placed.given is None else None
        given: Values = dict(config.parameters) if config else placed.given or {}
        return self.instances.have(placed.name, self.library.blueprints[placed.use], given,
                                   config.tables if config else ())

    def _name_anew(self, owner: str, wanted: tuple[Way, Way]) -> None:
        """Those in a chain go on with their state where the change gives them another name."""
        names = self._own.put(owner, own_of(owner, wanted), self.removing)
        self.instances.rename(names)
        self._loose.update(names, names.values())

    def leave(self, port: PortConfig) -> None:
        """A port is gone."""
        for network in port.networks:
            self._loose.update(self.places.put((port.name, network), None))

    def why_shut(self, port: PortConfig) -> str:
        """Why a port must not be opened now; empty: it may be."""
        for _, fitted in self.places.of_port(port.name):
            if not fitted.complete:
                return self._in_the_way(fitted) or "its chain is being built"
        return ""

    def _in_the_way(self, fitted: Fitted) -> str:
        """Why chains are not there; empty: they are being built."""
        for way in fitted.ways:
            if failed := self._cannot(way.order):
                return f"its chain cannot be built: {failed}"
        return fitted.problem

    def unguarded(self) -> list[str]:
        """Ports that have no chain, and cannot have the one that is wanted."""
        return list(dict.fromkeys(port for port, fitted in self.places.lacking()
                                  if not any(fitted.chains) and not fitted.kept
                                  and self._in_the_way(fitted)))

    def _cannot(self, order: Order) -> str:
        """Why an order cannot be built; empty: that is not known."""
        failed = self.library.failed(order)
        return str(failed[0]) if failed else self._unbuilt.get(order, "")

    def having(self, name: str) -> list[str]:
        """The ports whose frames go through the instance."""
        return self.places.ports(name)

    # ------------------------------------------------------------ functions with a name
    def carry_out(self, action: Action) -> None:
        """Functions of the configuration."""
        match action:
            case AddFunction(config) | ChangeFunction(_, config):
                self._put(config)
            case RemoveFunction(name):
                del self.named[name]
                self._wrong.pop(name, None)
                self._loose.add(name)

    def undo(self, action: Action) -> Action | None:
        """What takes back an action that is about to be carried out; None: it is not ours."""
        match action:
            case AddFunction(config):
                return RemoveFunction(config.name)
            case ChangeFunction(old, new):
                return ChangeFunction(new, old)
            case RemoveFunction(name):
                return AddFunction(self.named[name])
        return None

    def _put(self, config: FunctionConfig) -> None:
        before = self.named.get(config.name)
        ready = config.name in self.instances
        self.named[config.name] = config
        try:
            self._have(config)
        except EngineError as error:
            self._wrong[config.name] = str(error)
            self._refused = error
        if before is None or before.use != config.use or not ready:
            self.refit(self.having(config.name))

    def _have(self, config: FunctionConfig) -> None:
        self._wrong.pop(config.name, None)
        if config.use in self.library.blueprints:
            self._instance(Placed(config.name, config.use, None))
        elif config.use not in self.library.problems:
            self._lack([config.use])

    def finish(self) -> None:
        """All changes that come together were told: instances that nobody wants are forgotten.
        EngineError: one of them cannot be; all of them are to be taken back, and this called again.
        """
        if refused := self._refused:
            self._refused = None
            raise refused
        loose, self._loose = self._loose, set()
        for name in loose:
            if not self.places.stands(name) and name not in self.named:
                self.instances.drop(name)
                self._own.forget(name.rpartition("/")[0], self.places.stands)
        self._own.accept()
        self.instances.let_go(self.places.reach, self.settle)

    def tick(self) -> None:
        """Once a second; tables are looked through once a minute."""
        self._seconds += 1
        if self._seconds % EXPIRE_SECONDS == 0:
            self.instances.expire()
            self.library.forget(self.places.orders(self.library.blueprints))
            if self._later.forget(self.library, self._unbuilt):
                self._lack([way.order for _, fitted in self.places.lacking()
                            for way in fitted.ways if way.placed])
                known = {*self.library.blueprints, *self.library.problems}
                self._lack({config.use for config in self.named.values()} - known)

    # ------------------------------------------------------------ building
    def needs_building(self, needs: Needs) -> bool:
        """Must something be built before a change that needs this?"""
        return bool(needs.fresh) or any(map(self.library.lacks, needs.orders))

    async def prepare(self, needs: Needs) -> None:
        """Have the code that a change needs, of files as they are now; what uses them already
        follows. ``changing`` is held. ConfigError: something cannot be built, EngineError: nothing
        can; all is as it was."""
        built = await self.library.build(
            {*needs.orders, *self.places.orders(needs.fresh)}, needs.fresh)
        if problems := (built.every_problem() or list(self.instances.outgrown(built.blueprints))
                        or self._unfit(needs, built.blueprints)):
            raise ConfigError(problems)
        self._take(built)

    def check(self, needs: Needs) -> list[Problem]:
        """What is wrong with the parameters that a change gives, as far as is known."""
        return self._unfit(needs, self.library.blueprints)

    def _unfit(self, needs: Needs, blueprints: Mapping[str, Blueprint]) -> list[Problem]:
        return [problem for where, use, given in needs.given if use in blueprints
                for problem in self.instances.check(where, blueprints[use], given)]

    def version(self) -> Mapping[str, Blueprint]:
        """The code that there is now, for ``back_to``."""
        return dict(self.library.blueprints)

    def back_to(self, version: Mapping[str, Blueprint]) -> None:
        """Have what was running then run again: what it was replaced for is refused."""
        if changed := {use: version[use] for use, one in self.library.blueprints.items()
                       if use in version and version[use].digest != one.digest}:
            self._take(Built((), changed))

    async def reload(self, names: Collection[str] = ()) -> list[str]:
        """Read the files of these instances again, or of all; -> the uses whose code is another one
        now. ConfigError, EngineError: one that works now would do so no longer, and all is as it
        was; or those that did not work still do not."""
        async with self.changing:
            before = {use: one.digest for use, one in self.library.blueprints.items()}
            every = {name: config.use for name, config in self.named.items()}
            every.update((one.name, one.use) for one in self.places.every())
            if unknown := [name for name in names if name not in every]:
                raise NotThere(f'there is no network function "{unknown[0]}"',
                               nearest(unknown[0], every) or "see `byway nf list`")
            uses = {use for name, use in every.items() if not names or name in names}
            built = await again(self.library, self.places.orders(uses), uses)
            if problems := [problem for use, some in built.problems.items() if use in before
                            for problem in some] or list(
                                self.instances.outgrown(built.blueprints)):
                raise ConfigError(problems)
            self._take(built)
        changed = [use for use, one in self.library.blueprints.items()
                   if use in uses and before.get(use) != one.digest]
        if built.problems and not changed:
            raise ConfigError(built.every_problem())
        return changed

    def _take(self, built: Built) -> None:
        """Have what was built, and all that uses it follow."""
        changed = self.library.install(built)
        for order in built.orders:
            self._unbuilt.pop(order, None)
        ports = self.places.to_refit(changed)
        for config in self.named.values() if changed else ():
            if config.use in changed:
                try:
                    self._have(config)
                except EngineError as error:  # the others shall not wait for this one
                    self._wrong[config.name] = str(error)
        self.refit(ports)
        self._refused = None  # nobody is there to be told: ports and instances say it
        self.finish()
        self.ready()

    def _lack(self, wanted: Iterable[Order | str]) -> None:
        """Have these built soon; unless they cannot be, as far as is known."""
        self._lacking.update((one, None) for one in wanted
                             if isinstance(one, str) or not self._cannot(one))
        if self._lacking and self._task is None:
            self._task = self._loop.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            while self._lacking:
                async with self.changing:
                    wanted, self._lacking = self._lacking, {}
                    await self._build(wanted)
        finally:
            self._task = None

    async def _build(self, wanted: Mapping[Order | str, None]) -> None:
        orders = [one for one in wanted if isinstance(one, Order)]
        uses = [one for one in wanted if isinstance(one, str)]
        try:
            async for built in in_parts(self.library, orders, uses):
                if isinstance(built, Unbuilt):
                    self._unbuilt[built.order] = built.why
                else:
                    self._take(built)
        except Exception as error:  # what lacks next is built nevertheless
            self._failed("building", error)
            self._unbuilt.update((order, f"{type(error).__name__}: {error}") for order in orders)
            self._wrong.update((name, f"{type(error).__name__}: {error}") for name, config
                               in self.named.items() if config.use in uses)
        try:
            self.ready()  # those that stay shut say why
        except Exception as error:
            self._failed("opening ports", error)

    async def settled(self) -> list[str]:
        """Returns when nothing is being built; -> sentences: what could not be had."""
        while self._task:
            await asyncio.wait([self._task])
        said = [str(problem) for some in self.library.problems.values() for problem in some]
        said += [f"{order.steps[-1][0]}: {why}" for order, why in self._unbuilt.items()]
        said += self.places.problems()
        return list(dict.fromkeys([*said, *self._wrong.values()]))

    def close(self) -> None:
        """Build nothing more. Idempotent."""
        if self._task:
            self._task.cancel()
