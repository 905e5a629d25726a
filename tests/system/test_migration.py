# SPDX-License-Identifier: Apache-2.0
"""A guest moves to another QEMU at another Byway, while it is pinged and streams both ways.

The two switches are chained by a virtio-user and a vhost-user port. The peer of the streams and the
pinger stay at the first one. What Byway writes into the guest's memory reaches the new QEMU only
through the dirty log: a stream that arrives whole is the proof that nothing was left out.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from byway.testing.guest import Guest
from tests.system.peers import kernel
from tests.system.peers.pinger import Pinger
from tests.system.peers.process import wait_until
from tests.system.peers.qemu import Card, Machine, Vm
from tests.system.peers.switch import Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

CHUNK, CHUNKS = 1 << 16, 160
FILE = Random(7).randbytes(CHUNK * CHUNKS)
SUM = hashlib.md5(FILE).hexdigest()
# A chunk every 60 ms: the stream outlasts what happens meanwhile.
SLOWLY = f"""#!/bin/sh
i=0
while [ $i -lt {CHUNKS} ]; do
  dd if=/srv/file bs={CHUNK} skip=$i count=1 2>/dev/null; usleep 60000; i=$((i+1))
done
"""
PORT = 5000
GUEST, PEER, PINGER = "10.4.0.1", "10.4.0.2", "10.4.0.3"
MAC = "02:00:00:04:00:0{}"
SILENCE = 5.0  # seconds without an answer that a migration may cost here; the figure is printed
SLOW = 2 << 20  # bytes a second: a migration that takes long enough to be cancelled


class Lab:
    """Two chained switches; the guest's first QEMU and its peer, both booted."""

    def __init__(
        self, stack: ExitStack, folder: Path, system: tuple[Path, Path], options: str
    ) -> None:
        self.folder, self.system, self.options = folder, system, options
        self.stack = stack
        self.moves = 0
        between = folder / "between.sock"
        for name in ("first", "second"):
            (folder / name).mkdir()
        second = [Port("guest", folder / "guest2.sock"), Port("link", between)]
        first = [Port("guest", folder / "guest1.sock"), Port("peer", folder / "peer.sock")]
        first.append(Port("pinger", folder / "pinger.sock"))
        first.append(Port("link", between, mode="client", kind="virtio-user"))
        self.second = stack.enter_context(Switch(folder / "second", second))
        self.first = stack.enter_context(Switch(folder / "first", first))
        self.first.wait_up("link")
        self.peer = self._vm("peer", Card(folder / "peer.sock", MAC.format(2)), PEER)
        self.vm = self._vm("guest", self._card(1), GUEST)
        for vm in (self.peer, self.vm):
            vm.ready()
            vm.background(f"nc -ll -p {PORT} -e sh /srv/slowly")
        self.first.wait_up("peer", "guest")

    def _card(self, switch: int) -> Card:
        return Card(self.folder / f"guest{switch}.sock", MAC.format(1), self.options)

    def _vm(self, name: str, card: Card, address: str, incoming: str = "") -> Vm:
        machine = Machine(incoming=incoming)
        vm = Vm(name, self.folder, *self.system, [card], f"{address}/24", machine)
        return self.stack.enter_context(vm)

    def pinger(self) -> Pinger:
        """A pinger of the guest, at the first switch."""
        guest = Guest.connect(str(self.folder / "pinger.sock"), MAC.format(3))
        self.stack.enter_context(guest)
        self.first.wait_up("pinger")
        return Pinger(guest, PINGER, GUEST)

    def stream_both_ways(self) -> None:
        """Start a stream to the guest and one from it; `streams_came` waits for their ends."""
        for vm, other in ((self.vm, PEER), (self.peer, GUEST)):
            vm.background(f"nc {other} {PORT} | md5sum >/tmp/sum")

    def streams_came(self) -> None:
        """Both streams arrived as they were sent."""
        for vm in (self.vm, self.peer):
            seen = vm.run("while ! [ -s /tmp/sum ]; do usleep 100000; done; cat /tmp/sum", 90)
            vm.run("rm /tmp/sum")
            assert seen.split()[0] == SUM, vm.name

    def destination(self) -> Vm:
        """A QEMU at the second switch that waits for the guest."""
        self.moves += 1
        name = f"guest-{self.moves}"
        return self._vm(name, self._card(2), GUEST, f"unix:{self.folder}/{name}.move")

    def migrate(self, to: Vm) -> None:
        """Begin to move the guest."""
        uri = f"{self.folder}/{to.name}.move"
        wait_until(Path(uri).exists, "the destination listens", 20)
        self.vm.qmp("migrate", uri=f"unix:{uri}")

    def status(self) -> dict[str, object]:
        """What QEMU says about the migration."""
        answer = self.vm.qmp("query-migrate")
        assert isinstance(answer, dict)
        return answer

    def wait_for(self, status: str, timeout: float = 60.0) -> dict[str, object]:
        """Wait until the migration is completed, cancelled, ..."""

        def reached() -> bool:
            now = self.status().get("status")
            assert now == status or now != "failed", self.status()
            return now == status

        wait_until(reached, f"the migration is {status}", timeout)
        return self.status()

    def logging(self) -> bool:
        """Does the guest's port at the first switch log what it writes?"""
        return "log_all" in self.first.ports()["guest"]["features"]["acked"]


