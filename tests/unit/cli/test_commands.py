# SPDX-License-Identifier: Apache-2.0
"""The commands against the real API: what they print, in which form, with which exit status."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from byway import __version__
from byway.cli.main import app
from byway.control.model import VhostUserPort
from tests.unit.control.fake_switch import FakeSwitch

Byway = Callable[..., Result]


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
    """Runs a command with $BYWAY_API set to the switch."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(
            app, words, env={"BYWAY_API": switch.path}, catch_exceptions=False)

    return run


def test_port_list(byway: Byway, switch: FakeSwitch) -> None:
    switch.engine.counters["vm1"] = {
        "state": "up", "reason": "", "rx_frames": 12, "drops": {"runt": 1, "over_mtu": 2}}
    done = byway("port", "list")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "NAME  NETWORK  KIND        STATE    RX FRAMES  TX FRAMES  DROPS  REASON",
        "vm1   blue     vhost-user  up              12          0      3  -",
        "vm2   blue     vhost-user  waiting          0          0      0  no front end yet",
    ]
    assert json.loads(byway("port", "list", "--json").stdout) == switch.engine.ports()


def test_port_show_explains_the_drops(byway: Byway, switch: FakeSwitch) -> None:
    switch.engine.counters["vm1"] = {"drops": {"runt": 1, "of_a_newer_switch": 2}}
    lines = byway("port", "show", "vm1").stdout.splitlines()
    assert lines == [
        "name        vm1",
        "network     blue",
        "kind        vhost-user",
        "state       waiting",
        "reason      no front end yet",
        "peer        /tmp/vm1.sock",
        "mac         -",
        "mtu         1500",
        "queues      1",
        "offered     mrg_rxbuf version_1",
        "acked       -",
        "rx          0 frames, 0 bytes",
        "tx          0 frames, 0 bytes",
        "drops       3",
        "  runt  1  The frame is shorter than an Ethernet header (14 bytes). Look at the sender.",
        "  of_a_newer_switch  2",
    ]
    assert json.loads(byway("port", "show", "vm1", "--json").stdout)["name"] == "vm1"


def test_port_show_explains_features_and_rings(byway: Byway, switch: FakeSwitch) -> None:
    ring = {"format": "packed", "size": 256, "enabled": True}
    switch.engine.counters["vm1"] = {
        "queues_enabled": 1,
        "features": {"offered": ["mrg_rxbuf"], "acked": [],
                     "off": {"csum": "features.off", "host_tso4": "needs csum, which is off"}},
        "rings": [{"index": 0, "way": "tx", **ring, "frames": 7, "bytes": 420, "calls": 2},
                  {"index": 1, "way": "rx", **ring, "enabled": False}],
    }
    lines = byway("port", "show", "vm1").stdout.splitlines()
    first = lines.index("queues      1, 1 enabled")
    assert lines[first:-3] == [
        "queues      1, 1 enabled",
        "offered     mrg_rxbuf",
        "acked       -",
        "off",
        "  csum       features.off",
        "  host_tso4  needs csum, which is off",
        "rings",
        "  RING  WAY  FORMAT  SIZE  ENABLED  FRAMES  BYTES  CALLS",
        "     0  tx   packed   256  yes           7    420      2",
        "     1  rx   packed   256  no            -      -      -",
    ]
    shown = json.loads(byway("port", "show", "vm1", "--json").stdout)
    assert shown["features"]["off"]["csum"] == "features.off"


def test_port_add_passes_its_options_on(byway: Byway, switch: FakeSwitch) -> None:
    done = byway("port", "add", "a", "--network", "blue", "--socket", "/tmp/a.sock",
                 "--queues", "4", "--feature-off", "packed", "--feature-off", "mq")
    assert done.exit_code == 0
    port = switch.wanted.config.ports[-1]
    assert isinstance(port, VhostUserPort)
    assert (port.queues, port.features.off) == (4, ("ring_packed", "mq"))
    done = byway("port", "add", "b", "--network", "blue", "--ifname", "by0", "--netns", "red",
                 "--address", "10.0.0.2/24", "--kind", "null")
    assert done.exit_code == 2
    assert [line.split(":")[2].strip() for line in done.stderr.splitlines()] == [
        "ifname", "netns", "address"]


