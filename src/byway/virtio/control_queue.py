# SPDX-License-Identifier: Apache-2.0
"""The virtio-net control queue, both sides: a device that executes commands, a driver that makes
them. Plain Python; the ring is the caller's.

    driver = ControlDriver(features)
    device = ControlDevice(features, mac)
    ack = device.execute(driver.command(Command.PROMISC, True))     # the byte for the buffer's end
    driver.understand(ack, len(ack))                                # ControlError if refused

Used by whoever owns a control queue (with QEMU's vhost-user devices that is QEMU) and by tests.
VIRTIO 1.2, 5.1.6.5; control_commands.py has the table of commands.

Theory of operation
-------------------
``execute`` takes all readable bytes of a buffer as one string, however the driver cut them (2.7.4),
and answers with the byte for its first writable one. The state has changed by then (5.1.6.5.2,
5.1.6.5.4, 5.1.6.5.6.2), completely or, with ERR, not at all. Whatever the bytes are, there is an
answer and no exception; what is kept of them is bounded by Limits and by the number of VLANs. More
addresses than fit make the filter pass all of their sort, as the specification allows (5.1.6.5.2,
first footnote).

Not reentrant: one control queue, one thread.
"""

from dataclasses import dataclass, field
from typing import Any

from byway.virtio.control_commands import (
    ERR,
    OK,
    Command,
    ControlError,
    HashConfig,
    MacTables,
    RssConfig,
    decode,
    encode,
)
from byway.virtio.features import Feature, has, mask, names

# What GUEST_OFFLOADS switches (5.1.6.5.8.1; the two USO bits since VIRTIO 1.3).
GUEST_OFFLOADS = mask(Feature.GUEST_CSUM, Feature.GUEST_TSO4, Feature.GUEST_TSO6, Feature.GUEST_ECN,
                      Feature.GUEST_UFO, Feature.GUEST_USO4, Feature.GUEST_USO6)
_GROUP = 0x01  # in the first byte of a MAC address


@dataclass(frozen=True)
class Limits:
    """What the device's configuration space says (5.1.4), and how much it keeps.

    ``pairs``: max_virtqueue_pairs. ``macs``: addresses of each sort. ``table``, ``key``,
    ``hash_types``: rss_max_indirection_table_length, rss_max_key_size, supported_hash_types.
    """

    pairs: int = 1
    macs: int = 64
    table: int = 128
    key: int = 40
    hash_types: int = 0x1FF


@dataclass
class ControlState:
    """What the driver has asked for; the start is what it is after a reset.

    ``unicast``, ``multicast``: addresses received besides ``mac``; None: all of the sort, because
    there were too many. ``vlans``: VLAN ids received, if CTRL_VLAN was negotiated. ``announce``:
    the driver shall announce itself and has not yet. ``pairs``: queue pairs in use. ``offloads``:
    GUEST_* feature bits in effect. ``rss``: how frames are spread, None: by flow, as the device
    likes. ``hash``: which hashes are reported, None: none.
    """

    mac: bytes
    offloads: int
    promisc: bool = False
    allmulti: bool = False
    alluni: bool = False
    nomulti: bool = False
    nouni: bool = False
    nobcast: bool = False
    unicast: frozenset[bytes] | None = frozenset()
    multicast: frozenset[bytes] | None = frozenset()
    vlans: set[int] = field(default_factory=set)
    announce: bool = False
    pairs: int = 1
    rss: RssConfig | None = None
    hash: HashConfig | None = None


def check_rss(value: RssConfig, limits: Limits) -> None:
    """ControlError where a device of these limits cannot do it (5.1.6.5.7.1)."""
    if len(value.table) > limits.table:
        raise ControlError(f"{len(value.table)} entries, at most {limits.table} are possible")
    if max(value.unclassified, *value.table) >= limits.pairs:
        raise ControlError(f"a receive queue beyond the {limits.pairs} that there are")
    if not 1 <= value.tx_queues <= limits.pairs:
        raise ControlError(f"{value.tx_queues} transmit queues of {limits.pairs}")
    check_hash(value, limits)


def check_hash(value: HashConfig | RssConfig, limits: Limits) -> None:
    """ControlError where a device of these limits cannot calculate it."""
    if value.types & ~limits.hash_types:
        raise ControlError(f"hash types {value.types:#x}, supported are {limits.hash_types:#x}")
    if len(value.key) > limits.key:
        raise ControlError(f"a key of {len(value.key)} bytes, at most {limits.key} are possible")


