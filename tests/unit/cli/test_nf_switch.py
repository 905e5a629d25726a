# SPDX-License-Identifier: Apache-2.0
"""The commands and the client of network functions in a running switch."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from byway.cli.main import app
from byway.client import Client, ClientError
from byway.control.model import FunctionConfig
from byway.packet.pcapfile import write_frame, write_header
from tests.unit.control.fake_switch import FakeSwitch

Byway = Callable[..., Result]
HERE = os.getcwd()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSwitch]:
    switch = FakeSwitch(tmp_path_factory.mktemp("switch") / "api.sock")
    yield switch
    switch.close()


@pytest.fixture
def switch(shared: FakeSwitch) -> FakeSwitch:
    shared.renew()
    return shared


@pytest.fixture
def byway(switch: FakeSwitch) -> Byway:
    """Runs a command with $BYWAY_API set to the switch; it has to end with `status`."""

    def run(*words: str, status: int = 0) -> Result:
        done = CliRunner().invoke(
            app, ("nf", *words), env={"BYWAY_API": switch.path}, catch_exceptions=False)
        assert done.exit_code == status, done.stderr
        return done

    return run


def test_a_function_comes_and_goes(byway: Byway, switch: FakeSwitch) -> None:
    done = byway("add", "guard.py:Guard(limit=5)", "--port", "vm1")
    assert done.stdout == "vm1/Guard is ready in the way of vm1\n"
    assert switch.wanted.has.ports["vm1"].chain == (f"{HERE}/guard.py:Guard(limit=5)",)
    byway("add", "byway.acl", "--port", "vm1", "--first")
    byway("add", "byway.acl", "--port", "vm1", "--tx")
    byway("add", "byway.tap", "--network", "blue")
    assert byway("list").stdout.splitlines()[:2] == [
        "NAME          FUNCTION  STATE  FRAMES  DROPS  FAULTS  PORTS    PARAMETERS",
        "vm1/acl       acl       ready       7      2       0  vm1      limit=100"]
    assert len(json.loads(byway("list", "--json").stdout)) == 4
    assert byway("remove", "vm1/Guard").stdout == "vm1/Guard is gone\n"
    assert switch.wanted.has.ports["vm1"].chain == ("byway.acl",)
    assert 'there is no network function "vm1/Guard"' in byway(
        "remove", "vm1/Guard", status=1).stderr


def test_one_with_a_name(byway: Byway, switch: FakeSwitch) -> None:
    done = byway("add", "guard.py", "--name", "limits", "--set", "limit=7", "--set", "mode=all",
                 "--port", "vm1")
    assert done.stdout == "limits is ready in the way of vm1\n"
    assert switch.wanted.has.ports["vm1"].chain == ("limits",)
    assert byway("set", "limits", "limit=8", "mode=no").stdout == "limits  limit=8 mode=no\n"
    assert byway("add", "limits", "--port", "vm2").stdout == (
        "limits is ready in the way of vm1 vm2\n")
    shown = byway("show", "limits").stdout.splitlines()
    assert "ports       vm1 vm2" in shown
    assert "  limit  8" in shown
    assert "  over limit  2" in shown
    assert json.loads(byway("show", "limits", "--json").stdout)["name"] == "limits"
    assert byway("reload").stdout == f"{HERE}/guard.py is new\n"
    assert json.loads(byway("reload", "limits", "--json").stdout) == [f"{HERE}/guard.py"]


def test_what_is_refused_leaves_nothing_behind(byway: Byway, switch: FakeSwitch) -> None:
    assert 'there is no port "nope"' in byway(
        "add", "guard.py", "--name", "n1", "--port", "nope", status=1).stderr
    assert switch.wanted.has.parts.all("function") == {}


def test_parameters_of_one_with_a_name(byway: Byway, switch: FakeSwitch) -> None:
    byway("add", "guard.py(limit=5, mode='all')", "--name", "limits", "--set", "limit=7")
    limits = switch.wanted.has.parts.all("function")["limits"]
    assert dict(limits.parameters) == {"limit": 7, "mode": "all"}  # type: ignore[union-attr]
    said = byway("add", "guard.py", "--port", "vm1", "--set", "limit=7", status=2).stderr
    assert "goes with --name" in said


def test_what_is_added_is_told_in_every_case(byway: Byway, switch: FakeSwitch) -> None:
    with Client(switch.path) as client:
        client.add_network({"name": "red"})
    assert byway("add", "guard.py", "--network", "red").stdout == (
        "network red has no ports yet: the function will be in their way\n")
    assert byway("add", "guard.py", "--network", "blue").stdout == (
        "net:blue/guard is ready in the way of vm1 vm2\n")
    assert byway("add", "guard.py", "--name", "limits").stdout == "limits is ready\n"
    assert json.loads(byway("add", "limits", "--port", "vm1", "--json").stdout)[0]["ports"] == [
        "vm1"]


def test_one_that_comes_before_another_of_its_kind(byway: Byway) -> None:
    byway("add", "guard.py:Guard(limit=9)", "--port", "vm1")
    (row,) = json.loads(byway("add", "guard.py:Guard(limit=1)", "--port", "vm1", "--first",
                              "--json").stdout)
    assert (row["name"], row["parameters"]["limit"]) == ("vm1/Guard", 1)


def test_wrong_calls(byway: Byway, switch: FakeSwitch) -> None:
    byway("add", "guard.py", status=2)
    byway("add", "guard.py", "--port", "vm1", "--network", "blue", status=2)
    byway("add", "guard.py", "--network", "blue", "--tx", status=2)
    assert "is no network function" in byway("add", "a b", "--port", "vm1", status=2).stderr
    switch.engine.functions.broken.add(f"{HERE}/guard.py")
    assert "guard.py:7: a list cannot be" in byway(
        "add", "guard.py", "--port", "vm1", status=2).stderr
    byway("show", "none", status=1)
    byway("set", "none", "limit", status=2)
    byway("put", "none", "table", "limit", status=2)


def test_tables(byway: Byway) -> None:
    byway("add", "guard.py", "--name", "limits")
    byway("put", "limits", "table", "10.0.0.1=7", '10.0.0.2={"n": 1, "to": "vm1"}', "x=y")
    byway("put", "limits", "table", "x=")
    assert byway("table", "limits", "table").stdout.splitlines() == [
        "KEY       VALUE", "10.0.0.1  7", "10.0.0.2  n=1 to=vm1"]
    few = byway("table", "limits", "table", "--limit", "1")
    assert few.stdout.splitlines() == ["KEY       VALUE", "10.0.0.1  7"]
    assert "these are 1, and there may be more" in few.stderr
    byway("put", "limits", "table", "x=", status=1)
    whole = byway("table", "limits", "table", "--limit", "1", "--json")
    assert json.loads(whole.stdout) == {"10.0.0.1": 7}
    assert "these are 1, and there may be more" in whole.stderr


def test_what_is_removed_and_what_is_put(byway: Byway, switch: FakeSwitch) -> None:
    byway("add", "guard.py", "--name", "limits")
    byway("put", "limits", "table", "a=1", "b=2", "c=3")
    tables = switch.engine.functions.tables
    byway("put", "limits", "table", "d=4", "none=", status=2)
    assert tables["limits", "table"] == {"a": 1, "b": 2, "c": 3}
    assert 'has no entry "none"' in byway(
        "put", "limits", "table", "a=", "none=", "b=", status=1).stderr
    assert tables["limits", "table"] == {"c": 3}


def test_a_table_that_is_shown_can_be_given_back(byway: Byway, switch: FakeSwitch,
                                                 tmp_path: Path) -> None:
    byway("add", "guard.py", "--name", "limits")
    byway("put", "limits", "table", "10.0.0.1=7", "10.0.0.2=8")
    file = tmp_path / "rows.json"
    file.write_text(byway("table", "limits", "table", "--json").stdout)
    assert json.loads(file.read_text()) == {"10.0.0.1": 7, "10.0.0.2": 8}
    FunctionConfig(name="limits", use="byway.acl", tables={  # type: ignore[arg-type]
        "table": json.loads(file.read_text())})
    tables = switch.engine.functions.tables
    byway("put", "limits", "table", "10.0.0.1=9", "10.0.0.3=9")
    byway("put", "limits", "table", "--file", str(file))
    assert tables["limits", "table"] == {"10.0.0.1": 7, "10.0.0.2": 8, "10.0.0.3": 9}
    byway("put", "limits", "table", "--file", str(file), "--whole")
    assert tables["limits", "table"] == {"10.0.0.1": 7, "10.0.0.2": 8}
    file.write_text("{}")
    byway("put", "limits", "table", "--file", str(file), "--whole")
    assert tables["limits", "table"] == {}


@pytest.mark.parametrize(("written", "why"), [
    ("{", "this is no JSON"), ("7", 'write {"KEY": VALUE, ...}'), (None, "No such file")])
def test_a_file_of_rows_that_is_none(byway: Byway, tmp_path: Path, written: str | None,
                                     why: str) -> None:
    file = tmp_path / "rows.json"
    if written:
        file.write_text(written)
    said = byway("put", "limits", "table", "--file", str(file), status=2).stderr
    assert why in " ".join(said.replace("│", " ").split())
    byway("put", "limits", "table", status=2)
    byway("put", "limits", "table", "a=1", "--whole", status=2)
    byway("put", "limits", "table", "a=1", "--file", str(file), status=2)


def test_events(byway: Byway, switch: FakeSwitch) -> None:
    byway("add", "guard.py", "--name", "limits")
    switch.engine.functions.emitted["limits"] = [{"count": 1}, {"count": 2}]
    assert byway("events", "limits").stdout.splitlines() == [
        '{"event": "seen", "count": 1}', '{"event": "seen", "count": 2}']
    assert byway("events", "limits", "noisy", "--count", "1").stdout.splitlines() == [
        '{"event": "noisy", "count": 1}']
    byway("events", "none", status=1)


def test_a_trace(byway: Byway, tmp_path: Path) -> None:
    byway("add", "byway.acl", "--port", "vm1")
    assert byway("trace", "vm1", "--frame", "ff" * 14).stdout.splitlines() == [
        "vm1/acl: pass", "  ip_ttl  64 -> 63", "ff" * 14]
    capture = tmp_path / "frames.pcap"
    with capture.open("wb") as file:
        write_header(file)
        write_frame(file, b"\1" * 60, 0.0)
    done = byway("trace", "vm1", "--pcap", str(capture), "--tx", "--json")
    assert json.loads(done.stdout)["frame"] == "01" * 60
    for wrong in ((), ("--frame", "x"), ("--pcap", str(tmp_path / "none")),
                  ("--pcap", str(capture), "--number", "2"),
                  ("--pcap", str(capture), "--frame", "ff")):
        byway("trace", "vm1", *wrong, status=2)


def test_frames_on_their_way(byway: Byway) -> None:
    done = byway("trace", "vm1", "--frames", "2", "--tx")
    assert done.stdout.splitlines() == [
        "60 bytes  eth_type=0x0800", "  vm1/Guard: pass", "    ip_ttl  64 -> 63"]
    assert byway("trace", "vm1", "--frames", "1", "--seconds", "0.5").stdout == \
        "no frame came within 0.5 seconds\n"
    assert len(json.loads(byway("trace", "vm1", "--frames", "3", "--json").stdout)) == 2
    byway("trace", "none", "--frames", "1", status=1)


def test_the_client(switch: FakeSwitch) -> None:
    with Client(switch.path) as client:
        assert client.set_chain("port", "vm1", chain=["byway.acl"])["chain"] == ["byway.acl"]
        assert client.chain("network", "blue") == {"chain": []}
        client.put_function_table("vm1/acl", "table", {"a": 1, "b": 2})
        client.put_function_table("vm1/acl", "table", ["x"], whole=True)
        assert client.function_table("vm1/acl", "table") == [{"key": 0, "value": "x"}]
        client.remove_function_entry("vm1/acl", "table")
        assert client.function_table("vm1/acl", "table") == []
        with pytest.raises(ClientError, match="no network function"):
            next(client.function_events("none"))
