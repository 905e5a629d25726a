# SPDX-License-Identifier: Apache-2.0
"""`byway demo`: three guests on two networks, frames at full speed, and the proof.

Used by cli.run. Nothing here is simulated: the switch is `byway run` in a process of its own, each
guest is a process with a virtio driver and shared memory of its own, and the counters are those
that the API shows anybody.

The story: alice and bob on network blue find each other by ARP, ping, and then exchange numbered
frames of mixed sizes, each answered and checked byte for byte; mallory on network red shouts
broadcasts and frames to alice's address the whole time, and must be heard by nobody.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from byway.cli.lab import Lab
from byway.cli.output import print_json, quantity

ALICE = ("alice", "blue", "02:00:00:00:00:01", "10.0.0.1")
BOB = ("bob", "blue", "02:00:00:00:00:02", "10.0.0.2")
MALLORY = ("mallory", "red", "02:00:00:00:00:03", "10.0.0.3")
PINGS = 5
SHOUTS = 20  # rounds of a broadcast and a directed frame, each interval
INTERVAL = 0.5  # seconds between two lines of the table
RING = 1024
WINDOW = 256


@dataclass(frozen=True)
class Result:
    """What the demo proves. Frames are test frames, both directions together."""

    seconds: float
    frames_sent: int
    frames_received: int
    frames_checked: int
    frames_wrong: int
    frames_lost: int
    frames_dropped: int  # by the switch, each with a reason: they explain what was lost
    frames_leaked: int
    bits_per_second: float
    frames_per_second: float
    cycles_per_frame: float
    ping_microseconds: float
    drops: dict[str, dict[str, int]]
    passed: bool


class Guests:
    """The three guest processes."""

    def __init__(self, lab: Lab) -> None:
        from byway.testing.process import GuestProcess

        self.alice, self.bob, self.mallory = (
            GuestProcess(lab.socket(name), mac, address, RING)
            for name, _, mac, address in (ALICE, BOB, MALLORY))
        self.all = (self.alice, self.bob, self.mallory)
        for guest in self.all:
            guest.answer()  # ready

    def meet(self) -> float:
        """ARP both ways, then pings; -> the median round trip in seconds."""
        self.bob.order("answer", seconds=2.0)
        found = self.alice.ask("resolve", address=BOB[3])["mac"]
        if found != BOB[2]:
            raise RuntimeError(f"alice asked for {BOB[3]} and was told {found}")
        times = sorted(self.alice.ask("ping", address=BOB[3], mac=BOB[2], count=PINGS)["times"])
        self.bob.answer()
        if len(times) < PINGS:
            raise RuntimeError(f"{PINGS - len(times)} of {PINGS} pings were not answered")
        return float(times[len(times) // 2])

    def exchange(self, seconds: float, asking: bool = True) -> list[dict[str, int]]:
        """Let alice and bob exchange frames; mallory shouts meanwhile. -> their counts."""
        self.alice.order("exchange", seconds=seconds, asking=asking, peer=BOB[2],
                         foreign=MALLORY[2], window=WINDOW)
        self.bob.order("exchange", seconds=seconds, asking=asking, peer=ALICE[2],
                       foreign=MALLORY[2], window=WINDOW)
        self.mallory.ask("shout", count=SHOUTS, mac=ALICE[2])
        return [self.alice.answer(), self.bob.answer()]

    def leaked(self, counts: list[dict[str, int]]) -> int:
        """Frames that crossed from one network to the other."""
        self.mallory.order("answer", seconds=0.2)
        heard = self.mallory.answer()["heard"]
        received = self.mallory.ask("statistics")["received"]
        return sum(c["leaked"] for c in counts) + int(received) + len(heard)

    def close(self) -> None:
        for guest in self.all:
            guest.close()


def run_demo(seconds: float, json: bool, verbose: bool) -> int:
    """Run the demo for ``seconds`` of exchange; -> 0 where nothing was lost unexplained or leaked.

    ``json``: print the result only, as JSON. ``verbose``: say what happens on stderr even so.
    """
    tell = _teller(quiet=json and not verbose)
    with Lab({"blue": ["alice", "bob"], "red": ["mallory"]}) as lab:
        _prepare(tell)  # while the switch does likewise
        lab.wait_ready()
        tell("the switch is up; three guests connect, each a process of its own")
        guests = Guests(lab)
        try:
            ping = guests.meet()
            tell(f"alice found bob by ARP and pinged him: {ping * 1e6:.0f} us there and back")
            result = _measure(lab, guests, seconds, ping, tell)
        finally:
            guests.close()
    if json:
        print_json(asdict(result))
    else:
        _report(result)
    return 0 if result.passed else 1


def _teller(quiet: bool) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not quiet:
            print(f"byway demo: {text}", file=sys.stderr, flush=True)

    return tell


def _prepare(tell: Callable[[str], None]) -> None:
    """Have the guests' kernels compiled once, before three processes want them."""
    from byway.machine.clock import tsc
    from byway.machine.jit import prepare
    from byway.testing.entries import ENTRIES
    from byway.testing.traffic import traffic_run

    prepare((tsc, traffic_run, *ENTRIES), tell)


