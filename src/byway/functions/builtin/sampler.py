# SPDX-License-Identifier: Apache-2.0
"""``byway.sampler``: the first bytes of one frame in so many, told to a collector by sFlow (v5).

A built-in network function, written on the author's page (byway.nf) alone.

Each frame is chosen with the same chance, whatever was chosen before: from ``rate`` and the samples
a collector makes out how much there is of what ("sFlow Version 5", 3.1). The listener, a process of
its own, gathers samples for a moment and sends them.
"""

import asyncio
import ipaddress
import time
from collections.abc import Mapping
from typing import Annotated, Any

from byway import nf
from byway.functions.export.collector import Collector
from byway.functions.export.sflow import Agent, Sample

GATHER_SECONDS = 0.5
MOST = 64  # samples that are sent together


@nf.function
class Sampler:
    """Choose one frame in ``rate``, and tell a collector of it."""

    collector: nf.Text = nf.Text("127.0.0.1:6343")
    agent: nf.Text = nf.Text("127.0.0.1")  # the address that names this switch there
    rate: Annotated[int, nf.Range(1, 1 << 24)] = 1000

    pool = nf.Array(value="u64", size=1)
    samples = nf.Event(port="u16", length="u32", rate="u32", pool="u32", header="bytes:128",
                       capacity=4096)

    def process(self, frame):
        self.pool[0] += 1
        if nf.random(self.rate) == 0:
            self.samples.emit(port=frame.port, length=frame.length, rate=self.rate,
                              pool=self.pool[0], header=frame)
        return nf.PASS

    @staticmethod
    async def listen(session: Any) -> None:
        """Send what is chosen to the collector."""
        agent = Agent(ipaddress.ip_address(str(session.parameters["agent"])))
        began = time.monotonic()
        with Collector(str(session.parameters["collector"])) as collector:
            waiting: list[Sample] = []
            events = aiter(session.events("samples"))
            pending = asyncio.ensure_future(anext(events))
            while True:
                timeout = GATHER_SECONDS if waiting else None
                await asyncio.wait([pending], timeout=timeout)
                if pending.done():
                    try:
                        waiting.append(sample_of(pending.result()))
                    except StopAsyncIteration:
                        pending = None
                    else:
                        pending = asyncio.ensure_future(anext(events))
                if waiting and (pending is None or not pending.done() or len(waiting) >= MOST):
                    for datagram in agent.datagrams(waiting, time.monotonic() - began):
                        collector.send(datagram)
                    waiting = []
                if pending is None:
                    return


def sample_of(event: Mapping[str, Any]) -> Sample:
    """The sample that an event tells of."""
    return Sample(bytes.fromhex(event["header"]), int(event["length"]), int(event["rate"]),
                  int(event["pool"]), port=int(event["port"]))
