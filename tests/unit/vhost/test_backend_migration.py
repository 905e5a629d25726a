# SPDX-License-Identifier: Apache-2.0
"""vhost/log.py and the requests of a guest that moves: dirty log, announcement, config space."""

import ctypes
import os
from collections.abc import Callable

import pytest

from byway.testing.conversation import (
    FEATURES,
    LOG_ALL,
    LOG_SIZE,
    MAC,
    FileKind,
    Step,
    migration,
    ring_address,
)
from byway.testing.dialogue import CONFIG_SPACE, Dialogue, End, Files
from byway.vhost.log import MAX_LOG
from byway.vhost.messages import REPLY, VERSION
from byway.vhost.payloads import Config, Log, VringAddress, unpack_u64
from byway.virtio.ring import LOG_AT
from tests.unit.vhost.conversing import EVENT, R, asked, start, u64


def set_log(size: int, offset: int = 0, kind: FileKind = FileKind.LOG) -> Step:
    return Step(R.SET_LOG_BASE, payload=Log(size, offset).pack(), files=(kind,))


def log_used(index: int, flags: int) -> Step:
    where = ring_address(index)
    return Step(R.SET_VRING_ADDR, payload=VringAddress(
        index, flags, where.desc, where.used, where.avail, 0x1234).pack())


def record(talk: Dialogue) -> tuple[int, int, int]:
    """bits, bytes and memtab of the log that queues would write now."""
    address = talk.back_end.log_record
    assert address
    return tuple(ctypes.c_int64.from_address(address + int(at)).value
                 for at in (LOG_AT.bits, LOG_AT.bytes, LOG_AT.memtab))  # type: ignore[return-value]


def test_migration(talk: Dialogue) -> None:
    replies = talk.play(migration())
    assert talk.end is None, talk.reason
    empty = [m for m in replies if m.request == R.SET_LOG_BASE]
    assert [(m.flags, m.payload) for m in empty] == [(VERSION | REPLY, b"")] * 2
    assert talk.target.announced == [MAC]
    assert talk.back_end.log_record == 0
    assert not any(ring.logged for ring in talk.back_end.rings)


