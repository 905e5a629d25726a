# SPDX-License-Identifier: Apache-2.0
"""Keys: how they are packed into words, read, shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.nf.keys import BITS, FLOW, Flow, Place, pack, read, read_key, show, show_key

ADDRESSES = st.integers(0, (1 << 128) - 1)
FLOWS = st.builds(lambda src, dst, ports, protocol: Flow(6, src, dst, *ports, protocol),
                  ADDRESSES, ADDRESSES, st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
                  st.integers(0, 255)) | st.just(Flow()) | st.just(Flow(4, 1, 2, 3, 4, 6))
PARTS = {**{kind: st.integers(0, (1 << bits) - 1) for kind, bits in BITS.items()},
         "u64": st.integers(-(1 << 63), (1 << 63) - 1), FLOW: FLOWS}


@st.composite
def keys(draw: st.DrawFn) -> tuple[tuple[str, ...], Any]:
    """Types, and a key of them."""
    types = tuple(draw(st.lists(st.sampled_from([*BITS, FLOW]), min_size=1, max_size=2).filter(
        lambda made: made != [FLOW, FLOW])))
    parts = tuple(draw(PARTS[kind]) for kind in types)
    return types, parts[0] if len(parts) == 1 else parts


@given(keys())
def test_a_packed_key_is_the_key(drawn: tuple[tuple[str, ...], Any]) -> None:
    types, key = drawn
    packing = pack(types)
    words = packing.words_of(key)
    assert len(words) == packing.words
    assert packing.key_of(words) == key


@given(keys())
def test_a_key_that_is_shown_can_be_read(drawn: tuple[tuple[str, ...], Any]) -> None:
    types, key = drawn
    if any(isinstance(part, Flow) and part.version == 0
           for part in ([key] if len(types) == 1 else key)):
        return  # what is no packet has no text of its own
    assert read_key(types, show_key(types, key)) == key


def test_where_parts_lie() -> None:
    assert pack(["u32"]).places == ((Place(0, 0, 32),),)
    assert pack(["ipv4", "u16"]).places == ((Place(0, 16, 32),), (Place(0, 0, 16),))
    assert pack(["ipv4", "ipv4", "u16", "u16", "u8"]).words == 2
    # The last one goes where there is room, beside the first.
    assert pack(["u8", "ipv6", "u16"]).places == (
        (Place(0, 16, 8),), (Place(1, 0, 64), Place(2, 0, 64)), (Place(0, 0, 16),))


@pytest.mark.parametrize(("kind", "given_value", "sentence"), [
    ("u8", 256, "256 is no u8; write a number from 0 to 255"),
    ("u16", -1, "-1 is no u16; write a number"),
    ("u32", "many", '"many" is no u32'),
    ("ipv4", "10.0.0", '"10.0.0" is no ipv4; write an address, as 10.0.0.1'),
    ("ipv6", "10.0.0.1", '"10.0.0.1" is no ipv6'),
    ("mac", "02:00", '"02:00" is no mac'),
    ("mac", "02:00:00:00:00:100", "is no mac"),
    ("u8", True, "true is no u8"),
    ("u8", None, "null is no u8"),
    ("u8", Flow(), "a flow is no u8"),
    ("u8", [1], "a list is no u8"),
    ("u32", "7", '"7" is no u32; write a number from 0 to 4294967295'),
    (FLOW, "tcp 10.0.0.1 1 10.0.0.2", "is no flow; write a flow, as tcp 10.0.0.1 1024 10.0.0.2 80"),
    (FLOW, "tcp 10.0.0.1 1 fe80::1 2", "is no flow"),
    (FLOW, "tcp 10.0.0.1 70000 10.0.0.2 1", "is no flow"),
])
def test_what_is_no_value(kind: str, given_value: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(kind, given_value)
    assert sentence in str(caught.value)


def test_what_users_may_write() -> None:
    assert read_key(["u32"], "0x10") == 16
    assert read("u64", (1 << 64) - 1) == -1
    assert show("u64", -1) == (1 << 64) - 1
    assert read("mac", "02-00-00-00-00-0A") == read("mac", "02:00:00:00:00:0a") == 0x02000000000A
    assert read(FLOW, "udp 10.0.0.1 5 10.0.0.2 53") == Flow(4, 10 << 24 | 1, 10 << 24 | 2, 5, 53,
                                                            17)
    assert str(Flow(6, 1, 2, 0, 0, 89)) == "89 ::1 0 ::2 0"


@pytest.mark.parametrize("types", [(), ("u31",), ("ipv4", "flows")])
def test_what_is_no_type(types: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="is no type of a key; write one of u8, u16"):
        pack(types)


def test_a_key_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="a key of 10 words; 8 at the most"):
        pack([FLOW, FLOW])
