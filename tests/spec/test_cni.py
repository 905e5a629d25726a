# SPDX-License-Identifier: Apache-2.0
"""What the CNI specification 1.1.0 asks of a plugin, said sentence by sentence, of `byway-cni`.

The plugin is the installed program, in real network namespaces; the switch is a fake that makes
interfaces and passes no frames. `tests.cni_runtime` holds every single answer to the specification.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from byway_cni.call import VERSIONS
from tests.cni_lab import FakeLab, addresses, fake_lab, inside, interfaces
from tests.cni_runtime import VALID, PluginError, Runtime


@pytest.fixture
def lab() -> Iterator[FakeLab]:
    with fake_lab() as made:
        yield made


def code_of(call: Any, *arguments: Any, **options: Any) -> int:
    with pytest.raises(PluginError) as caught:
        call(*arguments, **options)
    return caught.value.code


# ------------------------------------------------------------ ADD
@pytest.mark.parametrize("version", VERSIONS)
def test_add(lab: FakeLab, version: str) -> None:
    """ADD: "create the interface defined by CNI_IFNAME inside the container at CNI_NETNS"; "output
    a result structure"; section 5: in the version of the configuration."""
    netns = lab.namespace()
    result = lab.runtime(version).add("c1", netns)
    mtu = {"mtu": 1500} if version == "1.1.0" else {}
    assert result["interfaces"] == [
        {"name": "eth0", "mac": "02:62:0a:09:00:02", "sandbox": netns, **mtu}]
    own = ({"version": "4"}, {"version": "6"}) if version < "1.0.0" else ({}, {})
    assert result["ips"] == [
        {**own[0], "address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 0},
        {**own[1], "address": "fd09::2/64", "gateway": "fd09::1", "interface": 0}]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert addresses(netns) == {"10.9.0.2/24", "fd09::2/64"}
    assert "via 10.9.0.1" in inside(netns, "ip", "route", "show", "default")


def test_add_where_the_name_is_taken(lab: FakeLab) -> None:
    """ADD: "If the requested interface name already exists in the container, the plugin MUST return
    with an error"."""
    netns = lab.namespace()
    inside(netns, "ip", "tuntap", "add", "dev", "eth0", "mode", "tap")
    assert code_of(lab.runtime().add, "c1", netns) == 101
    assert lab.switch.ports == {}


def test_add_twice(lab: FakeLab) -> None:
    """ADD: "A runtime should not call ADD twice (without an intervening DEL) for the same
    (CNI_CONTAINERID, CNI_IFNAME) tuple". The first one stays as it is."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    assert code_of(runtime.add, "c1", netns) == 101
    assert code_of(runtime.add, "c1", lab.namespace()) == 101
    runtime.check("c1", netns)


def test_a_container_may_be_attached_several_times(lab: FakeLab) -> None:
    """ADD: "... a given container ID may be added to a specific network more than once only if each
    addition is done with a different interface name"; and to several networks."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    runtime.add("c1", netns, "net1")
    other = lab.runtime(name="other", ipam={"type": "byway", "subnet": "10.8.0.0/24"})
    other.add("c1", netns, "net2")
    runtime.delete("c1", netns)
    assert interfaces(netns) == {"net1", "net2"}
    runtime.check("c1", netns, "net1")
    other.check("c1", netns, "net2")


def test_add_that_fails_leaves_nothing(lab: FakeLab) -> None:
    """ADD: an error, and nothing is left: not the address either."""
    runtime, netns = lab.runtime(), lab.namespace()
    lab.switch.refuse = "no more ports"
    with pytest.raises(PluginError, match="no more ports"):
        runtime.add("c1", netns)
    lab.switch.refuse = ""
    runtime.add("c1", netns)
    runtime.check("c1", netns)
    assert len(lab.switch.ports) == 1


def test_two_adds_of_one_container_at_once(lab: FakeLab) -> None:
    """One wins, the other errors; section 3: a runtime must not do it, and may all the same."""
    runtime, netns = lab.runtime(), lab.namespace()
    config = runtime.configuration(runtime.network["plugins"][0], None, {})
    statuses: list[int] = []

    def add() -> None:
        statuses.append(runtime.call("ADD", config, "c1", netns, "eth0").status)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 1, 1, 1]
    assert len(lab.switch.ports) == 1
    assert interfaces(netns) == {"eth0"}


