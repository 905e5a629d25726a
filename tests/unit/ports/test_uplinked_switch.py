# SPDX-License-Identifier: Apache-2.0
"""Tunnels over one of the switch's own ports, in a running engine. A fake guest on that port is the
underlay: it answers ARP as other hosts do, and sees what they would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from byway.control.actions import AddHost, AddNetwork, RemoveHost, SetUnderlay
from byway.control.model import HostConfig, NetworkConfig, UnderlayConfig
from byway.control.problem import EngineError
from byway.control.uplink import mac_for
from byway.packet.offload import GSO_TCPV4, GSO_UDP_L4
from byway.testing.frame_batch import Frame, Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.testing.offload_frames import Shape
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

OWN, THERE, ELSEWHERE = "192.0.2.1", "192.0.2.9", "192.0.2.10"
OWN_MAC = mac_for(bytes([192, 0, 2, 1])).hex(":")
HOST_MAC = "02:00:00:00:00:09"
VNI = 100
FAR = bytes.fromhex("020000000099")
OFFLOADS = mask(Feature.CSUM, Feature.HOST_TSO4, Feature.GUEST_CSUM, Feature.GUEST_TSO4,
                Feature.MRG_RXBUF)


def arp(op: int = 2, ip: str = THERE, mac: str = HOST_MAC) -> bytes:
    """What a host says of itself."""
    return bytes(Ether(src=mac, dst=OWN_MAC) / ARP(op=op, hwsrc=mac, psrc=ip, hwdst=OWN_MAC,
                                                   pdst=OWN))


def packet(frame: bytes, source: str = THERE, vni: int = VNI) -> bytes:
    """What a host sends through its tunnel."""
    return bytes(Ether(src=HOST_MAC, dst=OWN_MAC) / IP(src=source, dst=OWN)
                 / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(flags=8, vni=vni) / Raw(frame))


class Wire:
    """The underlay, as the fake guest at the uplink's port sees it."""

    def __init__(self, switch: RunningSwitch, guest: Guest) -> None:
        self._switch, self._guest = switch, guest

    def tell(self, *frames: Frame) -> None:
        assert self._guest.send(list(frames)) == len(frames)
        self._switch.settle()

    def seen(self) -> list[Any]:
        """All frames that have come, as scapy reads them."""
        self._switch.settle()
        return [Ether(frame) for frame in self._guest.receive()]

    def asks(self) -> list[str]:
        """For whom is asked by ARP now."""
        self._switch.call(self._switch.engine.overlay.tunnels.tick)
        asked = [one[ARP] for one in self.seen() if ARP in one]
        return [one.pdst for one in asked if one.psrc != one.pdst]

    def inside(self) -> list[bytes]:
        """The frames in the packets to the host."""
        found = []
        for one in self.seen():
            assert (one.src, one.dst, one[IP].src, one[IP].dst) == (OWN_MAC, HOST_MAC, OWN, THERE)
            assert one[VXLAN].vni == VNI
            found.append(bytes(one[VXLAN])[8:])
        return found


@contextmanager
def uplinked(switch: RunningSwitch, features: int = 0, **options: Any) -> Iterator[Wire]:
    """A network with a VNI, an uplink, and another host, whose MAC address is not known yet."""
    switch.apply([AddNetwork(NetworkConfig(name="under")),
                  AddNetwork(NetworkConfig(name="red", vni=VNI, mtu=1450))])
    switch.vhost("wire", network="under")
    switch.apply([
        SetUnderlay(UnderlayConfig(address=OWN, uplink="wire", **{"mtu": 1500, **options})),
        AddHost(HostConfig(name="far", address=THERE, networks=("red",)))])
    with switch.guest("wire", 9, **({"features": features} if features else {})) as guest:
        yield Wire(switch, guest)


def test_frames_both_ways(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest:
            question = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"who is there?")
            guest.send([question])
            assert wire.asks() == [THERE]
            wire.tell(arp())
            guest.send([question])
            assert wire.inside() == [question]
            answer = ethernet(guest.mac, FAR, TEST_ETHERTYPE, b"I am")
            wire.tell(packet(answer))
            assert guest.receive() == [answer]
            sent = [ethernet(FAR, guest.mac, TEST_ETHERTYPE, bytes([k]) * (50 + 30 * k))
                    for k in range(40)]
            assert guest.send(sent) == 40
            assert wire.inside() == sent
            (host,) = switch.call(switch.engine.overlay.hosts)
            assert (host["rx_frames"], host["tx_frames"], host["drops"]) == (
                1, 41, {"no_neighbour": 1})


def test_it_says_where_it_is(switch: RunningSwitch) -> None:
    """Once its port is up, and once more when that comes back."""
    def told() -> list[bool]:
        """Is each of the frames to be sent an announcement?"""
        uplinked = switch.engine.overlay.tunnels.uplinked
        assert uplinked is not None
        frames = map(Ether, switch.call(uplinked.questions, 0.0))
        return [one[ARP].psrc == one[ARP].pdst == OWN for one in frames]

    with uplinked(switch):
        assert told() == [True, False]
        assert told() == []
    switch.until(lambda: switch.port("wire")["state"] != "up")
    assert told() == []
    with switch.guest("wire", 9):
        assert told() == [True]


