# SPDX-License-Identifier: Apache-2.0
"""`byway nf list|show|add|remove|set|put|reload|events|trace`: functions of a running switch.

Used by nf. Uses byway.client through reach. Paths of functions' files are made absolute here: the
switch has another working directory.
"""

import contextlib
import json
import os
import signal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from byway.cli.output import Column, Row, column, print_json, print_table, text
from byway.cli.pairs import split_pairs
from byway.cli.reach import Api, Json, reach

Name = Annotated[str, typer.Argument(
    metavar="NAME", help="The instance, as `byway nf list` shows it: vm1/RateGuard.")]


def _drops(row: Row) -> str:
    return str(sum(row["drops"].values()))


_COLUMNS = [
    column("name"), column("function"), column("state"),
    column("frames", right=True), Column("drops", _drops, right=True),
    column("faults", right=True), column("ports"),
    Column("parameters", lambda row: _pairs_text(row["parameters"])),
]


def list_functions(api: Api = None, as_json: Json = False) -> None:
    """List the instances of network functions: what they saw, and what they dropped."""
    with reach(api) as client:
        functions = client.functions()
    if as_json:
        print_json(functions)
    else:
        print_table(_COLUMNS, functions)
        for row in functions:
            if row["reason"]:
                print(f"{row['name']}: {row['reason']}")