def test_different_containers_at_once(lab: FakeLab) -> None:
    """Section 3: "Runtimes may ... invoke parallel operations for different containers"."""
    runtime = lab.runtime()
    spaces = [lab.namespace() for _ in range(6)]
    problems: list[BaseException] = []

    def add(number: int, netns: str) -> None:
        try:
            runtime.add(f"c{number}", netns)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=add, args=each) for each in enumerate(spaces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set.union(*map(addresses, spaces))) == 12


def test_results_are_passed_on(lab: FakeLab) -> None:
    """ADD: "If an attached plugin is given prevResult, it MUST pass it through or modify it"."""
    runtime, netns = lab.runtime(), lab.namespace()
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "other", "sandbox": netns}],
              "ips": [{"address": "10.1.0.1/24", "interface": 0}],
              "routes": [{"dst": "10.2.0.0/16"}], "dns": {"nameservers": ["10.1.0.9"]}}
    config = runtime.configuration(runtime.network["plugins"][0], before, {})
    answer = runtime.call("ADD", config, "c1", netns, "eth0").answer
    assert answer
    assert [one["name"] for one in answer["interfaces"]] == ["other", "eth0"]
    assert [(one["address"], one["interface"]) for one in answer["ips"]] == [
        ("10.1.0.1/24", 0), ("10.9.0.2/24", 1), ("fd09::2/64", 1)]
    assert answer["routes"] == [{"dst": "10.2.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    assert answer["dns"] == {"nameservers": ["10.1.0.9"]}


def test_wishes(lab: FakeLab) -> None:
    """CONVENTIONS.md: capabilities mac and ips, args.cni, CNI_ARGS (MAC, IP), in this order."""
    runtime = lab.runtime(args={"cni": {"ips": ["10.9.0.50"], "mac": "02:00:00:00:00:50"}})
    arguments = "IgnoreUnknown=1;IP=10.9.0.60;MAC=02:00:00:00:00:60;K8S_POD_NAME=p"
    one = runtime.add("c1", lab.namespace(), arguments=arguments)
    two = runtime.add("c2", lab.namespace(), arguments=arguments, ips=["10.9.0.40/24", "fd09::40"],
                      mac="02:00:00:00:00:40")
    three = lab.runtime().add("c3", lab.namespace(), arguments=arguments)
    assert [(r["ips"][0]["address"], r["ips"][1]["address"], r["interfaces"][0]["mac"])
            for r in (one, two, three)] == [
        ("10.9.0.50/24", "fd09::2/64", "02:00:00:00:00:50"),
        ("10.9.0.40/24", "fd09::40/64", "02:00:00:00:00:40"),
        ("10.9.0.60/24", "fd09::3/64", "02:00:00:00:00:60")]
    assert code_of(runtime.add, "c4", lab.namespace(), ips=["10.9.0.40"]) == 102  # c2 has it
    assert code_of(runtime.add, "c4", lab.namespace(), ips=["10.7.0.1"]) == 102
    assert code_of(runtime.add, "c4", lab.namespace(), ips=["ten"]) == 7


def test_ranges_of_the_runtime(lab: FakeLab) -> None:
    """CONVENTIONS.md: ipRanges."""
    result = lab.runtime().add(
        "c1", lab.namespace(),
        ipRanges=[[{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.30", "gateway": "10.5.0.9"}]])
    assert [(one["address"], one["gateway"]) for one in result["ips"]] == [
        ("10.5.0.30/24", "10.5.0.9"), ("10.9.0.2/24", "10.9.0.1"), ("fd09::2/64", "fd09::1")]


# ------------------------------------------------------------ DEL
def test_delete(lab: FakeLab) -> None:
    """DEL: "delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS"."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    runtime.delete("c1", netns)
    assert (interfaces(netns), lab.switch.ports) == (set(), {})


def test_delete_again_and_before(lab: FakeLab) -> None:
    """DEL: "Plugins should generally complete a DEL action without error even if some resources
    are missing", "plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID,
    CNI_IFNAME) pair, and return success if the interface in question ... is missing"."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.delete("never", netns)
    runtime.add("c1", netns)
    for _ in range(3):
        runtime.delete("c1", netns)
    runtime.add("c1", netns)
    runtime.check("c1", netns)


@pytest.mark.parametrize("how", ["no variable", "namespace gone", "no result"])
def test_delete_with_little_left(lab: FakeLab, how: str) -> None:
    """DEL: CNI_NETNS is optional; an IPAM plugin "should generally release an IP allocation and
    return success even if the container network namespace no longer exists"; prevResult may be
    missing."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    if how == "namespace gone":
        lab.remove_namespace(netns)
    if how == "no result":
        runtime.results.clear()
    runtime.delete("c1", "" if how == "no variable" else netns)
    assert lab.switch.ports == {}
    # The address is free: asked for by name it is given.
    runtime.add("c2", lab.namespace(), ips=["10.9.0.2"])


def test_delete_while_the_switch_is_dead(lab: FakeLab) -> None:
    """The container can go, its address is free; the port goes when the switch is back."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    lab.switch.stop()
    runtime.delete("c1", netns)
    runtime.delete("c1", netns)
    assert len(lab.switch.ports) == 1
    assert interfaces(netns) == set()
    lab.switch.start()
    runtime.add("c2", lab.namespace(), ips=["10.9.0.2"])
    assert [port["netns"] != netns for port in lab.switch.ports.values()] == [True]


def test_delete_where_the_switch_has_forgotten(lab: FakeLab) -> None:
    """One that was restarted without its ports: the interface goes all the same."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    lab.switch.ports.clear()
    runtime.delete("c1", netns)
    assert interfaces(netns) == set()
    runtime.add("c1", netns)
    runtime.check("c1", netns)


def test_delete_removes_no_other_interface(lab: FakeLab) -> None:
    """What was not attached by this plugin is somebody else's, whatever it is called."""
    netns = lab.namespace()
    inside(netns, "ip", "tuntap", "add", "dev", "eth0", "mode", "tap")
    lab.runtime().delete("c1", netns)
    assert interfaces(netns) == {"eth0"}


# ------------------------------------------------------------ CHECK
def test_check(lab: FakeLab) -> None:
    """CHECK: "verify that the container's networking is as expected"."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    runtime.check("c1", netns)


@pytest.mark.parametrize("command", [
    "ip addr del 10.9.0.2/24 dev eth0", "ip addr del fd09::2/64 dev eth0", "ip link del eth0",
    "ip route del default", "ip link set eth0 down", "ip link set eth0 address 02:00:00:00:00:99"])
def test_check_finds_what_changed(lab: FakeLab, command: str) -> None:
    """CHECK: "must return an error if ... any ... interface is missing or invalid", "... addresses
    ... are missing", "... routes ..."."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    inside(netns, *command.split())
    assert code_of(runtime.check, "c1", netns) == 103


def test_check_allows_what_others_add(lab: FakeLab) -> None:
    """CHECK: a plugin may not fail for what a later plugin of the chain added."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    inside(netns, "ip", "addr", "add", "10.77.0.1/24", "dev", "eth0")
    inside(netns, "ip", "route", "add", "10.78.0.0/24", "via", "10.77.0.9")
    runtime.check("c1", netns)


def test_check_asks_the_switch(lab: FakeLab) -> None:
    """A port that is down, or gone, carries nothing, whatever the interface looks like."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    (name,) = lab.switch.ports
    lab.switch.ports[name]["state"] = "down"
    assert code_of(runtime.check, "c1", netns) == 103
    port = lab.switch.ports.pop(name)
    assert code_of(runtime.check, "c1", netns) == 103
    lab.switch.ports[name] = port
    lab.switch.stop()
    assert code_of(runtime.check, "c1", netns) == 11


def test_check_needs_a_result_and_a_version(lab: FakeLab) -> None:
    """CHECK came with 0.4.0; it needs prevResult."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    config = runtime.configuration(runtime.network["plugins"][0], None, {})
    outcome = runtime.call("CHECK", config, "c1", netns, "eth0")
    assert outcome.answer
    assert outcome.answer["code"] == 7
    assert "prevResult" in outcome.answer["msg"]
    old = lab.runtime("0.3.1", "old")
    old.results["c1", "eth0"], old.capabilities["c1", "eth0"] = {}, {}
    assert code_of(old.check, "c1", netns) == 1


# ------------------------------------------------------------ GC
def test_collect(lab: FakeLab) -> None:
    """GC: "cleanup any resources that may be leaked": everything not in valid-attachments."""
    runtime = lab.runtime()
    spaces = {f"c{k}": lab.namespace() for k in range(4)}
    for container, netns in spaces.items():
        runtime.add(container, netns)
    lab.remove_namespace(spaces.pop("c3"))
    runtime.collect([("c1", "eth0")])
    assert [interfaces(spaces[name]) for name in ("c0", "c1", "c2")] == [set(), {"eth0"}, set()]
    assert len(lab.switch.ports) == 1
    runtime.check("c1", spaces["c1"])
    runtime.add("c0", spaces["c0"], ips=["10.9.0.2"])
    runtime.collect([])
    assert lab.switch.ports == {}


def test_collect_leaves_other_networks_alone(lab: FakeLab) -> None:
    """GC: of this network, by its name."""
    runtime, netns = lab.runtime(), lab.namespace()
    other = lab.runtime(name="other", ipam={"type": "byway", "subnet": "10.8.0.0/24"})
    other.add("c1", netns)
    runtime.collect([])
    other.check("c1", netns)


def test_collect_goes_on_after_errors(lab: FakeLab) -> None:
    """GC: "Plugins should ... continue on errors and report at the end"; here a dead switch, of
    which nothing is lost: the ports go when it is back."""
    runtime = lab.runtime()
    for container in ("c1", "c2"):
        runtime.add(container, lab.namespace())
    lab.switch.stop()
    runtime.collect([])
    lab.switch.start()
    runtime.collect([])
    assert lab.switch.ports == {}


@pytest.mark.parametrize("valid", [None, "c1", [{"containerID": "c1"}], [["c1", "eth0"]],
                                   [{"containerID": 5, "ifname": "eth0"}]])
def test_collect_with_a_list_that_is_none(lab: FakeLab, valid: Any) -> None:
    """Taken for an empty list it would cut off every container."""
    runtime, netns = lab.runtime(), lab.namespace()
    runtime.add("c1", netns)
    config = {**runtime.configuration(runtime.network["plugins"][0], None, {}), VALID: valid}
    outcome = runtime.call("GC", config)
    assert outcome.answer
    assert outcome.answer["code"] == 7
    runtime.check("c1", netns)


# ------------------------------------------------------------ STATUS, VERSION
def test_status(lab: FakeLab) -> None:
    """STATUS: success while ADD would be served; 50 otherwise."""
    runtime = lab.runtime()
    runtime.status()
    lab.switch.stop()
    assert code_of(runtime.status) == 50
    lab.switch.start()
    runtime.status()
    assert code_of(lab.runtime(state="/proc/none/cni.db").status) == 50
    assert code_of(lab.runtime("1.0.0").status) == 1


def test_versions(lab: FakeLab) -> None:
    """VERSION: "output a version result object"."""
    assert lab.runtime().versions("byway-cni") == list(VERSIONS)
    assert lab.runtime("0.4.0").versions("byway-cni") == list(VERSIONS)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "2.0.0", "1.0", "", None, 1.0, ["1.0.0"]])
def test_a_version_that_is_not_spoken(lab: FakeLab, version: Any) -> None:
    """Section 5: code 1."""
    runtime: Runtime = lab.runtime()
    config = {**lab.plugin(), "name": "net", "cniVersion": version}
    outcome = runtime.call("ADD", config, "c1", lab.namespace(), "eth0")
    assert outcome.answer
    assert outcome.answer["code"] == 1
    assert json.dumps(outcome.answer)
