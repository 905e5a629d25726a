# SPDX-License-Identifier: Apache-2.0
"""The vhost-user port: its states and reasons, its socket, rings that stop, start and change."""

import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from byway.control.problem import EngineError
from byway.machine import sigbus, unixsocket
from byway.machine.regions import Region
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest
from byway.vhost.connection import Closed
from byway.vhost.frontend import FrontEnd
from byway.vhost.messages import ProtocolError, Request
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch, mac

SOME = mask(Feature.VERSION_1)


def frame(guest: Guest, length: int = 60) -> bytes:
    return ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, bytes(length - 14))


def said(switch: RunningSwitch, port: str = "vm1") -> tuple[str, str]:
    status = switch.port(port)
    return status["state"], status["reason"]


def test_states_and_reasons(switch: RunningSwitch) -> None:
    switch.vhost("vm1")
    assert said(switch) == ("waiting", "no front end has connected yet")
    front = FrontEnd.connect(switch.socket("vm1"))
    front.negotiate(SOME)
    assert said(switch) == ("waiting", "the front end has not started its rings yet")
    front.close()
    switch.until(lambda: said(switch)[1].startswith("the front end hung up"))
    assert said(switch)[0] == "waiting"
    with switch.guest("vm1", 1):
        assert said(switch) == ("up", "")
    switch.until(lambda: said(switch)[0] == "waiting")


def test_a_front_end_that_breaks_the_protocol(switch: RunningSwitch) -> None:
    switch.vhost("vm1")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(switch.socket("vm1"))
        raw.sendall(b"\xff" * 12)
        switch.until(lambda: said(switch)[0] == "down")
        assert said(switch)[1].startswith("the front end broke the protocol: ")
        raw.settimeout(5.0)
        assert raw.recv(100) == b""
    with switch.guest("vm1", 1):
        assert said(switch) == ("up", "")


def test_one_front_end_at_a_time(switch: RunningSwitch) -> None:
    switch.vhost("vm1")
    with switch.guest("vm1", 1):
        second = FrontEnd.connect(switch.socket("vm1"))
        with pytest.raises((Closed, ProtocolError)):
            second.negotiate(SOME)
        second.close()
        assert said(switch) == ("up", "")