def test_a_large_frame_is_cut_before(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        switch.vhost("guest", network="red")
        wire.tell(arp())
        with switch.guest("guest", 1, features=OFFLOADS) as guest:
            shape = Shape(payload=bytes(range(250)) * 240, macs=FAR + guest.mac)
            guest.send([(Unfinished(1, GSO_TCPV4, 1396, 34, 16), shape.build())])
            inside = wire.inside()
            assert [len(frame) for frame in inside] == [1450] * 42 + [54 + 60_000 - 42 * 1396]
            assert b"".join(frame[54:] for frame in inside) == shape.payload


@pytest.mark.parametrize("count", [2, 44])
def test_many_datagrams_in_one(switch: RunningSwitch, count: int) -> None:
    """As a host on the same machine sends them at once; what comes before and after stays there,
    and what is of no uplink goes on whole."""
    with uplinked(switch, features=mask(Feature.CSUM, Feature.HOST_USO)) as wire:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest:
            inside = [ethernet(guest.mac, FAR, TEST_ETHERTYPE, bytes([k]) * 1400)
                      for k in range(count)]
            datagrams = [packet(frame)[42:] for frame in inside]
            whole = Ether(packet(b"".join(datagrams)[8:]))
            todo = Unfinished(1, GSO_UDP_L4, len(datagrams[0]), 34, 6)
            first, last = (ethernet(guest.mac, FAR, TEST_ETHERTYPE, word) for word in (b"1", b"2"))
            spoiled = Unfinished(1, GSO_UDP_L4, 1, 34, 6)
            beside = (Unfinished(1, 0, 0, 9999, 6), ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b""))
            wire.tell(packet(first), (todo, bytes(whole)), (spoiled, bytes(whole)), beside,
                      packet(last))
            got = []
            while more := guest.receive():
                got += more
                switch.settle()
            assert got == [first, *inside, last]
            assert switch.port("wire")["drops"] == {"bad_offload": 2}
            (host,) = switch.call(switch.engine.overlay.hosts)
            assert host["rx_frames"] == count + 2


def test_its_own_address_answers(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        wire.tell(bytes(Ether(src=HOST_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(
            op=1, hwsrc=HOST_MAC, psrc=THERE, pdst=OWN)))
        answers = [one for one in wire.seen() if ARP in one and one[ARP].op == 2]
        assert [(one.dst, one[ARP].hwsrc, one[ARP].psrc) for one in answers] == [
            (HOST_MAC, OWN_MAC, OWN)]


def test_what_is_dropped(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        frame = ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"")
        wire.tell(packet(frame, vni=VNI + 1), packet(frame, source=ELSEWHERE), packet(frame)[:60],
                  arp())
        assert switch.port("wire")["drops"] == {
            "unknown_vni": 1, "unknown_tunnel": 1, "bad_tunnel": 1, "to_uplink": 1}


def test_the_rest_of_the_port_is_switched(switch: RunningSwitch) -> None:
    """The uplink's port is a port of its network as any other."""
    with uplinked(switch) as wire:
        switch.vhost("other", network="under")
        with switch.guest("other", 2) as other:
            frame = ethernet(other.mac, FAR, TEST_ETHERTYPE, b"not in a tunnel")
            wire.tell(frame)
            assert other.receive() == [frame]


def test_a_host_moves(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        switch.vhost("guest", network="red")
        wire.tell(arp())
        switch.call(switch.engine.overlay.set_tunnel, "far", ELSEWHERE)
        with switch.guest("guest", 1) as guest:
            frame = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"who is there?")
            wire.tell(packet(ethernet(guest.mac, FAR, TEST_ETHERTYPE, b"from before")))
            assert guest.receive() == []
            assert wire.asks() == [ELSEWHERE]
            wire.tell(arp(ip=ELSEWHERE, mac="02:00:00:00:00:0a"))
            guest.send([frame])
            (one,) = wire.seen()
            assert (one.dst, one[IP].dst) == ("02:00:00:00:00:0a", ELSEWHERE)


def test_the_port_goes_and_comes(switch: RunningSwitch) -> None:
    """The tunnels go with it: what is for them is dropped, and nobody touches its queues."""
    with uplinked(switch) as wire:
        switch.vhost("guest", network="red")
        wire.tell(arp())
    with switch.guest("guest", 1) as guest:
        frame = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"who is there?")
        switch.until(lambda: switch.port("wire")["state"] != "up")
        guest.send([frame])
        switch.settle()
        assert switch.port("guest")["drops"] == {"port_down": 1}
        with switch.guest("wire", 9) as underlay:
            wire = Wire(switch, underlay)
            guest.send([frame])
            assert wire.inside() == [frame], "it has not forgotten the host's address"


def test_the_end_of_an_uplink(switch: RunningSwitch) -> None:
    with uplinked(switch) as wire:
        wire.tell(arp())
        switch.apply([RemoveHost("far"), SetUnderlay(None)])
        wire.tell(arp(op=1))
        assert [one for one in wire.seen() if ARP in one and one[ARP].op == 2] == []
        switch.apply([SetUnderlay(UnderlayConfig(address=OWN, uplink="wire", mtu=1500))])
        wire.tell(arp(op=1))
        assert len([one for one in wire.seen() if ARP in one and one[ARP].op == 2]) == 1


def test_an_uplink_that_is_not_there(switch: RunningSwitch) -> None:
    with pytest.raises(EngineError, match='there is no port "nowhere"'):
        switch.apply([SetUnderlay(UnderlayConfig(address=OWN, uplink="nowhere", mtu=1500))])
