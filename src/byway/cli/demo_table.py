# SPDX-License-Identifier: Apache-2.0
"""The demo's live table: rates, cost and drops; drawn on a terminal, plain lines in a pipe.

Used by demo.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from byway.cli.output import quantity

Row = dict[str, Any]
Show = Callable[[Sequence[Row], Sequence[Row], Sequence[Row], float], None]


def rates(previous: Sequence[Row], ports: Sequence[Row], seconds: float) -> list[tuple[str, ...]]:
    """name, network, frames in and out a second, bits out a second, drops, for each port."""
    before = {p["name"]: p for p in previous}
    rows: list[tuple[str, ...]] = []
    for port in ports:
        def per_second(key: str, port: Row = port) -> float:
            return float(port[key] - before[port["name"]][key]) / seconds

        rows.append((
            port["name"], port["network"], quantity(per_second("rx_frames")),
            quantity(per_second("tx_frames")), quantity(8 * per_second("tx_bytes")),
            str(sum(port["drops"].values()))))
    return rows


@contextmanager
def live(tell: Callable[[str], None]) -> Iterator[Show]:
    """A function that shows the state between two looks at the ports, as fits where it goes."""
    if not sys.stderr.isatty():
        yield lambda *look: _lines(tell, *look)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    with Live(console=Console(stderr=True), auto_refresh=False) as screen:
        def show(previous: Sequence[Row], ports: Sequence[Row], workers: Sequence[Row],
                 seconds: float) -> None:
            table = Table("port", "network", "in/s", "out/s", "out bit/s", "drops",
                          title=_cost(workers))
            for row in rates(previous, ports, seconds):
                table.add_row(*row)
            screen.update(table, refresh=True)

        yield show


def _cost(workers: Sequence[Row]) -> str:
    return ", ".join(f"{w['cycles_per_frame']:.0f} cycles a frame" for w in workers)


def _lines(tell: Callable[[str], None], previous: Sequence[Row], ports: Sequence[Row],
           workers: Sequence[Row], seconds: float) -> None:
    parts = [f"{name} in {come}/s out {go}/s drops {drops}"
             for name, _, come, go, _, drops in rates(previous, ports, seconds)]
    tell("; ".join([*parts, _cost(workers)]))