@pytest.fixture(params=["", "packed=on"], ids=["split", "packed"])
def lab(
    request: pytest.FixtureRequest, tmp_path: Path, own_folder: Path,
    guest_system: tuple[Path, Path],
) -> Iterator[Lab]:
    files = {"srv/file": FILE, "srv/slowly": SLOWLY.encode()}
    system = kernel.with_files(guest_system[1], files, tmp_path / "initramfs")
    with ExitStack() as stack:
        yield Lab(stack, own_folder, (guest_system[0], system), request.param)


def test_a_guest_moves(
    lab: Lab, record_property: Callable[[str, object], None], request: pytest.FixtureRequest
) -> None:
    with lab.pinger() as pinger:
        wait_until(lambda: pinger.answers, "the guest answers the pinger", 10)
        lab.stream_both_ways()
        assert not lab.logging()
        cancel(lab)
        to = lab.destination()
        begin = time.monotonic()
        lab.migrate(to)
        told = lab.wait_for("completed")
        lab.vm.qmp("quit")
        lab.vm.child.wait(10)
        lab.vm = to
        lab.second.wait_up("guest")
        lab.streams_came()
        silence = pinger.silence(begin)
        came, asked, twice = len(pinger.answers), pinger.sent, pinger.twice
    record_property("silence_seconds", round(silence, 3))
    record_property("downtime_milliseconds", told["downtime"])
    print(f"moved: {1000 * silence:.0f} ms without an answer, {asked - came} of {asked} pings lost,"
          f" {told['downtime']} ms of downtime by QEMU's account")
    assert silence < SILENCE
    assert asked - came <= silence / pinger.interval + 2
    assert twice == 0
    entries = {row["mac"]: row["port"] for row in lab.first.command("fdb", "list")}
    assert entries[MAC.format(1)] == "link", "the first switch knows that the guest has moved"


def cancel(lab: Lab) -> None:
    """Begin to move the guest and think better of it: it stays, and nothing is logged any more."""
    to = lab.destination()
    lab.vm.qmp("migrate-set-parameters", **{"max-bandwidth": SLOW})
    lab.migrate(to)
    wait_until(lab.logging, "what is written is logged", 20)
    wait_until(lambda: moved(lab) > SLOW, "some memory was moved", 20)
    lab.vm.qmp("migrate_cancel")
    lab.wait_for("cancelled")
    wait_until(lambda: not lab.logging(), "the log is off", 20)
    to.stop()
    lab.vm.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
    assert lab.vm.ping(PEER, 20) == 20


def moved(lab: Lab) -> int:
    """Bytes of memory that a migration has moved so far."""
    memory = lab.status().get("ram", {})
    assert isinstance(memory, dict)
    return int(memory.get("transferred", 0))
