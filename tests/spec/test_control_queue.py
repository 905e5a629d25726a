# SPDX-License-Identifier: Apache-2.0
"""The control queue's commands byte for byte, and what each one does (VIRTIO 1.2, 5.1.6.5)."""

from typing import Any

import pytest

from byway.virtio.control_commands import (
    Command,
    ControlError,
    HashConfig,
    MacTables,
    RssConfig,
    decode,
    encode,
)
from byway.virtio.control_queue import GUEST_OFFLOADS, ControlDevice, ControlDriver, Limits
from byway.virtio.features import Feature, mask

OWN = bytes.fromhex("020000000001")
A, B = bytes.fromhex("020000000002"), bytes.fromhex("020000000003")
GROUP = bytes.fromhex("01005e000001")
KEY = bytes(range(40))
LIMITS = Limits(pairs=4, macs=3, table=8)
EVERYTHING = mask(*Feature)

# (command, value, the bytes, the section)
COMMANDS: list[tuple[Command, Any, str, str]] = [
    (Command.PROMISC, True, "00 00 01", "5.1.6.5.1"),
    (Command.PROMISC, False, "00 00 00", "5.1.6.5.1"),
    (Command.ALLMULTI, True, "00 01 01", "5.1.6.5.1"),
    (Command.ALLUNI, True, "00 02 01", "5.1.6.5.1"),
    (Command.NOMULTI, True, "00 03 01", "5.1.6.5.1"),
    (Command.NOUNI, False, "00 04 00", "5.1.6.5.1"),
    (Command.NOBCAST, True, "00 05 01", "5.1.6.5.1"),
    (Command.MAC_TABLE, MacTables(), "01 00 00000000 00000000", "5.1.6.5.2"),
    (Command.MAC_TABLE, MacTables((A, B), (GROUP,)),
     "01 00 02000000 020000000002 020000000003 01000000 01005e000001", "5.1.6.5.2"),
    (Command.MAC_ADDRESS, A, "01 01 020000000002", "5.1.6.5.2"),
    (Command.VLAN_ADD, 0x123, "02 00 23 01", "5.1.6.5.3"),
    (Command.VLAN_DEL, 4095, "02 01 ff 0f", "5.1.6.5.3"),
    (Command.ANNOUNCE_ACK, None, "03 00", "5.1.6.5.4"),
    (Command.VQ_PAIRS, 4, "04 00 04 00", "5.1.6.5.6"),
    (Command.RSS_CONFIG, RssConfig(0x3F, (0, 1, 2, 3), 1, 3, b"\xaa\xbb"),
     "04 01 3f000000 0300 0100 0000 0100 0200 0300 0300 02 aabb", "5.1.6.5.7.1"),
    (Command.RSS_CONFIG, RssConfig(0, (2,), 0, 1, b""), "04 01 00000000 0000 0000 0200 0100 00",
     "5.1.6.5.7.1"),
    (Command.HASH_CONFIG, HashConfig(0x102, KEY), "04 02 02010000 0000000000000000 28" + KEY.hex(),
     "5.1.6.5.6.4"),
    (Command.GUEST_OFFLOADS, 1 << 1 | 1 << 7 | 1 << 54, "05 00 8200000000004000", "5.1.6.5.8.1"),
]


def device(features: int = EVERYTHING) -> ControlDevice:
    return ControlDevice(features, OWN, LIMITS)


@pytest.mark.parametrize(("command", "value", "written", "section"), COMMANDS)
def test_layouts(command: Command, value: Any, written: str, section: str) -> None:
    data = bytes.fromhex(written)
    assert encode(command, value) == data
    assert decode(data) == (command, value)
    assert ControlDriver(EVERYTHING, LIMITS).command(command, value) == data
    assert device().execute(data) == b"\0"  # VIRTIO_NET_OK


def test_each_command_is_in_the_table() -> None:
    assert {command for command, *_ in COMMANDS} == set(Command)


@pytest.mark.parametrize(("command", "value", "written", "section"), COMMANDS)
def test_a_command_is_as_long_as_it_is(command: Command, value: Any, written: str,
                                       section: str) -> None:
    """Cut anywhere, or with a byte more, it is refused and does nothing."""
    data = bytes.fromhex(written)
    target = device()
    target.ask_to_announce()
    before = vars(target.state).copy()
    for wrong in (*(data[:n] for n in range(len(data))), data + b"\0"):
        assert target.execute(wrong) == b"\1"  # VIRTIO_NET_ERR
        assert vars(target.state) == before
        assert target.refusal


