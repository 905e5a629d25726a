# SPDX-License-Identifier: Apache-2.0
"""Configuration files: what a right one means, and the exact message of each wrong one."""

import os
import socket
from pathlib import Path

import pytest

from byway.control import model
from byway.control.config import load, parse
from byway.control.fitting import cross_check
from byway.control.model import Config, NullPort, PcapPort, VhostUserPort, VirtioUserPort
from byway.control.problem import ConfigError
from byway.control.thishost import api_socket, check_machine
from byway.machine.cpulist import format_cpu_list, online_cpus

ROOT = Path(__file__).parents[3]
KINDS = ", ".join(model.KINDS)
BLUE = '[[network]]\nname = "blue"\n'
LONG = "/tmp/" + "x" * 103


def vhost(name: str = "vm1", **keys: str) -> str:
    """A [[port]] section; a value is written as TOML, '' leaves the key out."""
    fields = {"name": f'"{name}"', "network": '"blue"', "kind": '"vhost-user"',
              "socket": f'"/tmp/{name}.sock"', **keys}
    return "[[port]]\n" + "".join(f"{k} = {v}\n" for k, v in fields.items() if v)


def messages(text: str) -> list[str]:
    """What is wrong with a file, without its name."""
    path = Path("lab.toml")
    path.write_text(text)
    try:
        raise ConfigError(check_machine(load("lab.toml")), "lab.toml")
    except ConfigError as error:
        return [str(problem).removeprefix("lab.toml: ") for problem in error.problems]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")


def test_the_example_of_the_manual() -> None:
    lab = load(str(ROOT / "examples" / "lab.toml"))
    assert lab.switch.name == "lab"
    assert lab.switch.workers == (0,)
    assert [network.name for network in lab.networks] == ["blue"]
    assert [(p.name, p.kind, p.mac) for p in lab.ports] == [
        ("vm1", "vhost-user", None), ("vm2", "vhost-user", None)]
    assert check_machine(lab) == []


def test_every_key_and_every_kind() -> None:
    everything = parse({
        "switch": {"name": "lab", "workers": [0, 1], "api": "/tmp/api.sock"},
        "network": [{"name": "blue", "vni": 100, "mtu": 9000, "fdb_limit": 10, "ageing": 60}],
        "port": [
            {"name": "a", "network": "blue", "kind": "vhost-user", "socket": "/tmp/a",
             "mode": "client", "mac": "02:00:00:00:00:0A", "queues": 32,
             "features": {"off": ["mrg_rxbuf", "packed"]}},
            {"name": "b", "network": "blue", "kind": "virtio-user", "socket": "/tmp/b"},
            {"name": "c", "network": "blue", "kind": "null"},
            {"name": "d", "network": "blue", "kind": "pcap", "read": "in", "write": "out"},
        ],
    })
    a, b, c, d = everything.ports
    assert isinstance(a, VhostUserPort)
    assert (a.mode, a.mac, a.features_off) == (
        "client", "02:00:00:00:00:0a", ("mrg_rxbuf", "ring_packed"))
    assert isinstance(b, VirtioUserPort)
    assert b.mode == "client"
    assert isinstance(c, NullPort)
    assert isinstance(d, PcapPort)
    assert (everything.networks[0].vni, everything.networks[0].mtu) == (100, 9000)


def test_an_empty_file_is_a_switch_without_ports() -> None:
    assert parse({}) == Config()
    assert api_socket(parse({}).switch) == "/tmp/byway/byway.sock"


