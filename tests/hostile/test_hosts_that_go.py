# SPDX-License-Identifier: Apache-2.0
"""A remote host that is removed while its packet is looked at: in the moment between a worker's
search for its entry and the reading of what stands there. Then it is unknown, and nothing else."""

import ipaddress
from collections.abc import Callable

import pytest

from byway.packet import tunnels
from byway.packet.reason import Reason
from byway.ports import tunnel_kernels
from byway.switch import uplink
from byway.testing.frame_batch import FINISHED
from tests.unit.ports.tunnel_bench import HEADER, NETWORK, TUNNEL, Bench, frame
from tests.unit.switch.test_uplink import inner, outer
from tests.unit.switch.uplink_bed import HOST, Bed, Inner

pytestmark = pytest.mark.interpreted_only  # nothing gets in between compiled lines


def then(what: Callable[[], None]) -> Callable[[int, int, int], int]:
    """The search for a host, after which this happens."""
    def search(remotes: int, high: int, low: int) -> int:
        found = int(tunnels.find_remote(remotes, high, low))
        what()
        return found
    return search


@pytest.mark.parametrize("version", [4, 6])
def test_while_the_uplink_looks(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(version)
    packet = bytes(outer(version))
    assert bed.rx([packet]) == [Inner(inner())]
    monkeypatch.setattr(uplink, "find_remote", then(lambda: bed.remotes.drop(HOST[version])))
    assert bed.rx([packet]) == [Reason.UNKNOWN_TUNNEL]
    assert bed.counters[0]["frames"] == 1


@pytest.mark.parametrize("version", [4, 6])
def test_no_frame_without_an_origin_stays_undecided(version: int,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason that there is none: else it would be switched in the uplink's network."""
    bed = Bed(version)
    monkeypatch.setattr(uplink, "decapsulate", lambda *_: -1)
    assert bed.rx([bytes(outer(version))]) == [Reason.UNKNOWN_TUNNEL]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_while_a_socket_is_read(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(address)
    host = ipaddress.ip_address(address).packed
    bench.tell(HEADER + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]
    assert bench.origins == [(NETWORK, TUNNEL)]
    monkeypatch.setattr(tunnel_kernels, "find_remote", then(lambda: bench.remotes.drop(host)))
    bench.tell(HEADER + frame(60))
    assert bench.receive() == [Reason.UNKNOWN_TUNNEL]
    assert bench.origins == [(0, 0xC000)]
    assert bench.host[0]["frames"] == 1
    bench.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_while_its_frames_become_rows(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been looked up is used for the whole message."""
    bench = Bench(address)
    host = ipaddress.ip_address(address).packed
    put = tunnel_kernels.put_frame

    def put_then_drop(*arguments: int) -> int:
        bench.remotes.drop(host)
        return int(put(*arguments))

    monkeypatch.setattr(tunnel_kernels, "put_frame", put_then_drop)
    bench.tell(HEADER + frame(60))
    assert bench.receive() == [(FINISHED, frame(60))]
    assert bench.origins == [(NETWORK, TUNNEL)]
    bench.close()
