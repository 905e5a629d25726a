# SPDX-License-Identifier: Apache-2.0
"""Services in a switch: a test's hands are the appliances, and pass what they please."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from byway.control.actions import AddRouter, AddService, ChangeService, RemovePort, RemoveService
from byway.control.fitting import cross_check
from byway.control.health import Health
from byway.control.metrics import metrics_text
from byway.control.model import Config, NetworkConfig, NullPort, RouterConfig, ServiceConfig
from byway.control.problem import ConfigError, EngineError
from byway.control.tables import parse_port, parse_service
from byway.switch.service import PROBE
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from tests.running import RunningSwitch, mac
from tests.unit.control.test_policy import Yard

FW = {"name": "fw", "appliances": [{"left": "in", "right": "out"}], "probe": 0}
INSIDE = {"services": ["fw"]}


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[RunningSwitch]:
    with RunningSwitch(tmp_path, stepped=True) as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def service(**options: Any) -> ServiceConfig:
    return ServiceConfig.model_validate({**FW, **options})


def laid(switch: RunningSwitch, stack: ExitStack, network: dict[str, Any] | None = None,
         fw: ServiceConfig | None = None, **ports: dict[str, Any]) -> Yard:
    """A network where port a is behind the firewall, and x is not."""
    switch.network("blue", **network or {})
    switch.apply([AddService(fw or service())])
    listed = {"a": INSIDE, "x": {}, "in": {"mac": None}, "out": {"mac": None}, **ports}
    return Yard(switch, stack, **{
        name: {"network": "blue", **options} for name, options in listed.items()})


def frame(yard: Yard, source: str, target: str) -> bytes:
    to = yard[target].mac if target in yard.guests else BROADCAST
    return ethernet(to, yard[source].mac, TEST_ETHERTYPE, f"{source} to {target}".encode())


def behind(switch: RunningSwitch) -> dict[str, str]:
    """What the switch has learned: port by address."""
    return {row["mac"]: row["port"] for row in switch.call(switch.engine.fdb, None)}


def shown(switch: RunningSwitch) -> dict[str, Any]:
    found: dict[str, Any] = switch.call(switch.engine.services)[0]
    return found


def test_frames_of_a_port_pass_its_service_both_ways(
        switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    yard.send("x", frame(yard, "x", "all"))
    there, back, everybody = (frame(yard, "a", "x"), frame(yard, "x", "a"),
                              frame(yard, "a", "all"))
    assert yard.send("a", there, everybody) == {"in": [there, everybody]}
    assert yard.send("out", there, everybody) == {"x": [there, everybody]}
    assert yard.send("x", back) == {"out": [back]}
    assert yard.send("in", back) == {"a": [back]}
    assert behind(switch) == {mac(1): "a", mac(2): "x"}


def test_nothing_is_flooded_to_appliances(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    everybody, unknown = frame(yard, "x", "all"), ethernet(
        bytes.fromhex("020000000077"), yard["x"].mac, TEST_ETHERTYPE, b"?")
    assert yard.send("x", everybody) == {"a": [everybody]}
    assert yard.send("x", unknown) == {}
    assert switch.drops()["a"] == {"service_address": 1}


def test_a_forgotten_address_does_not_open_a_way_past_the_service(
        switch: RunningSwitch, stack: ExitStack) -> None:
    """What is for a, and flooded because nobody has heard of a, passes the service, too."""
    yard = laid(switch, stack)
    back = frame(yard, "x", "a")
    assert yard.send("x", back) == {"out": [back]}


def test_a_borrowed_address_is_not_learned(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack, {"gateway": ("10.0.0.1/24",)})
    yard.send("x", frame(yard, "x", "all"))
    assert yard.send("a", frame(yard, "x", "all")) == {}
    assert behind(switch) == {mac(2): "x"}
    assert switch.drops()["a"]["service_address"] == 1


def test_inside_ports_talk_directly(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack, b=INSIDE)
    yard.send("b", frame(yard, "b", "all"))
    there = frame(yard, "a", "b")
    assert yard.send("a", there) == {"b": [there]}


def test_two_services_one_behind_the_other(switch: RunningSwitch, stack: ExitStack) -> None:
    switch.apply([AddService(service(name="ids", appliances=[{"left": "l", "right": "r"}]))])
    yard = laid(switch, stack, a={"services": ["fw", "ids"]}, l={"mac": None}, r={"mac": None})
    yard.send("x", frame(yard, "x", "all"))
    there, back = frame(yard, "a", "x"), frame(yard, "x", "a")
    way = [("a", "in"), ("out", "l"), ("r", "x")]
    for source, target in way:
        assert yard.send(source, there) == {target: [there]}
    for source, target in [("x", "r"), ("l", "out"), ("in", "a")]:
        assert yard.send(source, back) == {target: [back]}
    assert behind(switch) == {mac(1): "a", mac(2): "x"}


def test_what_a_router_takes_to_a_port_passes(switch: RunningSwitch, stack: ExitStack) -> None:
    gateway = "02:62:77:00:00:00"
    switch.network("green", gateway=("10.0.1.1/24",), gateway_mac=gateway)
    yard = laid(switch, stack, {"gateway": ("10.0.0.1/24",), "gateway_mac": gateway},
                a={**INSIDE, "ips": ["10.0.0.5"]}, far={"network": "green", "ips": ["10.0.1.5"]})
    switch.apply([AddRouter(RouterConfig(name="r", networks=("blue", "green"), routes=()))])
    asked = bytes(Ether(src=mac(1), dst=gateway) / IP(src="10.0.0.5", dst="10.0.1.5") / UDP())
    assert yard.send("a", asked) == {"in": [asked]}
    got = yard.send("out", asked)
    assert [Ether(one).dst for one in got["far"]] == [mac(5)]
    answer = bytes(Ether(src=mac(5), dst=gateway) / IP(src="10.0.1.5", dst="10.0.0.5") / UDP())
    routed, = yard.send("far", answer)["out"]
    assert (Ether(routed).src, Ether(routed).dst) == (gateway, mac(1))
    assert yard.send("in", routed) == {"a": [routed]}


def test_where_no_appliance_works(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    yard.send("x", frame(yard, "x", "all"))
    there, back = frame(yard, "a", "x"), frame(yard, "x", "a")
    yard.guests.pop("out").close()
    switch.until(lambda: shown(switch)["appliances"][0]["state"] == "down")
    assert shown(switch)["appliances"][0]["reason"] == 'port "out" is not up'
    assert yard.send("a", there) == yard.send("x", back) == {}
    assert switch.drops()["a"] == {"service_down": 2}
    switch.apply([ChangeService(service(), service(down="bypass"))])
    assert yard.send("a", there) == {"x": [there]}
    assert yard.send("x", back) == {"a": [back]}
    assert (shown(switch)["blocked"], shown(switch)["bypassed"]) == (2, 2)
    text = switch.call(metrics_text, switch.engine).decode().splitlines()
    assert 'byway_service_blocked_total{service="fw"} 2.0' in text
    assert 'byway_service_bypassed_total{service="fw"} 2.0' in text
    assert 'byway_service_appliance_up{left="in",service="fw"} 0.0' in text


def test_a_service_that_is_not_there_blocks(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    switch.apply([RemoveService("fw")])
    assert yard.send("a", frame(yard, "a", "x")) == {}
    assert yard.send("out", frame(yard, "out", "all")) == {}, "its ports are outside still"
    yard.change("a", services=())
    there = frame(yard, "a", "x")
    assert yard.send("a", there) == {"x": [there]}


def test_ports_that_become_an_appliance(switch: RunningSwitch, stack: ExitStack) -> None:
    """They leave their network, and what was learned of them is forgotten."""
    switch.network("blue")
    yard = Yard(switch, stack, a={"network": "blue"}, **{"in": {"network": "blue"}},
                out={"network": "blue"})
    yard.send("in", frame(yard, "in", "all"))
    assert behind(switch) == {mac(2): "in"}
    switch.apply([AddService(service())])
    assert behind(switch) == {}
    everybody = frame(yard, "a", "all")
    assert yard.send("a", everybody) == {}
    yard.change("a", services=("fw",))
    assert yard.send("a", everybody) == {"in": [everybody]}
    for name in ("in", "out", "a"):
        yard.guests.pop(name).close()
        switch.apply([RemovePort(name)])


def test_probes_tell_who_works(switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack, fw=service(probe=1, misses=2))
    there = frame(yard, "a", "x")
    assert shown(switch)["appliances"][0]["reason"] == "no probe came back yet"

    def second(passes: bool) -> list[bytes]:
        """One second goes by; an appliance passes the probe, or not."""
        switch.call(switch.engine.policy.services.tick)
        switch.settle()
        probes: list[bytes] = yard["in"].receive()
        if passes:
            assert yard.send("out", *probes) == {}
        return probes

    probe, = second(passes=True)
    assert probe[12:14] == PROBE.to_bytes(2, "big")
    assert yard.send("a", there) == {}
    second(passes=False)
    assert (shown(switch)["appliances"][0]["state"], shown(switch)["appliances"][0]["slots"]) == (
        "up", 256)
    assert yard.send("a", there) == {"in": [there]}
    second(passes=False)
    assert shown(switch)["appliances"][0]["state"] == "up"
    second(passes=False)
    assert shown(switch)["appliances"][0]["reason"] == "2 probes did not come back"
    assert yard.send("a", there) == {}
    second(passes=True)
    second(passes=True)
    assert yard.send("a", there) == {"in": [there]}
    assert behind(switch) == {mac(1): "a"}


def test_a_change_of_a_service_does_not_stop_it(switch: RunningSwitch, stack: ExitStack) -> None:
    """What is known of its appliances stays known, and the probe that is under way counts."""
    old = service(probe=1, misses=1)
    yard = laid(switch, stack, fw=old)
    there = frame(yard, "a", "x")

    def second() -> None:
        switch.call(switch.engine.policy.services.tick)
        switch.settle()
        assert yard.send("out", *yard["in"].receive()) == {}

    second()
    second()
    assert yard.send("a", there) == {"in": [there]}
    more = ({"left": "in", "right": "out"}, {"left": "l", "right": "r"})
    for new in (service(probe=2, misses=1), service(probe=1, misses=1, appliances=more)):
        switch.apply([ChangeService(old, new)])
        assert shown(switch)["appliances"][0]["state"] == "up"
        assert yard.send("a", there) == {"in": [there]}
        old = new
    second()
    assert shown(switch)["appliances"][0]["state"] == "up"
    assert shown(switch)["appliances"][1]["reason"] == 'there is no port "l"'


def test_who_was_not_asked_is_not_known(switch: RunningSwitch, stack: ExitStack) -> None:
    probed, free = service(probe=1), service(probe=0)
    laid(switch, stack, fw=free)
    assert shown(switch)["appliances"][0]["state"] == "up"
    switch.apply([ChangeService(free, probed)])
    assert shown(switch)["appliances"][0]["reason"] == "no probe came back yet"


def test_health_asks_as_often_as_it_is_told() -> None:
    health = Health()
    assert health.tick(3), "it does not work yet: asked at once"
    assert not health.ask(0, 2)
    assert health.tick(3)
    assert health.ask(1, 2), "it works"
    assert [health.tick(3) for _ in range(6)] == [False, False, True] * 2


def test_a_service_in_two_networks_is_refused() -> None:
    def port(name: str, network: str = "blue", **options: Any) -> NullPort:
        return NullPort(name=name, network=network, kind="null", **options)

    def said(*ports: NullPort, **options: Any) -> list[str]:
        return [str(one) for one in cross_check(Config(
            networks=(NetworkConfig(name="blue"), NetworkConfig(name="red")),
            services=(service(**options),), ports=ports))]

    inside = port("a", mac=mac(1), services=("fw",))
    assert said(inside, port("in"), port("out")) == []
    assert 'port "out" is in network "red"' in said(inside, port("in"), port("out", "red"))[0]
    assert "there is no port" in said(inside, port("in"))[0]
    assert "has chain" in said(inside, port("in", chain=("byway.acl",)), port("out"))[0]
    wrong = said(port("a", "red", mac=mac(1), services=("fw",)), port("in"), port("out"))
    assert 'the appliances of "fw" are in network' in wrong[0]


@pytest.mark.parametrize(("options", "said"), [
    ({"appliances": [{"left": "a", "right": "a"}]}, 'left and right are both "a"; name two ports'),
    ({"appliances": [{"left": "a", "right": "b"}, {"left": "b", "right": "c"}]},
     'port "b" is named twice; name it once'),
    ({"appliances": [{"left": f"l{k}", "right": f"r{k}"} for k in range(65)]},
     "has 65 appliances; name 64 at most"),
    ({"down": "open"}, 'down: is "open"; write "block" or "bypass"'),
    ({"probe": -1}, "probe: is -1; write 0 or more")])
def test_a_service_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_service({"name": "fw", **options}, "service")
    assert said in str(refused.value)


@pytest.mark.parametrize(("options", "said"), [
    ({"services": ["fw"]}, "services are there, but the port has no mac"),
    ({"services": ["fw"], "mac": mac(1), "vlans": {"10": "red"}}, "services and vlans are both"),
    ({"services": ["fw", "fw"], "mac": mac(1)}, 'names service "fw" twice'),
    ({"services": [f"s{k}" for k in range(9)], "mac": mac(1)}, "has 9 services; name 8 at most")])
def test_a_port_that_cannot_have_them_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_port({"name": "a", "network": "blue", "kind": "null", **options}, "port")
    assert said in str(refused.value)


def test_a_port_that_goes_leaves_nothing_of_its_addresses(
        switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    back = frame(yard, "x", "a")
    pair = {"mac": "02:00:00:00:00:99", "ip": "10.0.0.9"}
    yard.change("a", allowed_address_pairs=(pair,))
    other = ethernet(yard["x"].mac, bytes.fromhex("020000000099"), TEST_ETHERTYPE, b"pair")
    assert yard.send("a", other) == {"in": [other]}
    yard.change("a", allowed_address_pairs=())
    assert yard.send("a", other) == {}
    switch.apply([RemovePort("a")])
    yard.guests.pop("a").close()
    assert yard.send("in", back) == yard.send("out", other) == {}
    assert switch.drops()["in"] == {"service_stray": 1}
    assert switch.drops()["out"] == {"service_stray": 1}


def test_where_there_is_no_room_for_addresses_all_is_as_it_was(
        switch: RunningSwitch, stack: ExitStack) -> None:
    yard = laid(switch, stack)
    services = switch.engine.policy.services
    homes = services._homes
    homes.population._macs.limit = 1
    pair = {"mac": "02:00:00:00:00:99", "ip": "10.0.0.9"}
    with pytest.raises(EngineError, match='port "b": the population has 1 MAC addresses already'):
        switch.add("null", "b", mac=mac(9), services=["fw"])
    with pytest.raises(EngineError, match='port "a": the population has 1 MAC addresses already'):
        yard.change("a", allowed_address_pairs=(pair,))
    assert {int(port): int(homes._steps[port]) for port in np.flatnonzero(homes._steps)} == {
        port: steps.address for port, (steps, _) in services._inside.items()}
    assert len(services._inside) == len(homes.population) == 1
    there = frame(yard, "x", "a")
    assert yard.send("x", there) == {"out": [there]}