def test_ports_come_and_go(
    byway: Byway, switch: FakeSwitch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = byway("port", "add", "a", "--network", "blue", "--socket", "a.sock")
    assert (done.exit_code, done.stdout) == (0, "port a is waiting: no front end yet\n")
    assert switch.engine.ports()[-1]["peer"] == str(tmp_path / "a.sock")
    done = byway("port", "add", "b", "--network", "blue", "--kind", "null", "--json")
    assert json.loads(done.stdout)["kind"] == "null"
    assert byway("port", "remove", "a", "b", "a").exit_code == 0
    assert len(switch.engine.ports()) == 2


def test_networks_come_and_go(byway: Byway) -> None:
    done = byway("network", "add", "red", "--vni", "7", "--mtu", "9000")
    assert (done.exit_code, done.stdout) == (0, "network red is there, mtu 9000\n")
    assert byway("network", "list").stdout.splitlines() == [
        "NAME  VNI   MTU  PORTS  FDB ENTRIES  FDB LIMIT",
        "blue    -  1500      2            0       8192",
        "red     7  9000      0            0       8192",
    ]
    assert len(json.loads(byway("network", "list", "--json").stdout)) == 2
    assert json.loads(byway("network", "add", "red", "--json").stdout)["mtu"] == 1500
    assert byway("network", "remove", "red").exit_code == 0


def test_fdb_list(byway: Byway, switch: FakeSwitch) -> None:
    switch.engine.learned = [
        {"network": "blue", "mac": "02:00:00:00:00:01", "port": "vm1", "age": 1.6}]
    assert byway("fdb", "list", "--network", "blue").stdout.splitlines() == [
        "NETWORK  MAC                PORT  AGE (S)",
        "blue     02:00:00:00:00:01  vm1         2",
    ]
    assert json.loads(byway("fdb", "list", "--json").stdout) == switch.engine.learned


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("port", "show", "vm"), 1, 'byway: there is no port "vm"; did you mean "vm2"?\n'),
        (("port", "remove", "x"), 1, 'byway: there is no port "x"; the ports are: vm1, vm2\n'),
        (("network", "remove", "blue"), 1,
         'byway: network "blue" has ports: vm1, vm2; remove the ports first\n'),
        (("port", "add", "a", "--network", "blu", "--kind", "null"), 2,
         'byway: port "a": network: there is no network "blu"; did you mean "blue"?\n'),
        (("network", "add", "n", "--mtu", "1"), 2,
         'byway: network "n": mtu: is 1; write 68 or more\n'),
        (("port", "list", "--api", "/nowhere/api.sock"), 1,
         "byway: no switch answers at /nowhere/api.sock ([Errno 2] No such file or directory);"
         " start one with: byway run FILE\n"),
    ],
)
def test_what_is_refused(
    byway: Byway, words: tuple[str, ...], status: int, message: str
) -> None:
    done = byway(*words)
    assert (done.exit_code, done.stderr, done.stdout) == (status, message, "")


@pytest.mark.parametrize(
    "words", [("port", "add"), ("port", "list", "--jsn"), ("nothing",), ("top", "--interval", "0")])
def test_a_wrong_call_ends_with_status_2(byway: Byway, words: tuple[str, ...]) -> None:
    done = byway(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr


def test_run_of_a_bad_file(byway: Byway, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = byway("run", str(tmp_path / "none.toml"))
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path}/none.toml: there is no such file; check the path\n"


def test_top_once(byway: Byway) -> None:
    done = byway("top", "--once", "--interval", "0.1")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("PORT  NETWORK  STATE    RX FRAMES/S")
    (line,) = byway("top", "--once", "--interval", "0.1", "--json").stdout.splitlines()
    assert [port["name"] for port in json.loads(line)["ports"]] == ["vm1", "vm2"]


def test_doctor_looks_at_this_machine(byway: Byway) -> None:
    done = byway("doctor")
    assert done.exit_code == 0
    assert "Byway works here" in done.stdout
    facts = json.loads(byway("doctor", "--json").stdout)
    assert {fact["state"] for fact in facts} <= {"ok", "missing", "info", "broken"}


def test_version_and_help(byway: Byway) -> None:
    assert byway("--version").stdout == f"byway {__version__}\n"
    words = byway("--help").stdout.split()
    assert {"run", "port", "network", "fdb", "top", "doctor"} <= set(words)


def test_port_show_a_snippet(byway: Byway, switch: FakeSwitch) -> None:
    text = byway("port", "show", "vm1", "--snippet", "qemu").stdout
    assert "-netdev vhost-user,id=n-vm1,chardev=c-vm1" in text
    made = json.loads(byway("port", "show", "vm1", "--snippet", "cni", "--json").stdout)
    assert (made["port"], made["for"]) == ("vm1", "cni")
    assert json.loads(made["text"])["plugins"][0]["api"] == switch.path


def test_there_is_no_snippet_for_every_kind(byway: Byway) -> None:
    byway("port", "add", "tape", "--network", "blue", "--kind", "null")
    done = byway("port", "show", "tape", "--snippet", "libvirt")
    assert done.exit_code == 2
    assert 'byway: port "tape" is of kind null, and libvirt connects to vhost-user' in done.stderr