def test_no_file_descriptors_left(switch: RunningSwitch) -> None:
    """A front end that cannot be accepted is accepted later."""
    switch.vhost("vm1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as raw:
        said(switch)
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        spare = [os.dup(0) for _ in range(used)]  # no holes below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(spare[-1], soft), hard))
        try:
            raw.connect(switch.socket("vm1"))
            switch.until(lambda: "could not be accepted" in said(switch)[1])
            assert said(switch)[0] == "waiting"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
        switch.until(lambda: "has not started its rings" in said(switch)[1])


class TestSocket:
    """Where it listens, and what it says where it cannot."""

    def test_is_private_and_goes_with_the_port(self, switch: RunningSwitch) -> None:
        switch.vhost("vm1")
        path = Path(switch.socket("vm1"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        switch.remove("vm1")
        assert not path.exists()

    @pytest.mark.parametrize("mode", ["server", "client"])
    def test_in_a_directory_that_is_missing(self, switch: RunningSwitch, mode: str) -> None:
        path = str(switch.folder / "none" / "vm1.sock")
        with pytest.raises(EngineError, match=r'"vm1": socket: .*none does not exist') as error:
            switch.add("vhost-user", "vm1", socket=path, mode=mode)
        assert "mkdir -p" in error.value.fix
        assert switch.call(switch.engine.ports) == []

    def test_in_the_place_of_a_file(self, switch: RunningSwitch) -> None:
        path = switch.folder / "precious"
        path.write_text("data")
        with pytest.raises(EngineError, match="exists and is no socket"):
            switch.add("vhost-user", "vm1", socket=str(path))
        assert path.read_text() == "data"

    def test_that_is_taken(self, switch: RunningSwitch) -> None:
        switch.vhost("vm1")
        with pytest.raises(EngineError, match="is in use by another process"):
            switch.add("vhost-user", "vm2", socket=switch.socket("vm1"))
        assert said(switch)[0] == "waiting"

    def test_that_is_left_over(self, switch: RunningSwitch) -> None:
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(switch.socket("vm1"))
        switch.vhost("vm1")
        switch.guest("vm1", 1).close()

    def test_dialled_again_and_again(self, switch: RunningSwitch) -> None:
        """Client mode: nobody listens, then somebody does, hangs up, and accepts again."""
        switch.add("vhost-user", "vm1", mode="client")
        state, reason = said(switch)
        assert state == "waiting"
        assert reason.startswith(f"no front end listens at {switch.socket('vm1')}")
        listener = unixsocket.listen(switch.socket("vm1"))
        for _ in range(2):
            guest = Guest(FrontEnd.accept(listener), mac(1))
            switch.until(lambda: said(switch) == ("up", ""))
            guest.close()
            switch.until(lambda: said(switch)[0] == "waiting")
        switch.remove("vm1")
        unixsocket.close(listener)


class TestFeatures:
    """What is offered and taken, as the status shows it."""

    def test_switched_off(self, switch: RunningSwitch) -> None:
        switch.add("vhost-user", "vm1", features={"off": ["mrg_rxbuf", "event_idx"]})
        front = FrontEnd.connect(switch.socket("vm1"))
        front.negotiate(mask(Feature.VERSION_1, Feature.MRG_RXBUF, Feature.EVENT_IDX))
        features = switch.port("vm1")["features"]
        assert not {"mrg_rxbuf", "event_idx"} & set(features["offered"])
        assert features["acked"] == ["protocol_features", "version_1"]
        front.close()

    def test_are_forgotten_with_the_connection(self, switch: RunningSwitch) -> None:
        switch.vhost("vm1")
        switch.guest("vm1", 1, features=mask(Feature.MRG_RXBUF), size=128).close()
        switch.until(lambda: said(switch)[0] == "waiting")
        status = switch.port("vm1")
        assert (status["features"]["acked"], status["rings"]) == ([], [])


class TestRings:
    """Rings stop, start, and change their call fds while frames pass."""

    @pytest.fixture
    def guests(self, switch: RunningSwitch) -> tuple[Guest, Guest]:
        switch.vhost("vm1", "vm2")
        return switch.guest("vm1", 1), switch.guest("vm2", 2)

    def passes(self, switch: RunningSwitch, one: Guest, other: Guest) -> bool:
        """Does a frame come through?"""
        sent = frame(one)
        assert one.send([sent]) == 1
        switch.settle()
        return other.receive() == [sent]

    def start(self, guest: Guest, index: int, base: int) -> None:
        queue = (guest.rx_queue, guest.tx_queue)[index]
        guest.front.start_ring(index, queue.size, base, queue.desc, queue.avail, queue.used,
                               queue.kick, queue.call)

    def test_stop_and_go_on(self, switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        for _ in range(3):
            assert self.passes(switch, one, two)
            base = two.front.stop_ring(0)
            assert base == switch.port("vm2")["tx_frames"]
            assert said(switch, "vm2") == ("waiting", "the front end stopped its rings")
            assert not self.passes(switch, one, two)
            self.start(two, 0, base)
            assert said(switch, "vm2") == ("up", "")
        assert switch.drops() == {"vm1": {"port_down": 3}}

    def test_disabled(self, switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        one.front.enable_ring(1, False)
        assert not self.passes(switch, one, two)
        assert switch.drops() == {"vm1": {"ring_disabled": 1}}
        one.front.enable_ring(1, True)
        assert self.passes(switch, one, two)

    def test_another_call(self, switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        call = os.eventfd(0, os.EFD_NONBLOCK)
        two.front.set_call(0, call)
        assert not two.wait(0)
        two.region.view[two.rx_queue.avail - two.region.address] = 0  # it wants to be called
        one.send([frame(one)])
        switch.settle()
        assert os.eventfd_read(call) >= 1
        assert len(two.receive()) == 1
        two.front.set_call(0, -1)
        assert self.passes(switch, one, two)
        os.close(call)

    def test_no_kick(self, switch: RunningSwitch) -> None:
        """Without a kick the port is polled for ever."""
        switch.vhost("vm1", "vm2")
        with switch.guest("vm1", 1) as one, switch.guest("vm2", 2) as two:
            base = one.front.stop_ring(1)
            queue = one.tx_queue
            one.front.start_ring(1, queue.size, base, queue.desc, queue.avail, queue.used, -1,
                                 queue.call)
            for now in (1 << 60, 1 << 61):  # each long after anything before
                switch.step(now=now)
            assert switch.worker()["hot_ports"] == 1
            assert self.passes(switch, one, two)

    def test_the_mtu_of_a_guest(self, switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
        one, two = guests
        two.front.set_mtu(1000)
        one.send([frame(one, 1022), frame(one, 1023)])
        switch.settle()
        assert [len(f) for f in two.receive()] == [1022]
        assert switch.drops() == {"vm2": {"over_mtu": 1}}
        with pytest.raises(ProtocolError):
            two.front.set_mtu(9000)

    def test_a_broken_ring(self, switch: RunningSwitch, guests: tuple[Guest, Guest]) -> None:
        """The port goes down; the ring's error fd is the peer's, and is not written."""
        one, _ = guests
        err = os.eventfd(0, os.EFD_NONBLOCK)
        one.front._ring_file(Request.SET_VRING_ERR, 1, err)
        at = one.tx_queue.avail + 2 - one.region.address
        one.region.view[at : at + 2] = 0xFF
        os.eventfd_write(one.tx_queue.kick, 1)
        switch.until(lambda: said(switch)[0] == "down")
        assert "more than a ring ahead" in said(switch)[1]
        with pytest.raises(BlockingIOError):
            os.eventfd_read(err)
        os.close(err)

    @pytest.mark.compiled_only
    def test_memory_that_shrinks_while_no_ring_runs(self, switch: RunningSwitch) -> None:
        """Nobody served the port when it happened: it goes down all the same."""
        def unsealed(size: int, name: str) -> Region:
            fd = os.memfd_create(name)
            os.ftruncate(fd, size)
            return Region(fd, True, size, 0)

        switch.call(sigbus.set_alarm, switch.engine.alarm)
        switch.vhost("vm1")
        with switch.guest("vm1", 1, memory=unsealed) as guest:
            guest.front.stop_ring(0)
            os.ftruncate(guest.region.fd, 0)
            self.start(guest, 0, 0)
            switch.until(lambda: said(switch)[0] == "down")
            assert said(switch)[1] == "the peer truncated the memory that it shares"
        switch.guest("vm1", 1).close()
