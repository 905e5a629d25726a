# SPDX-License-Identifier: Apache-2.0
"""Underlay and tunnels in a running engine: another host is a plain socket with an address of the
loopback network."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from byway.control.actions import (
    AddEntry,
    AddHost,
    AddNetwork,
    RemoveHost,
    RemoveNetwork,
    SetUnderlay,
)
from byway.control.model import EntryConfig, HostConfig, NetworkConfig, UnderlayConfig
from byway.control.problem import EngineError
from byway.packet.offload import GSO_TCPV4
from byway.testing.frame_batch import Unfinished
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.offload_frames import Shape
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch, mac

HERE, THERE, ELSEWHERE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
VNI = 100
HEADER = b"\x08\0\0\0\0\0\x64\0"
FAR = bytes.fromhex("020000000099")
OFFLOADS = mask(Feature.CSUM, Feature.HOST_TSO4, Feature.GUEST_CSUM, Feature.GUEST_TSO4,
                Feature.MRG_RXBUF)


class Remote:
    """Another host's VTEP."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.socket.settimeout(10)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)

    def tell(self, frame: bytes, header: bytes = HEADER) -> None:
        self.socket.sendto(header + frame, (HERE, self.port))

    def heard(self) -> list[bytes]:
        """Every datagram that has come."""
        made = []
        self.socket.setblocking(False)
        try:
            while True:
                made.append(self.socket.recv(65536))
        except BlockingIOError:
            self.socket.settimeout(10)
        return made


def underlay(port: int, **options: Any) -> UnderlayConfig:
    return UnderlayConfig(address=HERE, port=port, **{"mtu": 1500, **options})


