#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Traffic for trying network functions: two fake guests on the ports of examples/lab.toml.

    python examples/connections.py /tmp/vm1.sock /tmp/vm2.sock

The guest on the first socket begins TCP connections to the one on the second, in the names of a
quiet source (20 a second) and of a noisy one (400 a second). Each second it says how many came
through. Ctrl-C or SIGTERM end it.
"""

import itertools
import signal
import sys
import time
from collections import Counter

from byway.testing.builders import tcp
from byway.testing.frames import ARP_REQUEST, BROADCAST, Arp, mac
from byway.testing.guest import Guest

SOURCES = {"10.0.0.1": 20, "10.0.0.66": 400}  # connections a second
SERVER = "10.0.0.2"
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
SLOTS = 20  # of a second; in each of them some connections begin


def begin(source: str, number: int) -> bytes:
    """The first segment of a connection."""
    return tcp(source, SERVER, 1024 + number % 60000, 80, "S", eth_src=MACS[0], eth_dst=MACS[1])


def one_second(client: Guest, server: Guest, number: int) -> Counter[str]:
    """Begin as many connections as is usual in a second; -> how many came through, by source."""
    came: Counter[str] = Counter()
    start = time.monotonic()
    for slot in range(SLOTS):
        frames = [begin(source, number * rate + slot * rate // SLOTS + k)
                  for source, rate in SOURCES.items() for k in range(rate // SLOTS)]
        client.send(frames)
        while (left := start + (slot + 1) / SLOTS - time.monotonic()) > 0:
            if server.wait(left):
                came.update(source for frame in server.receive() for source in SOURCES
                            if frame[26:30] == bytes(map(int, source.split("."))))
    return came


def main(first: str, second: str) -> None:
    """Run until told otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Guest.connect(first, mac=MACS[0]) as client, Guest.connect(second, mac=MACS[1]) as server:
        hello = Arp(ARP_REQUEST, mac(MACS[1]), SERVER, bytes(6), SERVER)
        server.send([hello.frame(BROADCAST)])  # so that the switch knows where it is
        one_second(client, server, 0)  # the first one is for learning who is where
        for number in itertools.count(1):
            came = one_second(client, server, number)
            print(", ".join(f"{source}: {came[source]} of {rate}"
                            for source, rate in SOURCES.items()), flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except KeyboardInterrupt:
        sys.exit(0)
