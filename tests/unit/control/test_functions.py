# SPDX-License-Identifier: Apache-2.0
"""Network functions in an engine: built by another process, put into chains, changed while frames
go on."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from byway.control import function_library
from byway.control.diff import Change
from byway.control.function_edits import with_given, without
from byway.control.function_library import Library
from byway.control.model import Config, FunctionConfig, NetworkConfig, SwitchConfig
from byway.control.problem import ConfigError, EngineError
from byway.control.wanted import Wanted
from byway.testing.builders import tcp
from byway.testing.guest import Guest
from tests.running import RunningSwitch, mac

T = TypeVar("T")
GUARD = '''
from byway import nf


@nf.function
class Guard:
    """Drop a source's connections above a limit."""

    limit: int = 2
    noisy = nf.Event(source="ipv4", count="u32")
    table = nf.Map(key="ipv4", value="u32", capacity=100)

    def process(self, frame: nf.Frame) -> nf.Verdict:
        n = self.table.add(frame.ipv4_src)
        if n > self.limit:
            self.noisy.emit(source=frame.ipv4_src, count=n)
            return nf.DROP("over limit")
        return nf.PASS
'''
WRONG = GUARD.replace("n > self.limit", "n > [self.limit]")
SECONDS = 100.0  # the compiler may have to work


class Lab:
    """A switch with network blue and ports vm1, vm2, and guests there; a function in a file."""

    def __init__(self, switch: RunningSwitch, folder: Path, stack: ExitStack) -> None:
        self.switch, self.folder, self._stack = switch, folder, stack
        self.file = folder / "guard.py"
        self.file.write_text(GUARD)
        self.use = f"{self.file}:Guard"
        self.wanted = Wanted(switch.engine, SwitchConfig())
        self.guests: dict[str, Guest] = {}

    def port(self, name: str, **options: Any) -> Any:
        return self.switch.config("vhost-user", name, **options)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.switch.loop).result(SECONDS)

    def start(self, *functions: FunctionConfig, network: tuple[str, ...] = (),
              **chains: tuple[str, ...]) -> list[str]:
        """As at the start of a switch; -> what could not be had. ``chains``: by port."""
        new = Config(functions=functions, networks=(NetworkConfig(name="blue", chain=network),),
                     ports=tuple(self.port(name, mac=mac(k), chain=chains.get(name, ()))
                                 for k, name in enumerate(("vm1", "vm2"), 1)))
        self.switch.call(self.wanted.change, new)
        return self.wait(self.switch.engine.functions.settled())

    def connect(self) -> None:
        for number, name in enumerate(("vm1", "vm2"), 1):
            self.guests[name] = self._stack.enter_context(self.switch.guest(name, number))

    def alter(self, **change: Any) -> None:
        self.wait(self.wanted.alter_built(Change(**change)))

    def chain(self, name: str, *chain: str, tx: tuple[str, ...] = ()) -> None:
        port = self.wanted.has.ports[name]
        self.alter(add_ports=[port.model_copy(update={"chain": chain, "chain_tx": tx})])

    def set(self, name: str, **given: Any) -> None:
        self.wait(self.wanted.alter_built(with_given(self.wanted.has.parts, name, given)))

    def send(self, n: int, source: str = "10.0.0.1") -> int:
        """vm1 sends so many to vm2; -> how many arrive."""
        frame = tcp(source, eth_src=mac(1), eth_dst=mac(2))
        self.guests["vm1"].send([frame] * n)
        self.switch.settle()
        return len(self.guests["vm2"].receive())

    def show(self, name: str) -> dict[str, Any]:
        return self.switch.call(self.switch.engine.functions.show, name)

    def rows(self, name: str, table: str, limit: int = 100) -> dict[Any, Any]:
        async def every() -> list[dict[str, Any]]:
            portions = self.switch.engine.functions.rows(name, table, limit)
            return [row async for some in portions for row in some]

        return {row["key"]: row["value"] for row in self.wait(every())}

    def names(self) -> list[str]:
        return [one["name"] for one in self.switch.call(self.switch.engine.functions.shown)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with RunningSwitch(tmp_path, stepped=True) as switch, ExitStack() as stack:
        yield Lab(switch, tmp_path, stack)


def test_a_chain_of_the_start(lab: Lab) -> None:
    assert lab.start(vm1=(lab.use,)) == []
    lab.connect()
    assert lab.send(5) == 2
    shown = lab.show("vm1/Guard")
    assert (shown["state"], shown["frames"], shown["drops"]) == ("ready", 5, {"over limit": 3})
    assert shown["ports"] == ["vm1"]
    assert shown["parameters"] == {"limit": 2}
    assert lab.switch.port("vm1")["drops"] == {"function": 3}


def test_a_parameter_counts_from_the_next_frame_on(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    lab.connect()
    assert lab.send(3) == 2
    lab.set("vm1/Guard", limit=4)
    assert lab.wanted.has.ports["vm1"].chain == (f"{lab.use}(limit=4)",)
    assert lab.send(3) == 1
    with pytest.raises(ConfigError, match="whole number"):
        lab.set("vm1/Guard", limit="x")
    with pytest.raises(ConfigError, match="no parameter 'limits'"):
        lab.set("vm1/Guard", limits=1)
    lab.chain("vm1", lab.use)  # without the parameter: its default
    assert lab.show("vm1/Guard")["parameters"] == {"limit": 2}
    assert lab.send(1) == 0  # the state is still that


def test_chains_come_and_go_while_a_port_goes_on(lab: Lab) -> None:
    lab.start()
    lab.connect()
    assert lab.send(5) == 5
    lab.chain("vm1", lab.use)
    assert lab.send(5) == 2
    lab.chain("vm1")
    assert lab.send(5) == 5
    assert lab.names() == []
    lab.chain("vm2", tx=(lab.use,))  # what goes out of vm2
    assert lab.send(5) == 2
    assert lab.switch.port("vm2")["state"] == "up"


def test_one_instance_in_several_chains(lab: Lab) -> None:
    limits = FunctionConfig(name="limits", use=lab.use, parameters={"limit": 3})  # type: ignore
    lab.start(limits, network=("limits",), vm1=("limits",))
    lab.connect()
    assert lab.send(2) == 1  # each counts twice
    assert lab.show("limits")["ports"] == ["vm1", "vm2"]
    lab.set("limits", limit=100)
    assert lab.wanted.has.parts.all("function")["limits"].parameters == (("limit", 100),)
    assert lab.send(2) == 2
    lab.wait(lab.wanted.alter_built(without(lab.wanted.has.parts, "limits")))
    assert lab.names() == []
    assert lab.wanted.has.networks["blue"].chain == ()


def test_a_reload_takes_state_and_counters_along(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    lab.connect()
    assert lab.send(3) == 2
    functions = lab.switch.engine.functions
    assert lab.wait(functions.reload()) == []
    lab.file.write_text(GUARD.replace('DROP("over limit")', 'DROP("too many")')
                        .replace("n > self.limit", "n > self.limit + 2"))
    assert lab.wait(functions.reload()) == [lab.use]
    assert lab.send(3) == 1
    shown = lab.show("vm1/Guard")
    assert (shown["frames"], shown["drops"]) == (6, {"too many": 2})
    assert shown["states"]["table"]["entries"] == 1


def test_what_cannot_be_built_changes_nothing(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    lab.connect()
    lab.file.write_text(WRONG)
    with pytest.raises(ConfigError, match=r"guard.py:15"):
        lab.wait(lab.switch.engine.functions.reload())
    with pytest.raises(ConfigError, match=r"guard.py:15"):
        lab.chain("vm2", lab.use)
    with pytest.raises(ConfigError, match="no such file"):
        lab.chain("vm2", str(lab.folder / "none.py"))
    assert lab.send(5) == 2
    assert lab.names() == ["vm1/Guard"]
    lab.file.write_text(GUARD.replace("limit: int", "most: int").replace("self.limit", "self.most"))
    lab.set("vm1/Guard", limit=3)
    with pytest.raises(ConfigError, match="vm1/Guard: there is no parameter 'limit'"):
        lab.wait(lab.switch.engine.functions.reload())


def test_a_port_whose_chain_cannot_be_built_is_not_opened(lab: Lab) -> None:
    lab.file.write_text(WRONG)
    (said,) = lab.start(vm1=(lab.use,))
    assert "guard.py:15" in said
    assert lab.switch.port("vm1")["state"] == "down"
    assert "its chain cannot be built" in lab.switch.port("vm1")["reason"]
    assert lab.show("vm1/Guard")["state"] == "failed"
    assert lab.switch.port("vm2")["state"] == "waiting"
    lab.file.write_text(GUARD)
    assert lab.wait(lab.switch.engine.functions.reload()) == [lab.use]
    lab.connect()
    assert lab.send(5) == 2


def test_tables_and_events(lab: Lab) -> None:
    limits = FunctionConfig(name="limits", use=lab.use, tables={  # type: ignore[arg-type]
        "table": {"10.0.0.9": 2}})
    lab.start(limits, vm1=("limits",))
    lab.connect()
    functions = lab.switch.engine.functions
    heard: list[dict[str, Any]] = []

    async def hear() -> None:
        async for event in functions.events("limits", "noisy"):
            heard.append(event)

    hearing = asyncio.run_coroutine_threadsafe(hear(), lab.switch.loop)
    assert lab.send(1, "10.0.0.9") == 0
    lab.switch.until(lambda: bool(heard))
    assert {**heard[0], "time": 0} == {
        "event": "noisy", "time": 0, "source": "10.0.0.9", "count": 3}
    lab.wait(functions.put("limits", "table", {"10.0.0.8": 7}, whole=False))
    assert lab.rows("limits", "table") == {"10.0.0.8": 7, "10.0.0.9": 3}
    assert lab.wait(functions.remove("limits", "table", "10.0.0.9")) is True
    assert lab.send(1, "10.0.0.9") == 1
    for table, key in (("none", "10.0.0.1"), ("table", "x")):
        with pytest.raises(EngineError, match=f"limits.*{table}"):
            lab.wait(functions.put("limits", table, {key: 1}, whole=False))
    with pytest.raises(EngineError, match='has no event "none"'):
        lab.switch.call(functions.events, "limits", "none")
    lab.chain("vm1")
    lab.wait(lab.wanted.alter_built(Change(remove_functions=["limits"])))
    hearing.result(SECONDS)  # the stream ends with the instance


def test_a_port_that_is_opened_anew_keeps_its_state(lab: Lab) -> None:
    lab.start(vm1=(lab.use,))
    lab.connect()
    assert lab.send(5) == 2
    port = lab.wanted.has.ports["vm1"]
    lab.alter(add_ports=[port.model_copy(update={"queues": 2})])
    assert lab.show("vm1/Guard")["frames"] == 5
    lab.alter(remove_ports=["vm1"])
    assert lab.names() == []


def test_what_each_function_says_of_a_frame(lab: Lab) -> None:
    limits = FunctionConfig(name="limits", use=lab.use, tables={  # type: ignore[arg-type]
        "table": {"10.0.0.9": 2}})
    (lab.folder / "mark.py").write_text("""
from byway import nf


@nf.function
class Mark:
    to: nf.Port = nf.Port("vm2")

    def process(self, frame: nf.Frame) -> nf.Verdict:
        frame.ip_dscp = 10
        return nf.CLONE(self.to)
""")
    lab.start(limits, vm1=(f"{lab.folder}/mark.py", "limits"))
    functions = lab.switch.engine.functions
    where = {"port": 0, "network": 1, "vni": 0}
    number = lab.switch.port("vm2")["index"]
    frame = tcp("10.0.0.9")
    found = lab.wait(functions.trace("vm1", frame, "rx", where))
    assert [(one["name"], one["verdict"], one["reason"], one["changed"], one["copies"])
            for one in found["steps"]] == [
        ("vm1/mark", "clone", "", {"ip_dscp": [None, 10]}, [[number, len(frame)]]),
        ("limits", "drop", "over limit", {}, [])]
    assert bytes.fromhex(found["frame"])[15] == 10 << 2
    assert lab.show("limits")["frames"] == 0  # nothing of the switch saw it
    with pytest.raises(EngineError, match='port "vm2" has no chain for frames that go in'):
        lab.wait(functions.trace("vm2", frame, "rx", where))
    for text, told in ((GUARD + "# edited", "another one than what runs"), (
            "import gone", "guard.py:1: importing it ends with ModuleNotFoundError")):
        lab.file.write_text(text)
        with pytest.raises(EngineError, match=told):
            lab.wait(functions.trace("vm1", frame, "rx", where))


def test_frames_are_watched_on_their_way(lab: Lab) -> None:
    lab.start(vm1=(f"{lab.use}(limit=1)",))
    lab.connect()
    functions = lab.switch.engine.functions
    assert lab.send(1) == 1
    assert lab.wait(functions.watch("vm1", "rx", 2, 0.01)) == []  # what notes is built by now
    watching = asyncio.run_coroutine_threadsafe(
        functions.watch("vm1", "rx", 2, SECONDS), lab.switch.loop)
    lab.switch.until(lambda: bool(functions._traced))
    assert lab.send(1, "10.0.0.2") == 1
    assert lab.send(2) == 0
    found = watching.result(SECONDS)
    assert [[(step["function"], step["verdict"]) for step in one["steps"]] for one in found] == [
        [("vm1/Guard", "pass")], [("vm1/Guard", "drop: over limit")]]
    assert found[0]["headers"]["ipv4_src"] == "10.0.0.2"
    assert lab.show("vm1/Guard")["frames"] == 4
    assert not functions._traced
    assert lab.send(1, "10.0.0.3") == 1


def test_a_builder_that_does_not_work(lab: Lab) -> None:
    lab.switch.engine.functions.library = Library(
        (sys.executable, "-c", "import sys; sys.exit('no room')"))
    (said,) = lab.start(vm1=(lab.use,))
    assert said == (f"{lab.use}: building {lab.use} ended with status 1: no room;"
                    " try `byway nf check` on the files")
    assert lab.switch.port("vm1")["state"] == "down"
    with pytest.raises(EngineError, match="ended with status 1"):
        lab.chain("vm2", lab.use)


def test_a_builder_that_does_not_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_library, "BUILD_SECONDS", 0.05)
    lab.switch.engine.functions.library = Library(
        (sys.executable, "-c", "import time; time.sleep(60)"))
    (said,) = lab.start(vm1=(lab.use,))
    assert "took longer than" in said
