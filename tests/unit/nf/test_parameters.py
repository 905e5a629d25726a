# SPDX-License-Identifier: Apache-2.0
"""Parameters: what users give, what functions see, and the words of an instance's record."""

from typing import Annotated, Any, Literal

import pytest

from byway import nf
from byway.nf.parameters import REQUIRED, from_description, parameter


def _seven(name: str) -> int:
    return {"uplink": 7}.get(name, -1)


@pytest.mark.parametrize(("kind", "given", "seen", "words", "shown"), [
    (int, -5, -5, (-5,), -5),
    (bool, True, True, (1,), True),
    (Literal["a", "b"], "b", "b", (1,), "b"),
    (nf.IPv4, "10.0.0.1", 0x0A000001, (0x0A000001,), "10.0.0.1"),
    (nf.IPv6, "8000::1", (1 << 127) + 1, (-(1 << 63), 1), "8000::1"),
    (nf.Mac, "02:00:00:00:00:0A", 0x02000000000A, (0x02000000000A,), "02:00:00:00:00:0a"),
    (nf.Seconds, 1.5, 1_500_000_000, (1_500_000_000,), 1.5),
    (nf.Seconds, 2, 2_000_000_000, (2_000_000_000,), 2.0),
    (nf.Prefix4, "10.0.0.0/8", nf.Prefix4("10.0.0.0/8"), (10 << 24, 255 << 24), "10.0.0.0/8"),
    (nf.Prefix6, "fe80::/10", nf.Prefix6("fe80::/10"),
     (-(0x180 << 48), 0, -(1 << 54), 0), "fe80::/10"),
    (nf.Port, "uplink", -1, (7,), "uplink"),
    (nf.Port, "", -1, (-1,), ""),
    (nf.Text, "flows.pcap", "flows.pcap", (), "flows.pcap"),
])
def test_the_three_forms(kind: Any, given: Any, seen: Any, words: tuple[int, ...],
                         shown: Any) -> None:
    made = parameter("x", kind, REQUIRED)
    value = made.value(given)
    assert value == seen
    assert made.words(value, _seven) == words
    assert made.size == len(words)
    assert made.shown(value) == shown
    assert made.value(made.shown(value)) == value
    known = parameter("x", kind, given)
    assert from_description("x", known.described) == known


@pytest.mark.parametrize(("kind", "given", "wanted"), [
    (int, 1.5, "a whole number of 64 bits with sign"),
    (int, True, "a whole number"),
    (int, 1 << 63, "a whole number of 64 bits with sign"),
    (bool, 1, "true or false"),
    (Literal["a", "b"], "c", "one of 'a', 'b'"),
    (nf.IPv4, "10.0.0.256", "an IPv4 address"),
    (nf.IPv6, "10.0.0.1", "an IPv6 address"),
    (nf.Mac, "2:0:0:0:0:1", "a MAC address"),
    (nf.Mac, 1 << 48, "a MAC address"),
    (nf.Prefix4, "10.0.0.1/8", "an IPv4 network"),
    (nf.Prefix6, "::1/8", "an IPv6 network"),
    (nf.Seconds, -1, "a number of seconds"),
    (nf.Seconds, float("nan"), "a number of seconds"),
    (nf.Seconds, 1e12, "a number of seconds"),
    (nf.Port, 3, "the name of a port"),
    (nf.Text, 3, "text"),
    (Annotated[int, nf.Range(2, 4)], 5, "a number from 2 to 4"),
    (Annotated[nf.Seconds, nf.Range(0.5, 4)], 0.25, "a number from 0.5 to 4"),
])
def test_what_cannot_be(kind: Any, given: Any, wanted: str) -> None:
    with pytest.raises(nf.ParameterError) as raised:
        parameter("x", kind, REQUIRED).value(given)
    assert str(raised.value).startswith(f"parameter x: {given!r} cannot be; give {wanted}")


@pytest.mark.parametrize("kind", [
    float, str, list[int], Literal[1, 2], Annotated[bool, nf.Range(0, 1)], int | None])
def test_types_that_no_parameter_has(kind: Any) -> None:
    with pytest.raises(TypeError):
        parameter("x", kind, REQUIRED)


def test_a_prefix_says_what_lies_in_it() -> None:
    assert 0x0A010203 in nf.Prefix4("10.0.0.0/8")
    assert 0x0B010203 not in nf.Prefix4("10.0.0.0/8")
    assert nf.IPv6("fe80::1") in nf.Prefix6("fe80::/10")
    assert nf.IPv6("fec0::1") not in nf.Prefix6("fe80::/10")
