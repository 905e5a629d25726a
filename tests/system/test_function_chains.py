# SPDX-License-Identifier: Apache-2.0
"""Chains of network functions under full load: swapped every second, no frame lost, all counted.

BYWAY_SWAP_SECONDS says for how long (a minute is what the manual claims; usually it is less).
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.system.peers.process import wait_until
from tests.system.peers.switch import Port, Switch, configuration
from tests.system.peers.testpmd import BURST, Guest, VirtioUser, balanced

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("dpdk")]

MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
SECONDS = int(os.environ.get("BYWAY_SWAP_SECONDS", "12"))
FUNCTIONS = {
    "acl": '"byway.acl"\nparameters = { default = "pass" }',
    "police": '"byway.policer"\nparameters = { committed_rate = 100000000000 }',
    "flows": '"byway.flow_export"',
    "samples": '"byway.sampler"',
    "count": '"count.py"',
}
COUNT = """
from byway import nf


@nf.function
class Count:
    \"\"\"Count frames, and leave a mark that depends on the edition.\"\"\"

    frames = nf.Counter()

    def process(self, frame: nf.Frame) -> nf.Verdict:
        self.frames.add()
        frame.ip_dscp = {edition}
        return nf.PASS
"""


def text(folder: Path, ports: list[Port]) -> str:
    """A configuration in which vm1 has a chain of all functions."""
    made = configuration(folder / "api.sock", ports, (), {})
    functions = "".join(f'\n[[function]]\nname = "{name}"\nuse = {use}\n'
                        for name, use in FUNCTIONS.items())
    chain = f"chain = {list(FUNCTIONS)}\n".replace("'", '"')
    return functions + made.replace('name = "vm1"\n', f'name = "vm1"\n{chain}', 1)


@contextmanager
def built(port: Port) -> Iterator[None]:
    """A port with a chain listens as soon as that is compiled."""
    wait_until(port.socket.exists, f"{port.name} listens", 300)
    yield


def editions(switch: Switch, author: Path) -> Iterator[None]:
    """Give vm1 other code, each time that it is asked for: the functions in another order, then
    another edition of the author's file, and so on; the same ones come again."""
    order = list(FUNCTIONS)
    for n in count(1):
        if n % 2:
            order = order[1:] + order[:1]
            switch.client.set_chain("port", "vm1", chain=order)
        else:
            author.write_text(COUNT.format(edition=n // 2 % 2))
            assert switch.client.reload_functions(["count"]) == [str(author)]
        yield


@pytest.mark.timeout(SECONDS + 600)
def test_swapped_every_second(folder: Path, cpus: tuple[int, int]) -> None:
    ports = [Port("vm1", folder / "vm1.sock"), Port("vm2", folder / "vm2.sock")]
    users = tuple(VirtioUser(p.socket, m) for p, m in zip(ports, MACS, strict=True))
    author = folder / "count.py"
    author.write_text(COUNT.format(edition=0))
    late: list[float] = []
    with Switch(folder, ports, text=text(folder, ports)) as switch, built(ports[0]):
        again = editions(switch, author)
        for _ in range(2 * len(FUNCTIONS)):  # with the guests at work the compiler has no CPU left
            next(again)
        with Guest(folder, (users[0], users[1]), cpu=cpus[1]) as guest:
            guest.ready()
            switch.wait_up("vm1", "vm2")
            guest.ping_pong(bursts=8)
            for _ in range(SECONDS):
                begin = time.monotonic()
                next(again)
                late.append(time.monotonic() - begin)
                time.sleep(max(0.0, 1 - late[-1]))
            stats = guest.drain()
        counted = switch.ports()
        seen = {row["name"]: row["frames"] for row in switch.client.functions()}
        assert switch.drops() == {}
    assert balanced(stats), "each frame sent by one guest arrived at the other"
    assert stats[0].tx > 100 * BURST * SECONDS
    assert counted["vm1"]["rx_frames"] == stats[0].tx
    assert seen == dict.fromkeys(FUNCTIONS, stats[0].tx), "each function saw each frame"
    print(f"{SECONDS} swaps, {stats[0].tx} frames, seconds a swap: {statistics.median(late):.3f}, "
          f"at most {max(late):.3f}")
