# SPDX-License-Identifier: Apache-2.0
"""`byway top`: rates of ports and workers, live.

Used by main. Uses byway.client through reach. A rate is the difference of two samples of the
counters over the time between them; nothing is measured in the switch.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from byway.cli.output import Column, aligned, column, drawn, print_json, quantity
from byway.cli.reach import Api, reach
from byway.client import Client

Row = dict[str, Any]

_PORTS = [
    column("name", "port"), column("network"), column("state"),
    *(
        Column(heading, lambda row, key=key: quantity(row[key]), right=True)  # type: ignore[misc]
        for key, heading in (
            ("rx_frames_per_s", "rx frames/s"), ("rx_bits_per_s", "rx bit/s"),
            ("tx_frames_per_s", "tx frames/s"), ("tx_bits_per_s", "tx bit/s"),
            ("drops_per_s", "drops/s"),
        )
    ),
]
_WORKERS = [
    Column("worker", lambda row: str(row["worker"]), right=True),
    column("cpu", "CPU", right=True),
    Column("frames/s", lambda row: quantity(row["frames_per_s"]), right=True),
    Column("cycles/frame",
           lambda row: "-" if row["cycles_per_frame"] is None else f"{row['cycles_per_frame']:.0f}",
           right=True),
    Column("sleeps/s", lambda row: quantity(row["sleeps_per_s"]), right=True),
    Column("asleep", lambda row: "yes" if row["asleep"] else "no"),
    Column("ports", lambda row: str(row["ports"]), right=True),
]


def top(
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="Show one interval, then end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line an interval.")] = False,
    api: Api = None,
) -> None:
    """Show frames, bits and drops a second, and what a frame costs, until Ctrl-C."""
    with reach(api) as client:
        try:
            views = itertools.islice(_views(client, interval), 1 if once else None)
            if as_json:
                for view in views:
                    print_json(view, indent=None)
            elif sys.stdout.isatty():
                _live(views)
            else:
                for view in views:
                    print("\n".join(_lines(view)), flush=True)
        except KeyboardInterrupt:
            return


def _views(
    client: Client, interval: float, wait: Callable[[float], None] = time.sleep
) -> Iterator[Row]:
    """The rates of one interval after the other, without end."""
    before = sample(client)
    while True:
        wait(interval)
        after = sample(client)
        yield rates(before, after)
        before = after


def sample(client: Client) -> Row:
    """The counters now, with the time (seconds, monotonic)."""
    ports, workers = client.ports(), client.workers()
    return {"time": time.monotonic(), "ports": ports, "workers": workers}


def rates(before: Row, after: Row) -> Row:
    """What happened between two samples, for each second of it."""
    seconds = max(after["time"] - before["time"], 1e-9)
    known = {port["name"]: port for port in before["ports"]}

    def grown(now: Row, then: Row, key: str) -> float:
        difference = now[key] - then.get(key, 0)
        # A counter that is smaller than before began anew: its port was replaced.
        return float(difference if difference >= 0 else now[key])

    ports = []
    for port in after["ports"]:
        then = known.get(port["name"], {})
        drops = {"drops": sum(port["drops"].values())}
        drops_then = {"drops": sum(then.get("drops", {}).values())}
        ports.append({
            "name": port["name"], "network": port["network"], "state": port["state"],
            "rx_frames_per_s": grown(port, then, "rx_frames") / seconds,
            "rx_bits_per_s": 8 * grown(port, then, "rx_bytes") / seconds,
            "tx_frames_per_s": grown(port, then, "tx_frames") / seconds,
            "tx_bits_per_s": 8 * grown(port, then, "tx_bytes") / seconds,
            "drops_per_s": grown(drops, drops_then, "drops") / seconds,
        })
    workers = []
    for number, worker in enumerate(after["workers"]):
        then = before["workers"][number] if number < len(before["workers"]) else {}
        frames = grown(worker, then, "frames")
        workers.append({
            "worker": number, "cpu": worker["cpu"], "frames_per_s": frames / seconds,
            "cycles_per_frame": grown(worker, then, "busy_cycles") / frames if frames else None,
            "sleeps_per_s": grown(worker, then, "sleeps") / seconds,
            "asleep": worker["asleep"], "ports": len(worker["ports"]),
        })
    return {"seconds": seconds, "ports": ports, "workers": workers}


def _lines(view: Row) -> list[str]:
    return [*aligned(_PORTS, view["ports"]), "", *aligned(_WORKERS, view["workers"]), ""]


def _live(views: Iterator[Row]) -> None:
    from rich.console import Group
    from rich.live import Live

    with Live("waiting for the first interval", auto_refresh=False) as live:
        for view in views:
            live.update(
                Group(drawn(_PORTS, view["ports"]), drawn(_WORKERS, view["workers"])),
                refresh=True)
