# SPDX-License-Identifier: Apache-2.0
"""How commands print: tables (drawn on a terminal, aligned text in a pipe), JSON, big numbers.

Used by the commands. Uses rich, imported where a terminal is written to.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: its heading and the text of a row in it."""

    heading: str
    cell: Callable[[Row], str]
    right: bool = False


def column(key: str, heading: str | None = None, right: bool = False) -> Column:
    """The column that shows the value of `key` as it is."""
    return Column(heading or key, lambda row: text(row[key]), right)


def text(value: object) -> str:
    """A value in a table: '-' where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return str(value)


def quantity(number: float) -> str:
    """A number with three digits and a metric prefix: 1234567 -> '1.23 M'."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit * 0.9995:
            scaled = number / limit
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{number:.0f}"


def print_json(value: object, indent: int | None = 2) -> None:
    """One JSON document on stdout; without indent, on one line."""
    print(json.dumps(value, indent=indent), flush=True)


def print_table(columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """A table on stdout."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(drawn(columns, rows))
    else:
        print("\n".join(aligned(columns, rows)), flush=True)


def drawn(columns: Sequence[Column], rows: Iterable[Row]) -> "Table":
    """The table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for col in columns:
        justify: Literal["left", "right"] = "right" if col.right else "left"
        table.add_column(col.heading, justify=justify, no_wrap=col is not columns[-1])
    for row in rows:
        table.add_row(*(Text(col.cell(row)) for col in columns))
    return table


def aligned(columns: Sequence[Column], rows: Iterable[Row]) -> list[str]:
    """The table as lines of text, columns two spaces apart."""
    cells = [[col.heading.upper() for col in columns]]
    cells += [[col.cell(row) for col in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if col.right else cell.ljust(width)
            for col, cell, width in zip(columns, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