def _measure(lab: Lab, guests: Guests, seconds: float, ping: float,
             tell: Callable[[str], None]) -> Result:
    """The exchange, in intervals with a line each; then what is out comes home, and the sums."""
    from byway.cli.demo_table import live

    before = lab.client.workers()
    began = time.monotonic()
    with live(tell) as show:
        previous, at = lab.client.ports(), began
        while time.monotonic() - began < seconds:
            guests.exchange(min(INTERVAL, seconds))
            now, ports = time.monotonic(), lab.client.ports()
            show(previous, ports, lab.client.workers(), now - at)
            previous, at = ports, now
    elapsed = time.monotonic() - began
    counts = guests.exchange(1.0, asking=False)
    leaked = guests.leaked(counts)
    return _sum(lab, before, counts, leaked, elapsed, ping)


def _sum(lab: Lab, before: list[dict[str, Any]], counts: list[dict[str, int]], leaked: int,
         elapsed: float, ping: float) -> Result:
    def total(key: str) -> int:
        return sum(c[key] for c in counts)

    # A lost request and a lost answer both leave a request unanswered.
    lost = total("lost") + total("waiting")
    drops = {p["name"]: p["drops"] for p in lab.client.ports()}
    dropped = sum(n for name in ("alice", "bob") for n in drops[name].values())
    after = lab.client.workers()
    frames = sum(w["frames"] for w in after) - sum(w["frames"] for w in before)
    cycles = sum(w["busy_cycles"] for w in after) - sum(w["busy_cycles"] for w in before)
    wrong = total("bad") + total("unexpected")
    checked = total("checked")
    return Result(
        seconds=round(elapsed, 2), frames_sent=total("sent"), frames_received=total("received"),
        frames_checked=checked, frames_wrong=wrong, frames_lost=lost, frames_dropped=dropped,
        frames_leaked=leaked, bits_per_second=round(8 * total("octets") / elapsed),
        frames_per_second=round(total("received") / elapsed),
        cycles_per_frame=round(cycles / frames, 1) if frames else 0.0,
        ping_microseconds=round(ping * 1e6, 1), drops=drops,
        passed=checked > 0 and checked == total("received") and wrong == 0 and leaked == 0
        and total("sent") - total("received") == lost and lost <= dropped)


def _report(result: Result) -> None:
    rows = [
        ("frames sent", f"{result.frames_sent:,}"),
        ("frames received", f"{result.frames_received:,}"),
        ("checked byte for byte", f"{result.frames_checked:,}"),
        ("wrong content", f"{result.frames_wrong:,}"),
        ("lost", f"{result.frames_lost:,} (the switch explains {result.frames_dropped:,} drops)"),
        ("leaked to the other network", f"{result.frames_leaked:,}"),
        ("rate", f"{quantity(result.frames_per_second)}frames/s,"
                 f" {quantity(result.bits_per_second)}bit/s"),
        ("cost", f"{result.cycles_per_frame:.0f} processor cycles a frame"),
    ]
    for label, value in rows:
        print(f"{label:<28} {value}")
    print("PASSED: every frame accounted for, nothing leaked" if result.passed
          else "FAILED: see above")
