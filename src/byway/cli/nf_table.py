# SPDX-License-Identifier: Apache-2.0
"""`byway nf table|put`: tables of network functions in a running switch.

Used by nf_switch. Uses byway.client through reach. As JSON, rows are shown, and read from a file,
as `tables` of a [[function]] has them: {"KEY": VALUE}.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from byway.cli.output import Column, print_json, print_table
from byway.cli.pairs import pairs_text, value_of
from byway.cli.reach import Api, Json, reach
from byway.client import ClientError

SHOWN, MOST = 1000, 1_000_000  # entries, where nothing is said of how many

Instance = Annotated[str, typer.Argument(
    metavar="NAME", help="The instance, as `byway nf list` shows it: vm1/RateGuard.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="One of its tables.")]


def table(
    name: Instance,
    table: Table,
    limit: Annotated[int | None, typer.Option(
        min=1, max=MOST, help=f"At most so many; else {SHOWN}, with --json {MOST}.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Show the entries of a table.

    With --json as `tables` of a function in the configuration, and `nf put --file`, take them.
    """
    most = limit or (MOST if as_json else SHOWN)
    with reach(api) as client:
        rows = client.function_table(name, table, most)
    if as_json:
        print_json({str(row["key"]): row["value"] for row in rows})
    else:
        print_table([Column("key", lambda row: str(row["key"])),
                     Column("value", lambda row: _shown(row["value"]))], rows)
    if len(rows) == most:
        fix = "; --limit N shows more" if most < MOST else ""
        print(f"byway nf table: these are {most}, and there may be more{fix}", file=sys.stderr)


def put(
    name: Instance,
    table: Table,
    pairs: Annotated[list[str] | None, typer.Argument(
        metavar="KEY=VALUE", help="Entries; a value may be JSON. KEY=: remove it.")] = None,
    file: Annotated[Path | None, typer.Option(
        "--file", metavar="FILE", help="The entries of a file, as `nf table --json` shows them;"
        " - is the standard input.")] = None,
    whole: Annotated[bool, typer.Option(
        "--whole", help="With --file: the table has these entries then, and no others.")] = False,
    api: Api = None,
) -> None:
    """Put entries into a table, all or none; or remove some, each by itself.

    They last as long as the instance. What is to be there after a restart stands in the
    configuration.
    """
    if bool(pairs) == bool(file) or (whole and not file):
        raise typer.BadParameter("give entries, as in 10.0.0.1=7, or --file FILE, which may have"
                                 " --whole", param_hint="KEY=VALUE")
    kept, gone = _given(pairs or []) if file is None else (_read(file), [])
    if kept and gone:  # the second could be refused when the first is done
        raise typer.BadParameter("put entries, or remove entries; the other in a command of its"
                                 " own", param_hint="KEY=")
    refused = []
    with reach(api) as client:
        if kept or whole:
            client.put_function_table(name, table, kept, whole=whole)
        for key in gone:
            try:
                client.remove_function_entry(name, table, key)
            except ClientError as error:
                refused.append(error)  # the others shall be gone
        if refused:
            raise refused[0]


def _given(pairs: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What is to be put, and the keys of what is to be removed."""
    kept, gone = {}, []
    for one in pairs:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f'"{one}" is not of the shape KEY=VALUE', param_hint="KEY=")
        if value:
            kept[key] = value_of(value)
        else:
            gone.append(key)
    return kept, gone


def _read(file: Path) -> Any:
    """Entries that stand in a file."""
    try:
        rows = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from None
    except ValueError as error:
        raise typer.BadParameter(f"{file}: this is no JSON: {error}", param_hint="--file") from None
    if not isinstance(rows, dict | list):
        raise typer.BadParameter(f'{file}: write {{"KEY": VALUE, ...}}, or a list whose places are'
                                 " the keys", param_hint="--file")
    return rows


def _shown(value: Any) -> str:
    return pairs_text(value) if isinstance(value, dict) else str(value)