def show(
    name: Name,
    table: Annotated[str | None, typer.Option(
        metavar="TABLE", help="Show the entries of this table instead.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 1000,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Show an instance: parameters, counters, faults with their line, state; or a table's entries.
    """
    with reach(api) as client:
        rows = client.function_table(name, table, limit) if table else []
        found = {} if table else client.function(name)
    if as_json:
        print_json(rows if table else found)
    elif table:
        print_table([Column("key", lambda row: str(row["key"])),
                     Column("value", lambda row: _value(row["value"]))], rows)
    else:
        print("\n".join(_shown(found)))


def add(
    function: Annotated[str, typer.Argument(
        metavar="FUNCTION", help="FILE:CLASS or byway.NAME, with parameters as in"
        " 'guard.py:RateGuard(limit=50)'; or the name of a [[function]].")],
    port: Annotated[str | None, typer.Option(help="The port whose chain it comes into.")] = None,
    network: Annotated[str | None, typer.Option(help="The network whose chain it comes into.")
                       ] = None,
    tx: Annotated[bool, typer.Option("--tx", help="For frames that go out of the port.")] = False,
    first: Annotated[bool, typer.Option("--first", help="Before the others, not behind them.")
                     ] = False,
    name: Annotated[str | None, typer.Option(
        metavar="NAME", help="A name of its own: it can stand in several chains.")] = None,
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="KEY=VALUE", help="With --name: a parameter; may be repeated.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Put a function into the chain of a port or network, which go on; or give it a name."""
    if (port and network) or not (port or network or name) or (tx and not port):
        raise typer.BadParameter("say where: --port, --network, or just --name; --tx is of ports",
                                 param_hint="--port")
    from byway.control.chains import based

    use = str(based(function, os.getcwd()))
    with reach(api) as client:
        before = {row["name"] for row in client.functions()}
        if name is not None:
            client.add_function({"name": name, "use": use, "parameters": _given(set_)})
            use = name
        if port or network:
            how = {key: True for key, on in (("tx", tx), ("first", first)) if on}
            client.add_step("port" if port else "network", port or network or "", use, **how)
        rows = [row for row in client.functions() if row["name"] not in before]
    if as_json:
        print_json(rows)
    for row in () if as_json else rows:
        where = f" in the way of {' '.join(row['ports'])}" if row["ports"] else ""
        print(f"{row['name']} is {row['state']}{where}")


def remove(name: Name, api: Api = None) -> None:
    """Remove an instance from all chains it stands in; ports and networks go on."""
    with reach(api) as client:
        client.remove_function(name)
    print(f"{name} is gone")


def set_(
    name: Name,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="Parameters.")],
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Change parameters of an instance, from the next frame on."""
    with reach(api) as client:
        found = client.set_function(name, _given(pairs))
    if as_json:
        print_json(found)
    else:
        print(f"{name}  {_pairs_text(found['parameters'])}")


def put(
    name: Name,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table of it.")],
    pairs: Annotated[list[str], typer.Argument(
        metavar="KEY=VALUE...", help="Entries; a value may be JSON. KEY=: remove it.")],
    api: Api = None,
) -> None:
    """Put entries into a table of an instance, or remove them."""
    kept, gone = {}, []
    for one in pairs:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f'"{one}" is not of the shape KEY=VALUE', param_hint="KEY=")
        if value:
            kept[key] = _read(value)
        else:
            gone.append(key)
    with reach(api) as client:
        if kept:
            client.put_function_table(name, table, kept)
        for key in gone:
            client.remove_function_entry(name, table, key)


def reload(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME...]", help="The instances; without any: all.")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Read the files of functions again; what is another one now takes the old one's place."""
    with reach(api) as client:
        changed = client.reload_functions(names or ())
    if as_json:
        print_json(changed)
    else:
        print("\n".join(f"{use} is new" for use in changed) or "nothing has changed")


def events(
    name: Name,
    event: Annotated[str | None, typer.Argument(
        metavar="[EVENT]", help="One of its events; without: all.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    api: Api = None,
) -> None:
    """Print what an instance emits, a line of JSON each, until it is gone."""
    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with contextlib.suppress(KeyboardInterrupt), reach(api) as client:
        for number, one in enumerate(client.function_events(name, event), 1):
            print_json(one, indent=None)
            if number == count:
                return


def trace(
    port: Annotated[str, typer.Argument(metavar="PORT", help="Whose chain it goes through.")],
    frame: Annotated[str | None, typer.Option(
        metavar="HEX", help="The frame, as hexadecimal digits.")] = None,
    pcap: Annotated[str | None, typer.Option(
        metavar="FILE", help="Or one of a capture.")] = None,
    number: Annotated[int, typer.Option(min=1, help="With --pcap: which of them.")] = 1,
    tx: Annotated[bool, typer.Option("--tx", help="As it goes out of the port.")] = False,
    frames: Annotated[int | None, typer.Option(
        min=1, max=1000, help="Instead: so many of those that come, on their way.")] = None,
    seconds: Annotated[float, typer.Option(
        min=0.1, max=3600, help="With --frames: end after so long.")] = 10.0,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Tell what each function of a port says of a frame, which nothing in the switch sees; or, with
    --frames, of those that come."""
    if frames is not None:
        _watch(api, port, "tx" if tx else "rx", frames, seconds, as_json)
        return
    octets = _frame(frame, pcap, number)
    with reach(api) as client:
        found = client.trace(port, octets, "tx" if tx else "rx")
    if as_json:
        print_json(found)
        return
    for step in found["steps"]:
        why = step["fault"] or step["reason"]
        to = f" {step['port']}" if step["port"] >= 0 else ""
        print(f"{step['name']}: {step['verdict']}{to}" + (f" ({why})" if why else ""))
        for name, (before, after) in step["changed"].items():
            print(f"  {name}  {before or 0} -> {after or 0}")
        for to_port, length in step["copies"]:
            print(f"  a copy of {length} bytes to port number {to_port}")
    print(found["frame"])


def _watch(api: str | None, port: str, direction: str, frames: int, seconds: float,
           as_json: bool) -> None:
    with reach(api) as client:
        found = client.watch(port, direction, frames, seconds)
    if as_json:
        print_json(found)
        return
    for one in found:
        print(f"{one['length']} bytes  {_pairs_text(one['headers'])}")
        for step in one["steps"]:
            print(f"  {step['function']}: {step['verdict']}")
            for name, (before, after) in step["changed"].items():
                print(f"    {name}  {before or 0} -> {after or 0}")
    if not found:
        print(f"no frame came within {seconds:g} seconds")


def _frame(written: str | None, pcap: str | None, number: int) -> bytes:
    """The frame that a command names."""
    if (written is None) == (pcap is None):
        raise typer.BadParameter("name a frame, or a capture", param_hint="--frame")
    if pcap is None:
        try:
            return bytes.fromhex(written or "")
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--frame") from None
    from byway.packet.pcapfile import read_frames

    try:
        found = next(islice(read_frames(Path(pcap)), number - 1, None), None)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--pcap") from None
    if found is None:
        raise typer.BadParameter(f"{pcap} has no frame {number}", param_hint="--number")
    return found


def listen(name: Name, api: Api = None) -> None:
    """Run the listener of an instance; the switch does that by itself."""
    from byway.cli.nf_listen import run_listener

    with reach(api) as client:
        path = client.path
    raise typer.Exit(run_listener(name, path))


def _given(pairs: list[str] | None) -> dict[str, Any]:
    return {key: _read(value)
            for key, value in split_pairs(pairs, "KEY=VALUE", "limit=50").items()}


def _read(written: str) -> Any:
    """A value of the command line: JSON where it is that, else text."""
    try:
        return json.loads(written)
    except ValueError:
        return written


def _pairs_text(pairs: dict[str, Any]) -> str:
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}"
                    for name, value in pairs.items()) or "-"


def _value(value: Any) -> str:
    return _pairs_text(value) if isinstance(value, dict) else str(value)


def _shown(found: Row) -> list[str]:
    lines = [f"{key:<10}  {text(found[key])}"
             for key in ("name", "use", "summary", "state", "reason", "ports") if found[key]]
    lines += [f"{'frames':<10}  {found['frames']}",
              f"{'faults':<10}  {found['faults']}"
              + (f", the last one: {found['last_fault']}" if found["last_fault"] else "")]
    if found["copies_lost"]:
        lines.append(f"{'copies lost':<10}  {found['copies_lost']}")
    for title, values in (("parameters", found["parameters"]), ("drops", found["drops"])):
        if values:
            lines += [title, *(f"  {name}  {text(value)}" for name, value in values.items())]
    if states := found.get("states"):
        lines += ["state", *(f"  {name}  {_pairs_text(stats)}" for name, stats in states.items())]
    return lines


def register(app: typer.Typer) -> None:
    """Add these commands to `byway nf`."""
    app.command("list")(list_functions)
    app.command()(show)
    app.command()(add)
    app.command()(remove)
    app.command("set")(set_)
    app.command()(put)
    app.command()(reload)
    app.command()(events)
    app.command()(trace)
    app.command(hidden=True)(listen)
