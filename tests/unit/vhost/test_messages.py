# SPDX-License-Identifier: Apache-2.0
"""vhost/messages.py and vhost/payloads.py: what is refused of a single message."""

import re
from pathlib import Path

import pytest

from byway.vhost.messages import MAX_PAYLOAD, SPECS, ProtocolError, Request, request_name
from byway.vhost.payloads import (
    Inflight,
    Log,
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    unpack_memory_table,
    unpack_u64,
)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "vhost-user.md"


def test_the_manual_says_what_becomes_of_every_request() -> None:
    served, refused = PAGE.read_text().split("## Requests of the port")[0].split("## Refused")
    for text, expected in ((served, True), (refused, False)):
        rows = re.findall(r"^\| (`[A-Z].*?) \| ([0-9, ]+) \|", text, re.MULTILINE)
        listed = {name: int(number) for names, numbers in rows
                  for name, number in zip(re.findall("`(.*?)`", names), numbers.split(", "),
                                          strict=True)}
        assert listed == {s.name: int(s.number) for s in SPECS.values() if s.served == expected}
    gates = dict(re.findall(r"^\| (`[A-Z].*?) \| [0-9, ]+ \| `([A-Z_]+)` \|", served, re.MULTILINE))
    assert {name: gate for names, gate in gates.items() for name in re.findall("`(.*?)`", names)} \
        == {s.name: s.gate.name for s in SPECS.values() if s.served and s.gate is not None}


def test_names() -> None:
    assert request_name(5) == "SET_MEM_TABLE"
    assert request_name(99) == "request 99"
    assert SPECS[Request.SET_VRING_NUM].name == "SET_VRING_NUM"


@pytest.mark.parametrize("unpack", [VringState.unpack, VringAddress.unpack, MemoryRegion.unpack,
                                    MemoryRegion.unpack_single, Log.unpack, Inflight.unpack,
                                    unpack_u64, RingFile.unpack])
@pytest.mark.parametrize("size", [0, 1, 7, 15, 39, 41, 264])
def test_wrong_sizes(unpack: object, size: int) -> None:
    with pytest.raises(ProtocolError, match=f"of {size} bytes|of {max(0, size - 8)} bytes"):
        unpack(bytes(size))  # type: ignore[operator]


@pytest.mark.parametrize("value", [0x200, 0x1100, 1 << 63])
def test_ring_index_of_more_than_8_bits(value: int) -> None:
    with pytest.raises(ProtocolError, match="more than 8 bits"):
        RingFile.unpack(value.to_bytes(8, "little"))


def test_memory_table_is_bounded() -> None:
    with pytest.raises(ProtocolError, match="9 regions"):
        unpack_memory_table((9).to_bytes(8, "little") + bytes(9 * 32))
    with pytest.raises(ProtocolError, match="in 39 bytes"):
        unpack_memory_table((1).to_bytes(8, "little") + bytes(31))
    assert unpack_memory_table(bytes(8)) == []


def test_every_payload_fits_a_message() -> None:
    assert all(s.payload.fewest <= s.payload.most <= MAX_PAYLOAD for s in SPECS.values())
    assert all(0 <= s.fds[0] <= s.fds[1] for s in SPECS.values())