BAD_FILES: dict[str, tuple[str, list[str]]] = {
    "unknown section": (
        "[[ports]]\n", ['"ports": there is no such section; did you mean "port"?']),
    "far section": (
        "[qqq]\n",
        ['"qqq": there is no such section; the sections are: [switch], [cluster], [underlay],'
         ' [[network]], [[host]], [[entry]], [[router]], [[security_group]], [[function]],'
         ' [[service]],'
         ' [[port]]']),
    "unknown key": (
        BLUE + vhost(soket='"/tmp/x"'),
        ['port[1] "vm1": soket: a vhost-user port has no such key; did you mean "socket"?']),
    "far key": (
        BLUE + '[[port]]\nname = "n"\nnetwork = "blue"\nkind = "null"\nqqq = 1\n',
        ['port[1] "n": qqq: a null port has no such key;'
         " the keys are: name, network, mac, ips, allowed_address_pairs, port_security, trusted,"
         " security_groups, limit, vlans, mirror, chain, chain_tx, services, queues,"
         " kind"]),
    "unknown key of the switch": (
        "[switch]\nworker = [0]\n",
        ['switch: worker: the switch has no such key; did you mean "workers"?']),
    "wrong type": (
        '[[network]]\nname = "blue"\nmtu = "1500"\n',
        ['network[1] "blue": mtu: is "1500" (a string); write a whole number']),
    "boolean for a number": (
        '[[network]]\nname = "blue"\nvni = true\n',
        ['network[1] "blue": vni: is true (a boolean); write a whole number']),
    "number for a string": (
        BLUE + vhost(socket="3"),
        ['port[1] "vm1": socket: is 3 (a whole number); write a string in double quotes']),
    "number for a list": (
        "[switch]\nworkers = 2\n",
        ["switch: workers: is 2 (a whole number); write a list in square brackets"]),
    "port is no list": (
        "port = 3\n",
        ["port: is a whole number, not a list of tables; begin each port with a line [[port]]"]),
    "port is one table": (
        '[port]\nname = "vm1"\n',
        ["port: is a table, not a list of tables; begin each port with a line [[port]]"]),
    "port is a list of numbers": (
        "port = [1]\n", ["port[1]: is a whole number, not a table;"
                         " write its keys under a line [[port]]"]),
    "network is a list of numbers": (
        "network = [1]\n",
        ["network[1]: is a whole number, not a table; write the keys of a network in it"]),
    "switch is a list": (
        "switch = []\n", ["switch: is a list, not a table; write the keys of the switch in it"]),
    "missing name": (
        "[[network]]\n", ['network[1]: name: is missing; add one, such as name = "blue"']),
    "missing kind": (
        BLUE + vhost(kind=""), [f'port[1] "vm1": kind: is missing; add one of: {KINDS}']),
    "missing socket": (
        BLUE + vhost(socket=""),
        ['port[1] "vm1": socket: is missing; add the path of a Unix socket,'
         ' such as socket = "/tmp/vm1.sock"']),
    "later kind": (
        BLUE + '[[port]]\nname = "c1"\nkind = "physical"\nnetwork = "blue"\nifname = "c1"\n',
        [f"port[1] \"c1\": kind 'physical' is not in this release; kinds: {KINDS}"]),
    "mistyped kind": (
        BLUE + vhost(kind='"vhostuser"'),
        [f'port[1] "vm1": kind: "vhostuser" is no kind of port;'
         f' did you mean "vhost-user"? kinds: {KINDS}']),
    "kind is a number": (
        BLUE + vhost(kind="1"), [f'port[1] "vm1": kind: 1 is no kind of port; kinds: {KINDS}']),
    "unknown network": (
        BLUE + vhost(network='"bleu"'),
        ['port[1] "vm1": network: there is no network "bleu"; did you mean "blue"?']),
    "far network": (
        BLUE + vhost(network='"red"'),
        ['port[1] "vm1": network: there is no network "red"; the networks are: blue']),
    "no network at all": (
        vhost(), ['port[1] "vm1": network: there is no network "blue";'
                  " define one with a line [[network]] and its name"]),
    "two ports of one name": (
        BLUE + vhost() + vhost(socket='"/tmp/other.sock"'),
        ['port[2] "vm1": name: "vm1" is also that of port[1] "vm1": name; give it another name']),
    "two networks of one name": (
        BLUE + BLUE, ['network[2] "blue": name: "blue" is also that of network[1] "blue": name;'
                      " give it another name"]),
    "two networks of one vni": (
        BLUE + 'vni = 7\n[[network]]\nname = "red"\nvni = 7\n',
        ['network[2] "red": vni: 7 is also that of network[1] "blue": vni; give it another vni']),
    "two ports on one socket": (
        BLUE + vhost() + vhost("vm2", socket='"/tmp/../tmp/vm1.sock"'),
        ['port[2] "vm2": socket: "/tmp/vm1.sock" is also that of port[1] "vm1": socket;'
         " give each a path of its own"]),
    "a port on the socket of the API": (
        '[switch]\napi = "/tmp/vm1.sock"\n' + BLUE + vhost(),
        ['port[1] "vm1": socket: "/tmp/vm1.sock" is also that of switch: api;'
         " give each a path of its own"]),
    "socket path too long": (
        BLUE + vhost(socket=f'"{LONG}"'),
        ['port[1] "vm1": socket: is 108 bytes long, but the path of a Unix socket has at most 107;'
         " choose a shorter path"]),
    "empty socket path": (
        BLUE + vhost(socket='""'),
        ['port[1] "vm1": socket: is empty; write the path of a file']),
    "NUL in a path": (
        BLUE + vhost(socket='"/tmp/\\u0000"'),
        ['port[1] "vm1": socket: contains a NUL byte; write the path of a file']),
    "file that is no socket": (
        BLUE + vhost(socket='"lab.toml"'),
        ['port[1] "vm1": socket: lab.toml exists and is no socket;'
         " remove it or choose another path"]),
    "client at a file that is no socket": (
        BLUE + vhost(mode='"client"', socket='"lab.toml"'),
        ['port[1] "vm1": socket: lab.toml exists and is no socket;'
         " remove it or choose another path"]),
    "missing directory": (
        BLUE + vhost(socket='"/nowhere/vm1.sock"'),
        ['port[1] "vm1": socket: there is no directory /nowhere;'
         " create it or choose another path"]),
    "missing directory of the API": (
        '[switch]\napi = "/nowhere/api.sock"\n',
        ["switch: api: there is no directory /nowhere; create it or choose another path"]),
    "bad mode": (
        BLUE + vhost(mode='"listen"'),
        ['port[1] "vm1": mode: is "listen"; write "server" or "client"']),
    "bad MAC": (
        BLUE + vhost(mac='"02-00-00-00-00-01"'),
        ['port[1] "vm1": mac: "02-00-00-00-00-01" is no MAC address;'
         ' write six bytes in hexadecimal, such as "02:00:00:00:00:01"']),
    "group MAC": (
        BLUE + vhost(mac='"ff:ff:ff:ff:ff:ff"'),
        ['port[1] "vm1": mac: "ff:ff:ff:ff:ff:ff" is a group address;'
         " take a unicast one: its first byte is even"]),
    "zero MAC": (
        BLUE + vhost(mac='"00:00:00:00:00:00"'),
        ['port[1] "vm1": mac: "00:00:00:00:00:00" is the zero address;'
         ' write six bytes in hexadecimal, such as "02:00:00:00:00:01"']),
    "too many queues": (
        BLUE + vhost(queues="33"), ['port[1] "vm1": queues: is 33; write 32 or less']),
    "no queue": (
        BLUE + vhost(queues="0"), ['port[1] "vm1": queues: is 0; write 1 or more']),
    "several queues where there is one": (
        BLUE + '[[port]]\nname = "n"\nnetwork = "blue"\nkind = "null"\nqueues = 2\n',
        ['port[1] "n": queues: is 2; write 1: this kind of port has one queue pair']),
    "unknown feature": (
        BLUE + vhost(**{"features.off": '["packet"]'}),
        ['port[1] "vm1": features.off: "packet" is no virtio feature; did you mean "packed"?']),
    "feature in capitals": (
        BLUE + vhost(**{"features.off": '["CSUM"]'}),
        ['port[1] "vm1": features.off: "CSUM" is no virtio feature; did you mean "csum"?']),
    "far feature": (
        BLUE + vhost(**{"features.off": '["qqq"]'}),
        ['port[1] "vm1": features.off: "qqq" is no virtio feature;'
         ' take names such as "mrg_rxbuf" and "packed"']),
    "unknown key of features": (
        BLUE + vhost(**{"features.of": '["packed"]'}),
        ['port[1] "vm1": features.of: features has no such key; did you mean "off"?']),
    "far key of features": (
        BLUE + vhost(**{"features.qqq": "1"}),
        ['port[1] "vm1": features.qqq: features has no such key; the keys are: off']),
    "features are no table": (
        BLUE + vhost(features='["packed"]'),
        ['port[1] "vm1": features: is ["packed"] (a list); write a table of keys']),
    "bad name": (
        '[[network]]\nname = "a b"\n',
        ['network[1] "a b": name: "a b" is no valid name; use 1 to 63 letters, digits,'
         " '_', '.' and '-', beginning with a letter or digit"]),
    "mtu too small": (
        '[[network]]\nname = "blue"\nmtu = 67\n',
        ['network[1] "blue": mtu: is 67; write 68 or more']),
    "mtu too large": (
        '[[network]]\nname = "blue"\nmtu = 9217\n',
        ['network[1] "blue": mtu: is 9217; write 9216 or less']),
    "no worker": (
        "[switch]\nworkers = []\n",
        ["switch: workers: is empty; name at least one CPU, or leave the key out for one worker"]),
    "two workers on one CPU": (
        "[switch]\nworkers = [0, 0]\n",
        ["switch: workers: names CPU 0 twice; give each worker a CPU of its own"]),
    "negative CPU": (
        "[switch]\nworkers = [-1]\n", ["switch: workers[1]: is -1; write 0 or more"]),
    "CPU that does not exist": (
        "[switch]\nworkers = [4095]\n",
        ["switch: workers[1]: CPU 4095 does not exist;"
         f" the CPUs on line are: {format_cpu_list(online_cpus())}"]),
    "pcap without files": (
        BLUE + '[[port]]\nname = "p"\nnetwork = "blue"\nkind = "pcap"\n',
        ['port[1] "p": has neither read nor write; name a file in at least one of the two']),
    "pcap file that is missing": (
        BLUE + '[[port]]\nname = "p"\nnetwork = "blue"\nkind = "pcap"\nread = "in.pcap"\n',
        ['port[1] "p": read: there is no file in.pcap; check the path']),
    "pcap files that are directories": (
        BLUE + '[[port]]\nname = "p"\nnetwork = "blue"\nkind = "pcap"\n'
               'read = "/tmp"\nwrite = "/tmp"\n',
        ['port[1] "p": read: /tmp is a directory; name a pcap file',
         'port[1] "p": write: /tmp is a directory; name a file']),
    "pcap directory that is missing": (
        BLUE + '[[port]]\nname = "p"\nnetwork = "blue"\nkind = "pcap"\n'
               'write = "/nowhere/out"\n',
        ['port[1] "p": write: there is no directory /nowhere; create it or choose another path']),
    "two ports that write one file": (
        BLUE + "".join(f'[[port]]\nname = "{n}"\nnetwork = "blue"\nkind = "pcap"\n'
                       'write = "/tmp/out"\n' for n in "ab"),
        ['port[2] "b": write: "/tmp/out" is also that of port[1] "a": write;'
         " give each a path of its own"]),
    "a broken network still counts as there": (
        BLUE + "mtu = 1\n" + vhost(), ['network[1] "blue": mtu: is 1; write 68 or more']),
    "several problems": (
        '[switch]\nname = ""\n' + BLUE + "mtu = 1\n" + vhost(network='"red"'),
        ['switch: name: "" is no valid name; use 1 to 63 letters, digits,'
         " '_', '.' and '-', beginning with a letter or digit",
         'network[1] "blue": mtu: is 1; write 68 or more',
         'port[1] "vm1": network: there is no network "red"; the networks are: blue']),
    "no TOML": (
        "[switch\n",
        ["is not valid TOML: Expected ']' at the end of a table declaration"
         " (at line 1, column 8); mend that place"]),
    "a key twice": (
        "[switch]\nname = 1\nname = 2\n",
        ["is not valid TOML: Cannot overwrite a value (at line 3, column 9); mend that place"]),
}


