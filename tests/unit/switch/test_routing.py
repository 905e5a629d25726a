# SPDX-License-Identifier: Apache-2.0
"""Gateways and routers as plain values: what they become, and what cannot be."""

import gc
from typing import Any

import pytest

from byway.switch.routing import Gateway, Router, Routing, RoutingError, check, link_local
from byway.testing.routed import HZ, Routed
from tests.oracles.routed_frames import GUEST, MAC, number, summed

A = Gateway(1, 41, MAC, ("10.0.0.1/24", "fd00:1::1/64"))
B = Gateway(2, 42, MAC, ("10.0.1.1/24", "fd00:2::1/64"))


@pytest.mark.parametrize(("gateways", "routers", "problem"), [
    ([Gateway(1, 41, MAC, ("10.0.0/24",))], [], "the gateway address '10.0.0/24' is none"),
    ([A, Gateway(1, 42, MAC, ())], [], "a network has two gateways"),
    ([A], [Router((1, 2))], "network 2 has no gateway"),
    ([A, B], [Router((1, 2)), Router((2,))], "a network is joined twice"),
    ([A, B], [Router((1, 1))], "a network is joined twice"),
    ([A, Gateway(2, 42, MAC, ("10.0.0.129/25",))], [Router((1, 2))],
     "the subnets 10.0.0.0/24 and 10.0.0.128/25 overlap"),
    ([A, Gateway(2, 42, MAC, ("10.0.0.9/24",))], [Router((1, 2))],
     "the subnets 10.0.0.0/24 and 10.0.0.0/24 overlap"),
    ([Gateway(1, 41, MAC, ("10.0.0.1/24", "10.0.0.1/16"))], [], "the subnets"),
    ([A], [Router((1,), (("10.1.0.1/16", "10.0.0.9"),))], "'10.1.0.1/16' is no prefix"),
    ([A], [Router((1,), (("10.1.0.0/16", "gate"),))], "the next hop 'gate' of 10.1.0.0/16"),
    ([A], [Router((1,), (("10.1.0.0/16", "10.9.0.1"),))], "is in none of the router's subnets"),
    ([A], [Router((1,), (("10.1.0.0/16", "10.0.0.1"),))], "is the router itself"),
    ([A], [Router((1,), (("10.1.0.0/16", "fd00:1::9"),))], "mixes IPv4 and IPv6"),
    ([A], [Router((1,), (("::/0", "10.0.0.9"),))], "mixes IPv4 and IPv6"),
    ([A], [Router((1,), (("::/0", "fd00:1::9"), ("::/0", "fd00:1::8")))], "two routes to ::/0")])
def test_what_cannot_be(gateways: list[Gateway], routers: list[Router], problem: str) -> None:
    with pytest.raises(RoutingError, match=problem.replace("[", r"\[")) as caught:
        check(gateways, routers)
    assert str(caught.value) == f"{caught.value.problem}; {caught.value.fix}"


def test_what_can_be() -> None:
    """Tenants do not share addresses; a gateway may have several, in one subnet as well."""
    check([A, Gateway(2, 42, MAC, A.addresses), Gateway(4, 44, MAC, ()),
           Gateway(3, 43, MAC, ("10.0.0.1/24", "10.0.0.2/24")),
           Gateway(5, 45, MAC, ("192.0.2.1/32", "192.0.2.2/31", "fd00::/127"))],
          [Router((1,), (("10.0.7.0/24", "10.0.0.7"), ("0.0.0.0/0", "10.0.0.7"))), Router(())])


def test_a_failed_change_changes_nothing() -> None:
    routing = Routing(HZ)
    routing.install([A])
    before = int(routing.record["networks"][0])
    with pytest.raises(RoutingError):
        routing.install([A], [Router((7,))])
    assert int(routing.record["networks"][0]) == before


def test_what_is_replaced_is_kept_for_those_who_read() -> None:
    """The tables go to the callback; nothing else holds them."""
    routing = Routing(HZ)
    kept: list[Any] = []
    routing.on_moved(kept.append)
    routing.install([A])
    first = kept.pop()
    assert int(first.networks[0]) == 0
    routing.install([A, B], [Router((1, 2))])
    assert [int(word) for word in kept[0].networks[:1]] == [2]
    del first
    gc.collect()
    assert int(kept[0].networks[2]) != 0


@pytest.mark.parametrize(("mac", "text"), [
    (0x020000000001, "fe80::ff:fe00:1/64"), (0x525400ABCDEF, "fe80::5054:ff:feab:cdef/64"),
    (0xFEFFFFFFFFFE, "fe80::fcff:ffff:feff:fffe/64")])
def test_link_local_addresses(mac: int, text: str) -> None:
    """RFC 4291, appendix A, where the universal/local bit is turned round."""
    assert str(link_local(mac)) == text


def packet(to: bytes) -> bytes:
    """A frame to the gateway."""
    header = bytes.fromhex("45000014 00000000 40110000 0a000002") + to
    return number(MAC) + number(GUEST) + b"\x08\0" + summed(header)


def test_a_change_is_seen_at_once() -> None:
    """Between two batches: the first goes on into network 2, the second has no route."""
    routed = Routed([A, B], [Router((1, 2))])
    routed.know(2, "10.0.1.2", GUEST + 1)
    frame = packet(bytes([10, 0, 1, 2]))
    found, = routed.send([frame], 1, 7)
    assert (found.network, found.port) == (2, 42)
    routed.routing.install([A, B])
    found, = routed.send([frame], 1, 7)
    assert found.answer
    assert routed.counted == {"no_route": 1}
    routed.routing.install([])
    found, = routed.send([frame], 1, 7)
    assert found.frame == frame
    assert (found.answer, found.drop) == (False, None)


def test_mac_addresses_of_any_first_byte() -> None:
    """The key of one above 7f:... is a negative number."""
    mac = 0xFEFFFFFFFFFD
    routed = Routed([Gateway(0, 41, mac, ("10.0.0.1/24", "10.0.1.1/24"))])
    routed.know(0, "10.0.1.2", 0xFAFFFFFFFFFF)
    found, = routed.send([number(mac) + packet(bytes([10, 0, 1, 2]))[6:]], 0, 7)
    assert (found.network, found.port) == (0, 41)
    assert found.frame[:12] == number(0xFAFFFFFFFFFF) + number(mac)


def test_a_change_costs_what_it_changes() -> None:
    """Of many tenants, those whose networks and routes are as before keep their tables."""
    gateways = [Gateway(k, 1000 + k, MAC, (f"10.{k}.0.1/24",)) for k in range(100)]
    routers = [Router((k, k + 1)) for k in range(0, 100, 2)]
    routing = Routing(HZ)
    kept: list[Any] = []
    routing.on_moved(kept.append)
    routing.install(gateways, routers)
    routing.install(gateways[1:], [Router((1,)), *routers[1:]])
    before, now = kept[1], routing._installed
    assert len(set(before.parts) - set(now.parts)) == len(set(now.parts) - set(before.parts)) == 1
    for key in set(before.parts) & set(now.parts):
        assert before.parts[key] is now.parts[key]
    assert list(before.networks[3:]) == list(now.networks[3:])
    assert (int(before.networks[1]) == 0, int(now.networks[1]) == 0) == (False, True)
