# SPDX-License-Identifier: Apache-2.0
"""vhost/memory.py: which regions are taken, and what is left of the others (nothing)."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from byway.machine import sigbus
from byway.machine.regions import Region
from byway.testing.conversation import MEMORY_SIZE, FileKind
from byway.testing.dialogue import Files
from byway.testing.iotlb_kernels import iova_to_host
from byway.vhost.memory import Memory
from byway.vhost.messages import ProtocolError
from byway.vhost.payloads import MemoryRegion
from byway.virtio.memtab import M

PAGE = 4096
WHOLE = MemoryRegion(0x10000, MEMORY_SIZE, 0x7000_0000_0000, 0)


@pytest.fixture
def flag() -> ctypes.c_int64:
    return ctypes.c_int64(0)


@pytest.fixture
def memory(flag: ctypes.c_int64, leaves_nothing: None) -> Iterator[Memory]:
    made = Memory(ctypes.addressof(flag))
    yield made
    made.close()
    made.close()


def parts(n: int) -> list[MemoryRegion]:
    size = MEMORY_SIZE // n
    return [MemoryRegion(i * size, size, (1 << 40) + i * size, i * size) for i in range(n)]


def count(memory: Memory) -> int:
    return ctypes.c_int64.from_address(memory.table + M.n).value


def test_replace_and_translate(memory: Memory, files: Files) -> None:
    fd = files.get(FileKind.MEMORY)
    os.pwrite(fd, b"here", PAGE + 5)
    memory.replace([MemoryRegion(0x10000, 2 * PAGE, 0x7000_0000_0000, PAGE)], [fd])
    host = memory.user_to_host(0x7000_0000_0005, 4)
    assert host is not None
    assert ctypes.string_at(host, 4) == b"here"
    assert iova_to_host(memory.table, 0x10005, 4, 0) == host
    os.fstat(fd)  # the descriptor stays the caller's


def test_translation_ends_at_the_region(memory: Memory, files: Files) -> None:
    fd = files.get(FileKind.MEMORY)
    memory.replace(parts(2), [fd, fd])
    half = MEMORY_SIZE // 2
    assert memory.user_to_host((1 << 40) + half - 4, 4) is not None
    assert memory.user_to_host((1 << 40) + half - 4, 5) is None, "not across two mappings"
    assert memory.user_to_host((1 << 40) - 1, 1) is None
    assert memory.user_to_host((1 << 40) + MEMORY_SIZE, 1) is None
    assert memory.user_to_host((1 << 64) - 1, 2) is None
    assert memory.user_to_host(1 << 40, 1 << 64) is None


def test_the_table_lists_the_largest_first(memory: Memory, files: Files) -> None:
    fd = files.get(FileKind.MEMORY)
    small, large = MemoryRegion(0, PAGE, 1 << 40, 0), MemoryRegion(1 << 20, 4 * PAGE, 1 << 41, 0)
    memory.replace([small, large], [fd, fd])
    assert count(memory) == 2
    assert ctypes.c_int64.from_address(memory.table + M.gpa).value == 1 << 20


def test_add_and_remove(memory: Memory, files: Files) -> None:
    fd = files.get(FileKind.MEMORY)
    first, second = parts(2)
    memory.add(first, fd)
    memory.add(second, fd)
    assert memory.regions == [first, second]
    kept = memory.user_to_host(second.user, 1)
    # "VHOST_USER_REM_MEM_REG": the mmap offset does not matter.
    memory.remove(MemoryRegion(first.gpa, first.size, first.user, 0xBAD))
    assert memory.regions == [second]
    assert memory.user_to_host(second.user, 1) == kept
    with pytest.raises(ProtocolError, match="never added"):
        memory.remove(first)
    assert count(memory) == 1


def test_at_most_64_regions(memory: Memory, files: Files) -> None:
    fd = files.get(FileKind.MEMORY)
    for part in parts(64):
        memory.add(part, fd)
    with pytest.raises(ProtocolError, match="more than 64"):
        memory.add(MemoryRegion(1 << 30, PAGE, 1 << 50, 0), fd)
    with pytest.raises(ProtocolError, match="65 memory regions"):
        memory.replace([WHOLE] * 65, [fd] * 65)


@pytest.mark.parametrize(("region", "says"), [
    (MemoryRegion(0, 0, 0, 0), "empty"),
    (MemoryRegion((1 << 64) - PAGE, PAGE, 0, 0), "guest address"),
    (MemoryRegion(1 << 62, PAGE, 0, 0), "guest address"),
    (MemoryRegion(0, PAGE, (1 << 64) - 1, 0), "user address"),
    (MemoryRegion(0, PAGE, 0, (1 << 64) - PAGE), "file offset"),
    (MemoryRegion(0, (1 << 64) - 1, 0, 0), "wraps"),
    (MemoryRegion(1 << 30, MEMORY_SIZE + 1, 0, 0), "into a file of"),
    (MemoryRegion(1 << 30, MEMORY_SIZE, 0, 1), "into a file of"),
    (MemoryRegion(0x10000 + MEMORY_SIZE - 1, PAGE, 1 << 40, 0), "overlaps the memory region"),
    (MemoryRegion(1 << 40, PAGE, WHOLE.user + 8, 0), "overlaps the user addresses"),
    (MemoryRegion(1 << 50, 1 << 42, 1 << 50, 0), "more than 0x40000000000"),
    (WHOLE, "overlaps"),
])
def test_bad_regions(memory: Memory, files: Files, region: MemoryRegion, says: str) -> None:
    fd = files.get(FileKind.MEMORY)
    memory.add(WHOLE, fd)
    with pytest.raises(ProtocolError, match=says):
        memory.add(region, fd)
    with pytest.raises(ProtocolError, match=says):
        memory.replace([WHOLE, region], [fd, fd])
    assert memory.regions == [WHOLE]
    assert memory.user_to_host(WHOLE.user, MEMORY_SIZE) is not None


@pytest.mark.parametrize(("kind", "says"), [
    (FileKind.EVENT, "no memory file"),
    (FileKind.PIPE, "no memory file"),
    (FileKind.CLOSED_SOCKET, "no memory file"),
    (FileKind.DIRECTORY, "no memory file"),
    (FileKind.DEVICE, "no memory file"),
    (FileKind.DISK, "a disk or network"),
    (FileKind.SHORT_MEMORY, "a file of 0x1000"),
    (FileKind.EMPTY_MEMORY, "a file of 0x0"),
    (FileKind.READ_ONLY_MEMORY, "cannot be mapped: cannot map"),
])
def test_wrong_files(memory: Memory, files: Files, kind: FileKind, says: str) -> None:
    first, second = parts(2)
    with pytest.raises(ProtocolError, match=says):
        memory.replace([first, second], [files.get(FileKind.MEMORY), files.get(kind)])
    assert memory.regions == []


def test_as_many_files_as_regions(memory: Memory, files: Files) -> None:
    with pytest.raises(ProtocolError, match="1 memory regions with 0 file"):
        memory.replace([WHOLE], [])


def test_the_same_memory_is_known_again(memory: Memory, files: Files) -> None:
    fd, other = files.get(FileKind.MEMORY), files.get(FileKind.OTHER_MEMORY)
    assert memory.is_same([], [])
    memory.replace([WHOLE], [fd])
    copy = os.dup(fd)
    assert memory.is_same([WHOLE], [copy])
    os.close(copy)
    assert not memory.is_same([WHOLE], [other])
    assert not memory.is_same([WHOLE], [])
    assert not memory.is_same(parts(1), [fd])
    assert not memory.is_same([], [])


def test_guards_come_and_go(memory: Memory, files: Files) -> None:
    def first_free() -> int:
        slot = sigbus.add(1 << 45, PAGE)
        sigbus.remove(slot)
        return slot

    free = first_free()
    memory.replace([WHOLE], [files.get(FileKind.MEMORY)])
    assert sigbus.info(free)["size"] == MEMORY_SIZE
    memory.close()
    assert first_free() == free


@pytest.mark.compiled_only
def test_truncation_after_the_check(memory: Memory, flag: ctypes.c_int64) -> None:
    sigbus.install()
    fd = os.memfd_create("shrinks")
    os.ftruncate(fd, MEMORY_SIZE)
    memory.replace([WHOLE], [fd])
    host = memory.user_to_host(WHOLE.user + PAGE, 1)
    assert host is not None
    os.ftruncate(fd, 0)
    os.close(fd)
    assert flag.value == 0
    assert ctypes.string_at(host, 1) == b"\0"
    assert flag.value == 1


@pytest.mark.usefixtures("huge_pages")
def test_huge_pages(memory: Memory) -> None:
    huge = Region.create(4 << 20, hugetlb=True)
    # Two regions of one file, the second in the middle of a huge page.
    memory.replace([MemoryRegion(0, 1 << 20, 1 << 40, 0),
                    MemoryRegion(1 << 20, 3 << 20, 1 << 41, 1 << 20)], [huge.fd, huge.fd])
    huge.view[(1 << 20) + 3] = 77
    host = memory.user_to_host((1 << 41) + 3, 1)
    assert host is not None
    assert ctypes.string_at(host, 1) == b"M"
    huge.close()