@pytest.mark.parametrize(("command", "value", "written", "section"), COMMANDS)
def test_a_command_needs_its_feature(command: Command, value: Any, written: str,
                                     section: str) -> None:
    """Driver requirements of the section: not to be sent without it. 5.1.3.1: nor without CTRL_VQ.
    """
    for missing in (command.feature, Feature.CTRL_VQ):
        features = EVERYTHING & ~mask(missing)
        assert device(features).execute(bytes.fromhex(written)) == b"\1"
        with pytest.raises(ControlError, match=command.feature.name):
            ControlDriver(features, LIMITS).command(command, value)


@pytest.mark.parametrize(("name", "command"), [
    (name, Command[name.upper()])
    for name in ("promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast")])
def test_receive_modes(name: str, command: Command) -> None:
    """5.1.6.5.1: one byte, 0 (off) or 1 (on)."""
    target = device()
    assert getattr(target.state, name) is False
    assert target.execute(encode(command, True)) == b"\0"
    assert getattr(target.state, name) is True
    for other in (2, 0x80, 0xFF):
        assert target.execute(bytes([0, command.number, other])) == b"\1"
    assert getattr(target.state, name) is True
    assert target.execute(encode(command, False)) == b"\0"
    assert getattr(target.state, name) is False


def test_mac_addresses() -> None:
    """5.1.6.5.2: empty on reset; each table replaces the last; too many are all of their sort."""
    target = device()
    assert (target.state.mac, target.state.unicast) == (OWN, frozenset())
    target.execute(encode(Command.MAC_TABLE, MacTables((A, A, B), (GROUP,))))
    assert (target.state.unicast, target.state.multicast) == ({A, B}, {GROUP})
    many = tuple(bytes([2, 0, 0, 0, 1, k]) for k in range(LIMITS.macs + 1))
    target.execute(encode(Command.MAC_TABLE, MacTables(many, ())))
    assert (target.state.unicast, target.state.multicast) == (None, frozenset())
    target.execute(encode(Command.MAC_TABLE, MacTables(many[1:], many)))
    assert (target.state.unicast, target.state.multicast) == (set(many[1:]), None)
    target.execute(encode(Command.MAC_ADDRESS, B))
    assert target.state.mac == B
    assert target.execute(encode(Command.MAC_ADDRESS, GROUP)) == b"\1"
    assert target.state.mac == B
    target.reset()
    assert (target.state.mac, target.state.unicast) == (OWN, frozenset())


def test_vlans() -> None:
    """5.1.6.5.3."""
    target = device()
    for vlan in (0, 5, 4095, 5):
        assert target.execute(encode(Command.VLAN_ADD, vlan)) == b"\0"
    assert target.state.vlans == {0, 5, 4095}
    for vlan in (5, 6):  # one that is not there
        assert target.execute(encode(Command.VLAN_DEL, vlan)) == b"\0"
    assert target.state.vlans == {0, 4095}
    assert target.execute(bytes.fromhex("02 00 00 10")) == b"\1"  # 4096
    assert target.state.vlans == {0, 4095}


def test_announcing() -> None:
    """5.1.6.5.4: the acknowledgement clears the bit; without the feature it is never set."""
    target = device()
    target.ask_to_announce()
    assert target.state.announce
    assert target.execute(encode(Command.ANNOUNCE_ACK)) == b"\0"
    assert not target.state.announce
    other = device(EVERYTHING & ~mask(Feature.GUEST_ANNOUNCE))
    other.ask_to_announce()
    assert not other.state.announce


@pytest.mark.parametrize("pairs", [0, 5, 0x8000, 0x8001, 0xFFFF])
def test_queue_pairs_that_are_not_there(pairs: int) -> None:
    """5.1.6.5.6.1: from 1 to max_virtqueue_pairs."""
    target = device()
    assert target.state.pairs == 1  # 5.1.6.5.6.2: after a reset receiveq1 only
    assert target.execute(encode(Command.VQ_PAIRS, 3)) == b"\0"
    assert target.execute(bytes([4, 0]) + pairs.to_bytes(2, "little")) == b"\1"
    assert target.state.pairs == 3
    with pytest.raises(ControlError):
        ControlDriver(EVERYTHING, LIMITS).command(Command.VQ_PAIRS, pairs)


def test_the_last_way_to_steer_counts() -> None:
    """5.1.6.5.5."""
    target = device()
    rss = RssConfig(1, (0, 1), 0, 2, KEY)
    target.execute(encode(Command.RSS_CONFIG, rss))
    assert (target.state.rss, target.state.pairs) == (rss, 2)
    target.execute(encode(Command.VQ_PAIRS, 4))
    assert (target.state.rss, target.state.pairs) == (None, 4)
    found = HashConfig(3, KEY)
    target.execute(encode(Command.HASH_CONFIG, found))
    assert (target.state.hash, target.state.pairs) == (found, 4)