@contextmanager
def overlay(switch: RunningSwitch, **options: Any) -> Iterator[Remote]:
    """A network with a VNI, an underlay, and one other host that is flooded to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind((HERE, 0))
        port = found.getsockname()[1]
    switch.apply([SetUnderlay(underlay(port)),
                  AddNetwork(NetworkConfig(name="red", vni=VNI, mtu=1450, **options)),
                  AddHost(HostConfig(name="far", address=THERE, networks=("red",)))])
    remote = Remote(THERE, port)
    with remote.socket:
        yield remote


def test_frames_both_ways(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest:
            question = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"who is there?")
            guest.send([question])
            switch.settle()
            assert remote.heard() == [HEADER + question]
            answer = ethernet(guest.mac, FAR, TEST_ETHERTYPE, b"I am")
            remote.tell(answer)
            switch.settle()
            assert guest.receive() == [answer]
            sent = [ethernet(FAR, guest.mac, TEST_ETHERTYPE, bytes([k]) * (50 + 30 * k))
                    for k in range(40)]
            assert guest.send(sent) == 40
            switch.settle()
            assert remote.heard() == [HEADER + frame for frame in sent]
            (host,) = switch.call(switch.engine.overlay.hosts)
            assert (host["rx_frames"], host["tx_frames"], host["drops"]) == (1, 41, {})
            assert (host["name"], host["address"]) == ("far", THERE)


def test_what_the_network_does_not_know(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            frame = ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"")
            remote.tell(frame, b"\x08\0\0\0\0\0\x65\0")
            remote.tell(frame[:10])
            remote.tell(frame, b"\0" * 8)
            stranger.bind((ELSEWHERE, 0))
            stranger.sendto(HEADER + frame, (HERE, remote.port))
            remote.tell(ethernet(BROADCAST, FAR, TEST_ETHERTYPE, bytes(1451)))
            switch.settle()
            assert guest.receive() == []
            below = switch.call(lambda: switch.engine.overlay.underlay.status())  # type: ignore[union-attr]
            assert below["drops"] == {
                "unknown_vni": 1, "bad_tunnel": 2, "unknown_tunnel": 1, "over_mtu": 1}


def test_from_a_tunnel_to_no_tunnel(switch: RunningSwitch) -> None:
    """Split horizon: what one host floods, its neighbours got from it themselves."""
    with overlay(switch) as remote:
        switch.apply([AddHost(HostConfig(name="other", address=ELSEWHERE, networks=("red",)))])
        other = Remote(ELSEWHERE, remote.port)
        switch.vhost("guest", network="red")
        with other.socket, switch.guest("guest", 1) as guest:
            flooded = ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"all")
            remote.tell(flooded)
            switch.settle()
            assert guest.receive() == [flooded]
            assert (remote.heard(), other.heard()) == ([], [])
            mine = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"all of you")
            guest.send([mine])
            switch.settle()
            assert (remote.heard(), other.heard()) == ([HEADER + mine], [HEADER + mine])


def test_a_large_frame_travels_in_pieces_and_arrives_whole(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1, features=OFFLOADS) as guest:
            shape = Shape(payload=bytes(range(250)) * 240, macs=FAR + guest.mac)
            guest.send([(Unfinished(1, GSO_TCPV4, 1400, 34, 16), shape.build())])
            switch.settle()
            heard = remote.heard()
            assert [len(one) for one in heard] == [1400 + 62] * 42 + [1200 + 62]
            assert b"".join(one[62:] for one in heard) == shape.payload
            back = [HEADER + guest.mac + FAR + one[20:] for one in heard]
            remote.socket.sendmsg([b"".join(back)], [(17, 103, (1462).to_bytes(2, "little"))], 0,
                                  (HERE, remote.port))
            switch.settle()
            ((todo, whole),) = guest.receive_unfinished()
            assert (todo.gso_type, todo.gso_size) == (GSO_TCPV4, 1400)
            assert whole[54:] == shape.payload
            assert switch.port("guest")["tx_frames"] == 1


def test_too_big_for_the_way(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.apply([AddNetwork(NetworkConfig(name="wide", vni=VNI + 1, mtu=9000)),
                      RemoveHost("far"),
                      AddHost(HostConfig(name="far", address=THERE, networks=("wide",)))])
        switch.vhost("guest", network="wide")
        with switch.guest("guest", 1) as guest:
            guest.send([ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, bytes(n))
                        for n in (1450, 1451)])
            switch.settle()
            assert [len(one) for one in remote.heard()] == [1450 + 14 + 8]
            assert switch.call(switch.engine.overlay.hosts)[0]["drops"] == {"too_big": 1}


def test_a_host_that_moves_and_goes(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.vhost("guest", network="red")
        other = Remote(ELSEWHERE, remote.port)
        with other.socket, switch.guest("guest", 1) as guest:
            frame = ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, b"x")
            switch.call(switch.engine.overlay.set_tunnel, "far", ELSEWHERE)
            guest.send([frame])
            remote.tell(ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"old"))
            other.tell(ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"new"))
            switch.settle()
            assert (remote.heard(), other.heard()) == ([], [HEADER + frame])
            assert guest.receive() == [ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"new")]
            switch.apply([RemoveHost("far")])
            guest.send([frame])
            other.tell(frame)
            switch.settle()
            assert other.heard() == []
            assert guest.receive() == []
            assert switch.call(switch.engine.overlay.hosts) == []


def test_who_is_behind_which_host(switch: RunningSwitch) -> None:
    """By an entry: nothing has to be flooded."""
    with overlay(switch, unknown="drop") as remote:
        switch.apply([AddEntry(EntryConfig(network="red", mac=mac(0x99), host="far"))])
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest:
            known = ethernet(FAR, guest.mac, TEST_ETHERTYPE, b"x")
            guest.send([known, ethernet(FAR[:5] + b"\x98", guest.mac, TEST_ETHERTYPE, b"x")])
            switch.settle()
            assert remote.heard() == [HEADER + known]
            assert switch.port("guest")["drops"] == {"unknown_unicast": 1}


def test_an_idle_underlay_is_woken(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.vhost("guest", network="red")
        with switch.guest("guest", 1) as guest:
            switch.settle()
            for _ in range(3):
                switch.step(now=1 << 62)  # idle for ever: all go to sleep
                remote.tell(ethernet(BROADCAST, FAR, TEST_ETHERTYPE, b"wake up"))
                got: list[bytes] = []

                def arrived(got: list[bytes] = got) -> bool:
                    got += guest.receive()
                    return bool(got)

                switch.until(arrived)


def test_an_underlay_that_goes_and_comes(switch: RunningSwitch) -> None:
    with overlay(switch) as remote:
        switch.apply([RemoveHost("far"), SetUnderlay(None), RemoveNetwork("red")])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as freed:
            freed.bind((HERE, remote.port))
        switch.apply([SetUnderlay(underlay(remote.port, checksum="no", dont_fragment=False))])


@pytest.mark.parametrize(("address", "message"), [
    ("192.0.2.1", "192.0.2.1 is none of this machine's addresses"),
    ("127.0.0.1", "is in use already")])
def test_an_underlay_that_cannot_be_had(switch: RunningSwitch, address: str, message: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, 0))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        config = UnderlayConfig(address=address, port=taken.getsockname()[1], mtu=1500)
        with pytest.raises(EngineError, match=message):
            switch.apply([SetUnderlay(config)])


@pytest.mark.parametrize(("address", "message"), [
    (HERE, "is this host's own"), ("2001:db8::1", "is not of the underlay's family")])
def test_hosts_that_cannot_be(switch: RunningSwitch, address: str, message: str) -> None:
    with overlay(switch), pytest.raises(EngineError, match=message):
        switch.apply([AddHost(HostConfig(name="wrong", address=address))])


SENDERS, EACH = 24, 40
ABROAD = bytes.fromhex("02aa000000")


@pytest.mark.timeout(300)
def test_several_workers_hear_and_send(tmp_path: Path) -> None:
    """Each has a socket; flows from a host are spread over them, and none is lost or mixed up."""
    with RunningSwitch(tmp_path, workers=sorted(os.sched_getaffinity(0))[:2]) as switch:
        switch.network()
        with overlay(switch) as remote:
            switch.vhost("guest", network="red")
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SENDERS)]
            try:
                with switch.guest("guest", 1) as guest:
                    for sock in sockets:
                        sock.bind((THERE, 0))
                    got: list[bytes] = []
                    sent: dict[int, list[bytes]] = {}
                    for k, sock in enumerate(sockets):
                        sent[k] = [ethernet(guest.mac, ABROAD + bytes([k]), TEST_ETHERTYPE,
                                            bytes([k, j]) * 100) for j in range(EACH)]
                        for frame in sent[k]:
                            sock.sendto(HEADER + frame, (HERE, remote.port))
                        got += guest.receive_until(EACH)
                    assert len(got) == SENDERS * EACH
                    for k, frames in sent.items():
                        assert [one for one in got if one[11] == k] == frames
                    below = switch.call(
                        lambda: switch.engine.overlay.underlay.rx["frames"].tolist())  # type: ignore[union-attr]
                    assert min(below) > 0
                    assert sum(below) == SENDERS * EACH
                    back = [ethernet(ABROAD + bytes([k]), guest.mac, TEST_ETHERTYPE,
                                     bytes([k]) * 60) for k in range(SENDERS)]
                    assert guest.send(back) == SENDERS
                    assert {remote.socket.recv(2000) for _ in back} == {
                        HEADER + frame for frame in back}
            finally:
                for sock in sockets:
                    sock.close()
