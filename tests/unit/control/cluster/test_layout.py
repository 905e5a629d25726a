# SPDX-License-Identifier: Apache-2.0
"""What keys and values mean, and that nothing else than a sentence comes of a bad one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.control.cluster.layout import (
    HostValue,
    Layout,
    address_text,
    entry_value,
    mac_text,
    packed,
)

LAYOUT = Layout("/byway")
MAC = 0x020000000001
ENTRY = LAYOUT.entry("blue", "a", MAC)
IP = bytes(10) + b"\xff\xff\x0a\0\0\1"


def test_what_is_written_is_read() -> None:
    assert LAYOUT.read(ENTRY, entry_value((IP, bytes(15) + b"\1"), 7, ("web",))) == (
        "put_entry", "blue", "a", MAC, (IP, bytes(15) + b"\1"), 7, ("web",))
    assert LAYOUT.read(ENTRY, None) == ("drop_entry", "blue", "a", MAC)
    host = HostValue("2001:db8::1", ("red", "blue"), "life").encode()
    assert LAYOUT.read(LAYOUT.host("a"), host) == ("put_host", "a", "2001:db8::1", ("blue", "red"))
    assert LAYOUT.read(LAYOUT.network("blue"), b'{"name":"blue","vni":7}') == (
        "put_network", "blue", {"name": "blue", "vni": 7})
    assert LAYOUT.read(LAYOUT.port("a", "p"), b'{"name":"p"}') == ("put_port", "p", {"name": "p"})
    assert LAYOUT.read(LAYOUT.vni(7), b"blue") is None


def test_equal_groups_are_one_object() -> None:
    value = entry_value((), 1, ("web", "db"))
    one, other = LAYOUT.read(ENTRY, value), LAYOUT.read(ENTRY, value)
    assert one is not None
    assert other is not None
    assert one[-1] is other[-1]


@pytest.mark.parametrize(("key", "value", "why"), [
    (ENTRY, b"", "no JSON"),
    (ENTRY, b"[" * 100_000, "at most 65536"),
    (ENTRY, b"[" * 60_000, "no JSON"),
    (ENTRY, b"[]", "no JSON object"),
    (ENTRY, b'{"generation":1,"ips":[],"\\ud800":0}', "no JSON"),
    (ENTRY, b'{"generation":1,"ips":[],"x":"\xed\xa0\x80"}', "no JSON"),
    (ENTRY, b'{"generation":true,"ips":[]}', "generation"),
    (ENTRY, b'{"generation":0,"ips":[]}', "generation"),
    (ENTRY, b'{"generation":1e300,"ips":[]}', "generation"),
    (ENTRY, b'{"generation":9223372036854775807,"ips":[]}', "generation"),
    (ENTRY, b'{"generation":1,"ips":"10.0.0.1"}', "no list"),
    (ENTRY, b'{"generation":1,"ips":[167772161]}', "no IP address"),
    (ENTRY, b'{"generation":1,"ips":["10.0.0.1/24"]}', "no IP address"),
    (ENTRY, b'{"generation":1,"ips":["10.0.0.1\\u0000"]}', "no IP address"),
    (ENTRY, json.dumps({"generation": 1, "ips": ["::1"] * 65}).encode(), "at most 64"),
    (ENTRY, b'{"generation":1,"ips":[],"groups":["a b"]}', "groups is no list of names"),
    (LAYOUT.entries + "blue/a/02:00:00:00:00", b"{}", "no MAC address"),
    (LAYOUT.entries + "blue/a/02:00:00:00:00:0A", b"{}", "lower case"),
    (LAYOUT.entries + "blue/a/01:00:00:00:00:01", b"{}", "one station"),
    (LAYOUT.entries + "blue/a/00:00:00:00:00:00", b"{}", "one station"),
    (LAYOUT.entries + "blue/a", b"{}", "too few"),
    (LAYOUT.entries + "blue/../02:00:00:00:00:01", b"{}", "no name"),
    (LAYOUT.host("a"), b'{"address":"10.0.0.1","networks":[]}', "instance"),
    (LAYOUT.host("a"), b'{"address":"10.0.0.1","instance":""}', "networks"),
    (LAYOUT.host("a"), b'{"address":null,"networks":[],"instance":""}', "no IP address"),
    *((LAYOUT.host("a"), HostValue(address, (), "").encode(), "one machine")
      for address in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1")),
    (LAYOUT.host("a") + "/b", b"{}", "too few or too many"),
    (LAYOUT.host(""), b"{}", "no name"),
    (LAYOUT.host("x" * 64), b"{}", "no name"),
    (LAYOUT.network("blue"), b'{"name":"red"}', "the key says 'blue'"),
    (LAYOUT.port("a", "p"), b"{}", "the key says 'p'"),
])
def test_what_is_no_valid_model_is_a_sentence(key: str, value: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LAYOUT.read(key, value)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(
                        st.sampled_from(["ips", "generation", "groups", "address", "networks",
                                         "instance", "name"]), inner))


def sentence(key: str, value: bytes) -> str | None:
    """Why they are no valid model; None: they are one."""
    try:
        LAYOUT.read(key, value)
    except ValueError as error:
        return str(error)
    return None


@given(st.sampled_from([ENTRY, LAYOUT.host("a"), LAYOUT.network("n"), LAYOUT.port("a", "p")]),
       JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_no_value_does_anything_else(key: str, value: bytes) -> None:
    assert sentence(key, value) != ""


@given(st.text().map(lambda text: "/byway/entries/" + text))
def test_no_key_does_anything_else(key: str) -> None:
    assert sentence(key, b"{}") != ""


@given(st.ip_addresses())
def test_addresses_there_and_back(address: object) -> None:
    text = str(address)
    assert packed(address_text(packed(text))) == packed(text)


def test_macs_are_written_in_lower_case() -> None:
    assert mac_text(0x02ABCDEF0001) == "02:ab:cd:ef:00:01"
