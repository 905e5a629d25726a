# SPDX-License-Identifier: Apache-2.0
"""byway-cni under bad input: every answer is an error of the specification, and nothing is left.

The environment missing, configurations of all sorts, namespaces that are none, an IPAM plugin or an
API that answers nonsense; and death: killed before each of its writes, also those to the switch's
socket, an ADD leaves nothing that DEL or GC does not remove.
"""

import io
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.ipam import Pools
from byway_cni import main
from byway_cni.addresses import read_ranges
from byway_cni.call import read_call, read_config
from byway_cni.problem import CniError
from byway_cni.result import attached, read_lease
from byway_cni.settings import read_settings
from tests.cni_lab import FakeLab, fake_lab, interfaces
from tests.cni_runtime import PluginError
from tests.killing import SENDS, WRITES, run_killed


@pytest.fixture
def lab() -> Iterator[FakeLab]:
    with fake_lab() as made:
        yield made


def code(lab: FakeLab, config: Any, verb: str = "ADD", container: str = "c1", netns: str = "/x",
         ifname: str = "eth0", arguments: str = "") -> int:
    """The code of the error that a call ends with."""
    outcome = lab.runtime().call(verb, config, container, netns, ifname, arguments)
    assert outcome.status == 1
    assert outcome.answer
    assert outcome.answer["cniVersion"] == "1.1.0"
    assert "Traceback" not in outcome.log
    return int(outcome.answer["code"])


def config(lab: FakeLab, **keys: Any) -> dict[str, Any]:
    """The plugin's configuration."""
    return {"cniVersion": "1.1.0", "name": "net", **lab.plugin(), **keys}


@pytest.mark.parametrize("data", [
    b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"a": 1}garbage', b"[" * 100_000,
    b"{" + b" " * (5 << 20) + b"}"], ids=lambda data: str(data[:12]))
def test_what_is_no_json(lab: FakeLab, data: bytes) -> None:
    assert code(lab, data) == 6


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_variables_that_are_missing(lab: FakeLab, verb: str) -> None:
    assert code(lab, config(lab), verb, container="") == 4
    assert code(lab, config(lab), verb, ifname="") == 4
    if verb != "DEL":
        assert code(lab, config(lab), verb, netns="") == 4
    outcome = lab.runtime().call(verb, config(lab))
    assert outcome.answer
    assert "CNI_CONTAINERID" in outcome.answer["msg"]
    assert "CNI_IFNAME" in outcome.answer["msg"]


def test_a_verb_that_there_is_not(lab: FakeLab) -> None:
    assert code(lab, config(lab), "UPDATE") == 4
    assert code(lab, config(lab), "add") == 4


def test_started_by_a_person(lab: FakeLab) -> None:
    outcome = lab.runtime().call("", config(lab))
    assert (outcome.status, outcome.answer) == (0, None)
    assert "1.1.0" in outcome.log


@pytest.mark.parametrize("ifname", ["x" * 16, ".", "..", "a/b", "a:b", "a b", "a%d",
                                    "\N{EURO SIGN}" * 6])
def test_names_that_no_interface_has(lab: FakeLab, ifname: str) -> None:
    assert code(lab, config(lab), ifname=ifname) == 4


@pytest.mark.parametrize("container", ["-c", ".", "a/b", "a b", "c" * 201, "c\n"])
def test_names_that_no_container_has(lab: FakeLab, container: str) -> None:
    assert code(lab, config(lab), container=container) == 4


def test_arguments_that_are_none(lab: FakeLab) -> None:
    assert code(lab, config(lab), arguments="IP") == 4
    assert code(lab, config(lab), arguments="IP=10.9.0.300") == 7


