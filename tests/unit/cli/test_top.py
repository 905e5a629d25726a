# SPDX-License-Identifier: Apache-2.0
"""Rates from two samples of the counters, and how numbers and tables look."""

from typing import Any

import pytest
from rich.console import Console

from byway.cli.output import aligned, column, drawn, quantity, text
from byway.cli.top import rates


def port(**counters: Any) -> dict[str, Any]:
    return {"name": "a", "network": "blue", "state": "up", "rx_frames": 0, "rx_bytes": 0,
            "tx_frames": 0, "tx_bytes": 0, "drops": {}, **counters}


def worker(frames: int, cycles: int, sleeps: int = 0) -> dict[str, Any]:
    return {"cpu": 0, "frames": frames, "busy_cycles": cycles, "sleeps": sleeps,
            "asleep": False, "ports": ["a", "b"]}


def sample(time: float, ports: list[Any], workers: list[Any]) -> dict[str, Any]:
    return {"time": time, "ports": ports, "workers": workers}


def test_rates_are_differences_over_time() -> None:
    view = rates(
        sample(10.0, [port(rx_frames=100, rx_bytes=6400, drops={"runt": 1})], [worker(5, 500)]),
        sample(12.0, [port(rx_frames=300, rx_bytes=19200, tx_frames=4, tx_bytes=256,
                           drops={"runt": 2, "over_mtu": 3})], [worker(205, 20500, 8)]),
    )
    assert view["seconds"] == 2.0
    assert view["ports"] == [{
        "name": "a", "network": "blue", "state": "up", "rx_frames_per_s": 100.0,
        "rx_bits_per_s": 51200.0, "tx_frames_per_s": 2.0, "tx_bits_per_s": 1024.0,
        "drops_per_s": 2.0}]
    assert view["workers"] == [{
        "worker": 0, "cpu": 0, "frames_per_s": 100.0, "cycles_per_frame": 100.0,
        "sleeps_per_s": 4.0, "asleep": False, "ports": 2}]


def test_a_replaced_port_begins_anew() -> None:
    view = rates(sample(0.0, [port(rx_frames=100)], []), sample(1.0, [port(rx_frames=7)], []))
    assert view["ports"][0]["rx_frames_per_s"] == 7.0


def test_a_new_port_and_an_idle_worker() -> None:
    view = rates(sample(0.0, [], [worker(5, 5)]), sample(1.0, [port(tx_frames=3)], [worker(5, 5)]))
    assert view["ports"][0]["tx_frames_per_s"] == 3.0
    assert view["workers"][0]["cycles_per_frame"] is None


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999.4, "999"), (999.6, "1.00 k"), (12345, "12.3 k"), (123456, "123 k"),
     (1234567, "1.23 M"), (999_999_999, "1.00 G"), (2.5e10, "25.0 G")],
)
def test_quantities_have_three_digits(number: float, shown: str) -> None:
    assert quantity(number) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), ("", "-"), ([], "-"), (["a", "b"], "a b"), (0, "0")])
def test_values_in_tables(value: object, shown: str) -> None:
    assert text(value) == shown


def test_a_table_on_a_terminal_shows_text_as_it_is() -> None:
    columns = [column("name"), column("n", right=True)]
    console = Console(width=40, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(drawn(columns, [{"name": "[red]x", "n": 1}]))
    assert "[red]x" in captured.get()


def test_an_empty_table_has_its_headings() -> None:
    assert aligned([column("name"), column("n", right=True)], []) == ["NAME  N"]