@pytest.mark.parametrize("value", [
    RssConfig(0x200, (0,), 0, 1, b""),  # a hash that is not supported
    RssConfig(0, (0,) * 16, 0, 1, b""),  # a table too long
    RssConfig(0, (0, 4), 0, 1, b""), RssConfig(0, (0,), 4, 1, b""),  # queues that are not there
    RssConfig(0, (0x8000,), 0, 1, b""),
    RssConfig(0, (0,), 0, 0, b""), RssConfig(0, (0,), 0, 5, b""),
    RssConfig(0, (0,), 0, 1, bytes(41))])  # a key too long
def test_what_rss_cannot_do(value: RssConfig) -> None:
    """5.1.6.5.7.1, driver requirements; rss_max_key_size and so on of 5.1.4."""
    target = device()
    assert target.execute(encode(Command.RSS_CONFIG, value)) == b"\1"
    assert target.state.rss is None
    with pytest.raises(ControlError):
        ControlDriver(EVERYTHING, LIMITS).command(Command.RSS_CONFIG, value)


def test_indirection_tables_are_powers_of_two() -> None:
    """5.1.6.5.7.1."""
    for n in (0, 3, 5, 6, 7):
        with pytest.raises(ControlError, match="powers of two"):
            encode(Command.RSS_CONFIG, RssConfig(0, (0,) * n, 0, 1, b""))
    data = bytes.fromhex("04 01 00000000 0200 0000 0000 0000 0000 0100 00")  # a mask of 2
    assert device().execute(data) == b"\1"


@pytest.mark.parametrize("wrong", ["01", "0000000000000001"])
def test_reserved_bytes_are_zero(wrong: str) -> None:
    """5.1.6.5.6.4."""
    data = bytes.fromhex("04 02 00000000") + bytes.fromhex(wrong).ljust(8, b"\0") + b"\0"
    assert device().execute(data) == b"\1"


def test_offloads() -> None:
    """5.1.6.5.8.1: all that was negotiated at first; then what the last command says."""
    features = EVERYTHING & ~mask(Feature.GUEST_UFO)
    target = device(features)
    assert target.state.offloads == features & GUEST_OFFLOADS
    for wanted in (0, mask(Feature.GUEST_CSUM), features & GUEST_OFFLOADS):
        assert target.execute(encode(Command.GUEST_OFFLOADS, wanted)) == b"\0"
        assert target.state.offloads == wanted
    for bit in (Feature.GUEST_UFO, Feature.CSUM, Feature.MQ, 63):
        assert target.execute(encode(Command.GUEST_OFFLOADS, 1 << bit)) == b"\1"
        with pytest.raises(ControlError, match="not negotiated"):
            ControlDriver(features, LIMITS).command(Command.GUEST_OFFLOADS, 1 << bit)
    assert target.state.offloads == features & GUEST_OFFLOADS


@pytest.mark.parametrize(("written", "used", "message"), [
    (b"\0", 1, None), (b"\1", 1, "refused"), (b"\2", 1, "means nothing"),
    (b"\xff", 1, "means nothing"), (b"\0", 0, "wrote 0 bytes"), (b"\0", 2, "wrote 2 bytes"),
    (b"", 1, "wrote 1 bytes")])
def test_answers(written: bytes, used: int, message: str | None) -> None:
    """5.1.6.5: VIRTIO_NET_OK 0, VIRTIO_NET_ERR 1, in one byte."""
    driver = ControlDriver(EVERYTHING)
    if message is None:
        driver.understand(written, used)
        return
    with pytest.raises(ControlError, match=message):
        driver.understand(written, used)


@pytest.mark.parametrize(("command", "value"), [
    (Command.MAC_ADDRESS, bytes(5)), (Command.MAC_TABLE, MacTables((bytes(7),))),
    (Command.VLAN_ADD, 4096), (Command.VLAN_ADD, -1), (Command.VQ_PAIRS, 0),
    (Command.HASH_CONFIG, HashConfig(1 << 32, b"")),
    (Command.HASH_CONFIG, HashConfig(0, bytes(256))),
    (Command.RSS_CONFIG, RssConfig(0, (1 << 16,), 0, 1, b"")), (Command.GUEST_OFFLOADS, 1 << 64),
    (Command.MAC_ADDRESS, None), (Command.RSS_CONFIG, 5)])
def test_values_that_no_command_carries(command: Command, value: Any) -> None:
    with pytest.raises(ControlError):
        encode(command, value)