def test_namespaces_that_are_none(lab: FakeLab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code(lab, config(lab), netns="/run/netns/nobody") == 3
    for path in (str(tmp_path), str(tmp_path / "file"), "/proc/self/ns/mnt", "/dev/null"):
        assert code(lab, config(lab), netns=path) == 8
    for own in ("/proc/self/ns/net", f"/proc/{os.getpid()}/ns/net"):
        assert code(lab, config(lab), netns=own) == 8
    assert lab.switch.ports == {}


@pytest.mark.parametrize("keys", [
    {"name": ""}, {"name": "a/b"}, {"name": 5}, {"network": "a b"}, {"network": 5}, {"mtu": "9000"},
    {"mtu": 67}, {"mtu": True}, {"vni": 1 << 24}, {"api": ["x"]}, {"api": "a\0b"}, {"state": 5},
    {"ipam": "byway"}, {"ipam": {"type": 5}}, {"ipam": {"subnet": "10.0.0.0/24"}},
    {"isGateway": "yes"}, {"ipMasq": 1}, {"gatewayInterface": "x" * 16}, {"runtimeConfig": []},
    {"args": {"cni": 5}}, {"runtimeConfig": {"mac": "01:00:00:00:00:01"}},
    {"runtimeConfig": {"mac": "02:00"}}, {"runtimeConfig": {"ips": "10.0.0.1"}},
    {"runtimeConfig": {"ips": [5]}}, {"runtimeConfig": {"portMappings": {}}},
    {"runtimeConfig": {"portMappings": [5]}},
    {"runtimeConfig": {"portMappings": [{"hostPort": 1}]}},
    {"isGateway": True, "runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 1}]}},
    {"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "protocol": "x"}]}},
    {"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1, "hostIP": "x"}]}},
    {"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 1}]}},  # no isGateway
    {"runtimeConfig": {"bandwidth": {"egressRate": -1}}},
    {"runtimeConfig": {"ipRanges": [[{"subnet": "x"}]]}},
    {"ipam": {"type": "byway", "ranges": {}}}, {"ipam": {"type": "byway", "ranges": [[5]]}},
    {"ipam": {"type": "byway", "subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}},
    {"ipam": {"type": "byway", "ranges": [[{"subnet": "10.0.0.0/24"}]] * 2}},
    {"ipam": {"type": "byway", "routes": ["default"]}},
    {"ipam": {"type": "byway", "routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}},
    {"ipam": {"type": "nobody-has-this"}}, {"ipam": {"type": "../bin/sh"}},
    {"prevResult": []}, {"prevResult": {"ips": {}}}], ids=str)
def test_configurations_that_are_wrong(lab: FakeLab, keys: dict[str, Any]) -> None:
    netns = lab.namespace()
    assert code(lab, config(lab, **keys), netns=netns) == 7
    assert lab.switch.ports == {}
    assert interfaces(netns) == set()


def test_a_network_that_is_another(lab: FakeLab) -> None:
    """An existing network of the switch is not changed by a container's configuration."""
    lab.switch.networks["blue"] = {"name": "blue", "vni": 7, "mtu": 1500}
    netns = lab.namespace()
    assert code(lab, config(lab, mtu=9000), netns=netns) == 7
    assert code(lab, config(lab, vni=8), netns=netns) == 7
    lab.runtime(mtu=1500, vni=7).add("c1", netns)


@pytest.mark.parametrize("script", [
    "echo '{}' ; exit 1", "echo garbage", "exit 0", "echo '{\"ips\": 5}'", "echo '[]'; exit 1",
    "echo '{\"ips\": [{\"address\": \"x\"}]}'", "echo '{\"routes\": [{\"dst\": 7}]}'",
    "echo '{\"code\": 11, \"msg\": \"no address today\"}'; exit 1", "kill -9 $$"])
def test_ipam_plugins_that_answer_nonsense(lab: FakeLab, script: str) -> None:
    """DEL is asked of it as well, in spite of all; without an interface nothing is left."""
    program = lab.bin / "strange"
    program.write_text(f"#!/bin/sh\necho $CNI_COMMAND >> {lab.folder}/calls\n"
                       f"test $CNI_COMMAND = DEL || {{ {script}; }}\n")
    program.chmod(0o755)
    netns = lab.namespace()
    runtime = lab.runtime(ipam={"type": "strange"})
    if script == "exit 0":  # it answers that there are no addresses
        runtime.add("c1", netns)
        runtime.delete("c1", netns)
    else:
        with pytest.raises(PluginError) as caught:
            runtime.add("c1", netns)
        assert caught.value.code in (6, 11, 999)
    assert "DEL" in (lab.folder / "calls").read_text()
    assert (interfaces(netns), lab.switch.ports) == (set(), {})


@pytest.mark.parametrize("answer", [b"", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"garbage" * 99,
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]",
                                    b"HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\n{}"])
def test_an_api_that_answers_nonsense(lab: FakeLab, answer: bytes) -> None:
    lab.switch.stop()
    Path(lab.api).unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(lab.api)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert code(lab, config(lab), netns=lab.namespace()) in (11, 100)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


# ------------------------------------------------------------ anything at all
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(
        ["10.0.0.0/24", "10.0.0.1", "fd00::1/64", "byway", "0.0.0.0/0", "02:00:00:00:00:01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "subnet", "ranges", "routes", "dst", "gw", "mac", "ips", "cni",
                         "portMappings", "hostPort", "bandwidth", "address", "interface", "name",
                         "sandbox", "interfaces", "rangeStart", "gateway", "ipRanges"]),
        inner, max_size=4), max_leaves=12)
KEYS = st.dictionaries(
    st.sampled_from(["name", "network", "vni", "mtu", "api", "state", "ipam", "isGateway", "args",
                     "ipMasq", "gatewayInterface", "runtimeConfig", "dns", "prevResult"]),
    VALUES, max_size=5)


@settings(max_examples=400, deadline=None)
@given(keys=KEYS)
def test_any_configuration(keys: dict[str, Any]) -> None:
    """It is understood, or it is refused in words; nothing else."""
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x",
                   "CNI_IFNAME": "eth0"}
    whole = {"cniVersion": "1.1.0", "name": "net", **keys}
    refusal = CniError(1, "none", "none")
    try:
        call = read_call(environment, read_config(json.dumps(whole).encode()))
        found = read_settings(call)
        read_ranges(found.ipam, call.config.get("runtimeConfig") or {})
        read_lease(found.ipam, "x")
        attached(call)
    except CniError as error:
        refusal = error
    assert refusal.problem
    assert refusal.fix


# ------------------------------------------------------------ death
def add_here(lab: FakeLab, netns: str) -> None:
    """An ADD in this process, which may be killed."""
    os.environ |= {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": netns,
                   "CNI_IFNAME": "eth0", "CNI_PATH": str(lab.bin)}
    data = json.dumps(config(lab)).encode()
    sys.stdin = io.TextIOWrapper(io.BytesIO(data))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    assert main.main() == 0


@pytest.mark.compiled_only
@pytest.mark.parametrize("cleaner", ["DEL", "GC"])
def test_killed_before_every_write(lab: FakeLab, cleaner: str) -> None:
    netns = lab.namespace()
    runtime = lab.runtime()
    k = 0
    while run_killed(lambda: add_here(lab, netns), k, WRITES | SENDS):
        if cleaner == "DEL":
            runtime.delete("c1", netns)
        else:
            runtime.collect([])
        assert (interfaces(netns), lab.switch.ports) == (set(), {}), k
        k += 1
    assert k > 10
    assert interfaces(netns) == {"eth0"}
    runtime.delete("c1", netns)
    with Pools(lab.state) as pools:  # not one address was lost on the way
        assert [held.owner for pool in pools.pools() for held in pools.addresses(pool.id)] == [
            "", ""]  # the gateways'
