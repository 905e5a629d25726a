# SPDX-License-Identifier: Apache-2.0
"""A guest whose back end goes away and comes again: it goes on with the same rings."""

from pathlib import Path
from typing import Any

import pytest

from byway.machine.unixsocket import SocketError
from byway.testing.frames import BROADCAST, TEST_ETHERTYPE, ethernet
from byway.testing.guest import Guest, GuestError
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

KINDS = pytest.mark.parametrize("options", [
    {}, {"packed": True}, {"packed": True, "size": 100, "features": mask(Feature.IN_ORDER)},
    {"packed": True, "inflight": True}, {"inflight": True}, {"pairs": 2, "packed": True}],
    ids=lambda options: "-".join(options) or "split")


def numbered(guest: Guest, first: int, n: int) -> list[bytes]:
    return [ethernet(BROADCAST, guest.mac, TEST_ETHERTYPE, k.to_bytes(4, "big") * 12)
            for k in range(first, first + n)]


def again(switch: RunningSwitch, name: str, **options: Any) -> None:
    """The port goes, and one of the same name comes."""
    switch.remove(name)
    switch.add("vhost-user", name, **options)


@KINDS
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path, options: dict[str, Any]) -> None:
    """Frames in the rings when the port goes are carried by the next one, those carried are not
    carried again, and those received are there."""
    queues = options.get("pairs", 1)
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        for name in ("vm1", "vm2"):
            switch.add("vhost-user", name, queues=queues)
        with switch.guest("vm1", 1, **options) as one, switch.guest("vm2", 2, **options) as two:
            for life in range(5):
                carried, waiting = numbered(one, 100 * life, 20), numbered(one, 100 * life + 20, 20)
                assert one.send(carried) == 20
                switch.settle()
                assert one.send(waiting, pair=life % queues) == 20
                again(switch, "vm1", queues=queues)
                one.reconnect(switch.socket("vm1"))
                again(switch, "vm2", queues=queues)
                two.reconnect(switch.socket("vm2"))
                switch.until(lambda: {switch.port(p)["state"] for p in ("vm1", "vm2")} == {"up"})
                switch.settle()
                assert two.receive(1000) == carried + waiting
            assert one.statistics()["sent"] == two.statistics()["received"] == 200


def test_another_back_end(tmp_path: Path) -> None:
    """One that cannot do what the one before it could is of no use to a running guest."""
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1")
        with switch.guest("vm1", 1, packed=True) as guest:
            again(switch, "vm1", features={"off": ["packed"]})
            with pytest.raises(GuestError, match="does not offer ring_packed"):
                guest.reconnect(switch.socket("vm1"))


def test_nobody_comes(tmp_path: Path) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.vhost("vm1")
        with switch.guest("vm1", 1) as guest:
            switch.remove("vm1")
            with pytest.raises(SocketError):
                guest.reconnect(switch.socket("vm1"), 0.05)


@pytest.mark.parametrize(("options", "message"), [
    ({"packed": True}, "RING_PACKED"), ({"pairs": 2}, "1 queue pairs, not 2")])
def test_what_a_back_end_does_not_have(tmp_path: Path, options: dict[str, Any],
                                       message: str) -> None:
    with RunningSwitch(tmp_path, stepped=True) as switch:
        switch.network()
        switch.add("vhost-user", "vm1", features={"off": ["packed"]})
        with pytest.raises(GuestError, match=message):
            Guest.connect(switch.socket("vm1"), mac="02:00:00:00:00:01", **options)