@pytest.mark.parametrize(("text", "expected"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_a_bad_file_is_explained(text: str, expected: list[str]) -> None:
    assert messages(text) == expected


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "1" * 5000])
def test_absurd_toml_is_refused_in_one_line(text: str) -> None:
    (message,) = messages(text)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.toml", "none.toml: there is no such file; check the path"),
        ("folder", "folder: is a directory; name a TOML file"),
        ("latin.toml", "latin.toml: byte 10 is not UTF-8; save the file as UTF-8 text"),
        ("a" * 300, f"{'a' * 300}: cannot be read (File name too long);"
                    " check the file and its mode"),
        ("a\0b", "a\0b: cannot be read (embedded null byte); check the path and the values"),
    ],
)
def test_a_file_that_cannot_be_read(path: str, message: str) -> None:
    Path("folder").mkdir()
    Path("latin.toml").write_bytes(b"# comment \xe9\n"[1:])
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == message


def test_a_default_socket_may_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/" + "x" * 100)
    (problem,) = check_machine(parse({"switch": {"name": "lab"}}))
    assert problem.key == "switch: api"
    assert problem.fix == "set api to a shorter path"


def test_a_message_names_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^sub/lab\.toml: port: is a whole number, not a list"):
        parse({"port": 3}, "sub/lab.toml")


def test_a_socket_that_is_there_is_no_problem(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("vm1.sock")
        assert messages(BLUE + vhost(socket=f'"{os.path.relpath("vm1.sock")}"')) == []


def test_states_from_the_api_are_named_without_numbers() -> None:
    state = Config(ports=(NullPort(name="n", network="blue", kind="null"),))
    assert [str(problem) for problem in cross_check(state)] == [
        'port "n": network: there is no network "blue";'
        " define one with a line [[network]] and its name"]
