# SPDX-License-Identifier: Apache-2.0
"""The configuration of af-xdp ports."""

import pytest
from pydantic import ValidationError

from byway.control.fitting import cross_check
from byway.control.model import AfPacketPort, AfXdpPort, Config, NetworkConfig


def xdp_port(**keys: object) -> AfXdpPort:
    return AfXdpPort.model_validate(
        {"name": "x", "network": "blue", "kind": "af-xdp", "ifname": "eth1", **keys})


def test_an_af_xdp_port() -> None:
    plain = xdp_port()
    assert (plain.netns, plain.queues, plain.mode, plain.zero_copy) == (None, 1, "auto", "auto")
    assert (plain.frames, plain.checksums) == (1024, "peer")
    full = xdp_port(netns="/proc/7/ns/net", queues=32, mode="native", zero_copy=True, frames=64,
                    checksums="complete", mac="02:00:00:00:00:01")
    assert (full.netns, full.zero_copy, full.frames) == ("/proc/7/ns/net", True, 64)
    assert xdp_port(mode="skb", zero_copy=False).zero_copy is False


@pytest.mark.parametrize(("keys", "message"), [
    ({"ifname": "a/b"}, "is no interface name"),
    ({"netns": "a/b"}, "is no name of a network namespace"),
    ({"queues": 0}, "greater than or equal to 1"),
    ({"queues": 33}, "less than or equal to 32"),
    ({"mode": "driver"}, "'auto', 'native' or 'skb'"),
    ({"zero_copy": "yes"}, "zero_copy"),
    ({"zero_copy": 1}, "zero_copy"),
    ({"mode": "skb", "zero_copy": True}, "only a driver can leave copying out"),
    ({"frames": 1000}, "is 1000, which is no power of two; write 256, 512, 1024, ..."),
    ({"frames": 32}, "greater than or equal to 64"),
    ({"frames": 32768}, "less than or equal to 16384"),
    ({"checksums": "off"}, "'peer', 'complete' or 'trust'"),
])
def test_an_af_xdp_port_that_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        xdp_port(**keys)
    assert message in str(caught.value)


def test_an_interface_is_attached_to_once() -> None:
    blue = NetworkConfig(name="blue")
    other = AfPacketPort.model_validate(
        {"name": "p", "network": "blue", "kind": "af-packet", "ifname": "eth1"})
    (problem,) = cross_check(Config(networks=(blue,), ports=(xdp_port(), other)))
    assert str(problem) == (
        'port "p": ifname: "eth1" is also that of port "x": ifname; attach to an interface once')
    assert cross_check(Config(networks=(blue,), ports=(xdp_port(netns="red"), other))) == []