def test_the_log_goes_on_and_off_under_running_rings(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.target.positions[0] = 99
    talk.say(set_log(LOG_SIZE))
    assert talk.back_end.log_record == 0, "not before LOG_ALL"
    talk.say(u64(R.SET_FEATURES, FEATURES | LOG_ALL))
    bits, size, memtab = record(talk)
    assert (size, memtab) == (LOG_SIZE, talk.back_end.memory.table)
    assert bits
    assert not talk.back_end.rings[0].logged
    talk.say(log_used(0, 1))
    assert [r.logged for r in talk.back_end.rings[:2]] == [True, False]
    assert talk.target.served == [0, 1]
    assert talk.target.positions[0] == 99
    talk.play([log_used(0, 0), u64(R.SET_FEATURES, FEATURES)])
    assert (talk.back_end.log_record, talk.back_end.rings[0].logged) == (0, False)
    assert not talk.back_end.log.mapped
    talk.play([set_log(LOG_SIZE), u64(R.SET_FEATURES, FEATURES | LOG_ALL)])
    assert record(talk)[1] == LOG_SIZE


def test_what_is_written_into_the_log_is_the_front_ends(new_talk: Callable[[], Dialogue],
                                                        files: Files) -> None:
    talk = new_talk()
    start(talk, 0, features=FEATURES | LOG_ALL)
    talk.say(set_log(4096, 8192))
    bits, size, _ = record(talk)
    ctypes.c_uint8.from_address(bits + size - 1).value = 0xA5
    assert os.pread(files.get(FileKind.LOG), 1, 8192 + 4095) == b"\xa5"


def test_a_second_log_replaces_the_first(talk: Dialogue) -> None:
    start(talk, 0, features=FEATURES | LOG_ALL)
    talk.say(set_log(4096))
    before = talk.back_end.log_record
    talk.say(set_log(LOG_SIZE))
    assert (talk.back_end.log_record, record(talk)[1]) == (before, LOG_SIZE)
    assert talk.target.attached


def test_log_all_without_a_log(talk: Dialogue) -> None:
    start(talk, 0, features=FEATURES | LOG_ALL)
    assert talk.back_end.log_record == 0


def test_a_log_that_does_not_reach_the_guests_memory_is_taken(talk: Dialogue) -> None:
    """What lies beyond is written without being logged, as the front end asked for."""
    start(talk, 0, features=FEATURES | LOG_ALL)
    talk.say(set_log(1))
    assert record(talk)[1] == 1


@pytest.mark.parametrize(("step", "says"), [
    (set_log(0), "the dirty log is empty"),
    (set_log(LOG_SIZE, 1), "the dirty log ends 0x10001 bytes into a file of 0x10000"),
    (set_log(LOG_SIZE + 1), "the dirty log ends 0x10001 bytes"),
    (set_log((1 << 64) - 1, 1), "the dirty log of 0xffffffffffffffff bytes at offset 0x1"),
    (set_log(1, MAX_LOG), "ends after 0x800000000"),
    (set_log(8, kind=FileKind.EMPTY_MEMORY), "into a file of 0x0"),
    (set_log(8, kind=FileKind.READ_ONLY_MEMORY), "cannot be mapped"),
    (set_log(8, kind=FileKind.DISK), "a disk or network"),
    (set_log(8, kind=FileKind.EVENT), "no memory file"),
    (Step(R.SET_LOG_BASE, payload=bytes(16)), "SET_LOG_BASE with 0 file descriptors"),
    (Step(R.SET_LOG_BASE, payload=bytes(8), files=(FileKind.LOG,)), "SET_LOG_BASE with 8 bytes"),
    (Step(R.SET_LOG_FD, files=(FileKind.PIPE,)), "no event fd"),
    (Step(R.SEND_RARP, payload=bytes(7)), "SEND_RARP with 7 bytes"),
    (Step(R.GET_CONFIG, payload=Config(0, 0, bytes(8)).pack() + b"1"), "8 bytes in 21"),
    (Step(R.GET_CONFIG, payload=bytes(11)), "GET_CONFIG with 11 bytes"),
    (Step(R.SET_CONFIG, payload=Config(0, 0, bytes(257)).pack()), "SET_CONFIG with 269 bytes")])
def test_it_ends_with_a_reason(talk: Dialogue, step: Step, says: str) -> None:
    start(talk, 0, features=FEATURES | LOG_ALL)
    talk.say(step)
    assert talk.end is End.ERROR
    assert says in talk.reason


def test_the_event_fd_of_the_log_is_kept(talk: Dialogue) -> None:
    start(talk, 0)
    talk.say(Step(R.SET_LOG_FD, files=EVENT))
    first = talk.back_end.log_fd
    assert os.path.exists(f"/proc/self/fd/{first}")
    talk.say(Step(R.SET_LOG_FD))
    assert talk.back_end.log_fd == -1
    assert not os.path.exists(f"/proc/self/fd/{first}")
    talk.say(Step(R.SET_LOG_FD, files=EVENT))  # closed with the conversation, says the fixture


@pytest.mark.parametrize("mac", [bytes(6), bytes.fromhex("010000000000"), b"\xff" * 6])
def test_nobodys_address_is_not_announced(talk: Dialogue, mac: bytes) -> None:
    start(talk, 0)
    (reply,) = talk.say(asked(Step(R.SEND_RARP, payload=mac + bytes(2))))
    assert unpack_u64(reply.payload) == 1
    assert (talk.end, talk.target.announced) == (None, [])


def get_config(talk: Dialogue, offset: int, size: int) -> bytes:
    return talk.get(R.GET_CONFIG, Config(offset, 0, bytes(size)).pack())


def test_config_space(talk: Dialogue) -> None:
    start(talk, 0)
    assert get_config(talk, 0, 12) == Config(0, 0, CONFIG_SPACE).pack()
    assert get_config(talk, 6, 2) == Config(6, 0, b"\1\0").pack()
    assert Config.unpack(get_config(talk, 0, 256)).data == CONFIG_SPACE.ljust(256, b"\0")
    assert get_config(talk, 255, 1) == Config(255, 0, b"\0").pack()
    assert get_config(talk, 1, 256) == b"", "an error has no payload"
    assert get_config(talk, 0xFFFFFFFF, 4) == b""


def test_config_space_is_read_only(talk: Dialogue) -> None:
    start(talk, 0)
    same = asked(Step(R.SET_CONFIG, payload=Config(0, 1, CONFIG_SPACE).pack()))
    (reply,) = talk.say(same)
    assert unpack_u64(reply.payload) == 0
    for offset, data in ((0, b"\x02"), (250, bytes(7)), (0xFFFFFFFF, b"\0")):
        (reply,) = talk.say(asked(Step(R.SET_CONFIG, payload=Config(offset, 0, data).pack())))
        assert unpack_u64(reply.payload) == 1
    assert talk.end is None
