# SPDX-License-Identifier: Apache-2.0
"""The configuration of tap ports: namespaces, routes, features."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from byway.control.fitting import cross_check
from byway.control.model import Config, NetworkConfig, TapPort
from byway.control.thishost import check_port
from byway.ports.tap import FEATURES
from byway.virtio.features import names
from byway.virtio.negotiation import BY_NAME


def tap(**keys: object) -> TapPort:
    return TapPort.model_validate(
        {"name": "k", "network": "blue", "kind": "tap", "ifname": "eth0", **keys})


def test_a_tap_port() -> None:
    plain = tap()
    assert (plain.netns, plain.address, plain.routes, plain.queues) == (None, (), (), 1)
    assert (plain.persistent, plain.masquerade, plain.features_off) == (False, False, ())
    full = tap(netns="/proc/123/ns/net", address=["10.0.0.2/24", "fd00::0:1/64"], queues=32,
               routes=[{"to": "default", "via": "10.0.0.1"}, {"to": "default", "via": "fd00::9"},
                       {"to": "10.7.0.0/16", "via": "10.0.0.1"},
                       {"to": "fd07::/16", "via": "fe80::1"}],
               features={"off": ["csum", "host_uso"]}, persistent=True, masquerade=True)
    assert [(r.to, r.via) for r in full.routes] == [
        ("default", "10.0.0.1"), ("default", "fd00::9"), ("10.7.0.0/16", "10.0.0.1"),
        ("fd07::/16", "fe80::1")]
    assert full.features_off == ("csum", "host_uso")


@pytest.mark.parametrize(("keys", "message"), [
    *(({"netns": bad}, "is no name of a network namespace") for bad in ("", "a/b", "..", "\0")),
    ({"netns": "/a\0b"}, "contains a NUL byte"),
    *(({"routes": [{"to": bad, "via": "10.0.0.1"}]}, "is no destination of a route; write a network"
       ' as in "10.1.0.0/16", or "default"') for bad in ("", "10.1.0.1/16", "x", "10.0.0.0/33")),
    *(({"routes": [{"to": "default", "via": bad}]}, "is no address of a gateway; write it as in"
       ' "10.0.0.1"') for bad in ("", "10.0.0.1/24", "gw")),
    ({"routes": [{"to": "fd00::/16", "via": "10.0.0.1"}]}, "are not of one family"),
    ({"routes": [{"to": "default"}]}, "Field required"),
    ({"features": {"off": ["mrg_rxbuf"]}}, 'a tap has no "mrg_rxbuf" that could be off'),
    ({"features": {"off": ["csums"]}}, "is no virtio feature"),
    ({"persistent": "yes"}, "valid boolean"),
    ({"queues": 33}, "less than or equal to 32")])
def test_a_tap_port_that_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tap(**keys)
    assert message in str(caught.value)


def test_every_feature_of_a_tap_can_be_off() -> None:
    off = [name for name, feature in BY_NAME.items() if FEATURES >> feature & 1]
    assert sorted(off) == sorted(names(FEATURES))
    assert tap(features={"off": off}).features_off == tuple(off)


def test_two_ports_want_one_interface() -> None:
    blue = NetworkConfig(name="blue")
    ports = (tap(), tap(name="l", netns="red"), tap(name="m", netns="red"))
    (problem,) = cross_check(Config(networks=(blue,), ports=ports))
    assert str(problem).startswith('port "m": ifname: "eth0')
    assert "give it another name" in str(problem)


def test_a_namespace_may_come_later(tmp_path: Path) -> None:
    assert check_port(tap(netns="not-there-yet"), "port") == []
    assert check_port(tap(netns=str(tmp_path / "later")), "port") == []