def check(command: Command, value: Any, features: int, limits: Limits) -> None:
    """ControlError where a command may not be sent to a device with these features and limits."""
    if not has(features, Feature.CTRL_VQ) or not has(features, command.feature):
        raise ControlError(f"{command.name} without {command.feature.name}")
    if command is Command.VQ_PAIRS and value > limits.pairs:
        raise ControlError(f"{value} queue pairs of {limits.pairs}")
    if command is Command.MAC_ADDRESS and value[0] & _GROUP:
        raise ControlError(f"{value.hex(':')} is a group address")
    if command is Command.GUEST_OFFLOADS and value & ~(features & GUEST_OFFLOADS):
        beyond = names(value & ~(features & GUEST_OFFLOADS))
        raise ControlError(f"not negotiated: {', '.join(beyond)}")
    if command is Command.RSS_CONFIG:
        check_rss(value, limits)
    if command is Command.HASH_CONFIG:
        check_hash(value, limits)


class ControlDevice:
    """The device's side. ``features``: negotiated. ``mac``: 6 bytes, the device's own.

    ``refusal``: why the last command was answered with ERR, "" where it was not.
    """

    def __init__(self, features: int, mac: bytes, limits: Limits | None = None) -> None:
        self.features, self.limits = features, limits or Limits()
        self._mac = mac
        self.reset()

    def reset(self) -> None:
        """Back to the start (5.1.6.5.2: an empty MAC table; all negotiated offloads in effect)."""
        self.state = ControlState(self._mac, self.features & GUEST_OFFLOADS)
        self.refusal = ""

    def ask_to_announce(self) -> None:
        """Set ANNOUNCE in the status (5.1.6.5.4); the caller says so to the driver."""
        if has(self.features, Feature.GUEST_ANNOUNCE):
            self.state.announce = True

    def execute(self, data: bytes) -> bytes:
        """Execute a command; -> what belongs into the writable part of its buffer: OK or ERR."""
        self.refusal = ""
        try:
            command, value = decode(data)
            check(command, value, self.features, self.limits)
        except ControlError as error:
            self.refusal = str(error)
            return bytes([ERR])
        self._apply(command, value)
        return bytes([OK])

    def _apply(self, command: Command, value: Any) -> None:
        state = self.state
        match command:
            case (Command.PROMISC | Command.ALLMULTI | Command.ALLUNI | Command.NOMULTI
                  | Command.NOUNI | Command.NOBCAST):
                setattr(state, command.name.lower(), value)
            case Command.MAC_TABLE:
                self._set_tables(value)
            case Command.MAC_ADDRESS:
                state.mac = value
            case Command.VLAN_ADD:
                state.vlans.add(value)
            case Command.VLAN_DEL:
                state.vlans.discard(value)
            case Command.ANNOUNCE_ACK:
                state.announce = False
            case Command.VQ_PAIRS:
                # The last command sent decides between the two ways to steer (5.1.6.5.5).
                state.pairs, state.rss = value, None
            case Command.RSS_CONFIG:
                state.pairs, state.rss = value.tx_queues, value
            case Command.HASH_CONFIG:
                state.hash = value
            case Command.GUEST_OFFLOADS:
                state.offloads = value

    def _set_tables(self, tables: MacTables) -> None:
        most = self.limits.macs
        self.state.unicast, self.state.multicast = (
            found if len(found) <= most else None
            for found in (frozenset(tables.unicast), frozenset(tables.multicast)))


class ControlDriver:
    """The driver's side. ``features``: negotiated. ``limits``: what the device says of itself."""

    def __init__(self, features: int, limits: Limits | None = None) -> None:
        self.features, self.limits = features, limits or Limits()

    def command(self, command: Command, value: Any = None) -> bytes:
        """The readable part of a command's buffer; a writable byte goes behind it.

        ControlError where the specification forbids a driver to send it: its feature was not
        negotiated, or the value is more than the device has.
        """
        data = encode(command, value)
        check(command, value, self.features, self.limits)
        return data

    def understand(self, written: bytes, used: int) -> None:
        """What the device answered: ``used`` bytes it says, of the writable ones ``written``.

        ControlError for anything but OK.
        """
        if used != 1 or len(written) < 1:
            raise ControlError(f"the device wrote {used} bytes, an answer has 1")
        if written[0] == ERR:
            raise ControlError("the device refused the command")
        if written[0] != OK:
            raise ControlError(f"the device answered {written[0]}, which means nothing")
