# SPDX-License-Identifier: Apache-2.0
"""`byway nf list|show|add|remove|set|reload|events|trace`: functions of a running switch.

Used by nf. Uses byway.client through reach, and nf_table, which has the commands of tables. Paths
of functions' files are made absolute here: the switch has another working directory.
"""

import contextlib
import os
import signal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from byway.cli.nf_table import put, table
from byway.cli.output import Column, Row, column, print_json, print_table, text
from byway.cli.pairs import pairs_text, split_pairs, value_of
from byway.cli.reach import Api, Json, reach

Name = Annotated[str, typer.Argument(
    metavar="NAME", help="The instance, as `byway nf list` shows it: vm1/RateGuard.")]


def _drops(row: Row) -> str:
    return str(sum(row["drops"].values()))


_COLUMNS = [
    column("name"), column("function"), column("state"),
    column("frames", right=True), Column("drops", _drops, right=True),
    column("faults", right=True), column("ports"),
    Column("parameters", lambda row: pairs_text(row["parameters"])),
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


def show(name: Name, api: Api = None, as_json: Json = False) -> None:
    """Show an instance: parameters, counters, drops by reason, the last fault, state."""
    with reach(api) as client:
        found = client.function(name)
    if as_json:
        print_json(found)
    else:
        print("\n".join(_shown(found)))


def add(
    function: Annotated[str, typer.Argument(
        metavar="FUNCTION", help="FILE:CLASS or byway.NAME, with parameters as in"
        " 'guard.py:RateGuard(limit=50)'; or the name of a function that has one.")],
    port: Annotated[str | None, typer.Option(
        metavar="NAME", help="The port whose chain it comes into.")] = None,
    network: Annotated[str | None, typer.Option(
        metavar="NAME", help="The network whose chain it comes into.")] = None,
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
    if set_ and not name:
        raise typer.BadParameter("goes with --name; else write 'guard.py:RateGuard(limit=50)'",
                                 param_hint="--set")
    use, more = _as_written(function, name, _given(set_))
    with reach(api) as client:
        if port or network:
            how = {key: True for key, on in (("tx", tx), ("first", first)) if on}
            added = client.add_step("port" if port else "network", port or network or "", use,
                                    **how, **more)["name"]
        else:
            added = client.add_function({"use": use, **more})["name"]
        rows = [row for row in client.functions() if row["name"] == added]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        where = f" in the way of {' '.join(row['ports'])}" if row["ports"] else ""
        print(f"{row['name']} is {row['state']}{where}")
    if network and not any(row["ports"] for row in rows):
        print(f"network {network} has no ports yet: the function will be in their way")


def _as_written(function: str, name: str | None, given: Row) -> tuple[str, Row]:
    """What is to be put into a chain, and what else is said of it: of one with a name, that and its
    parameters."""
    from pydantic_core import PydanticCustomError

    from byway.control.chains import based, parse_step

    use = str(based(function, os.getcwd()))
    if name is None:
        return use, {}
    try:
        step = parse_step(use)
    except PydanticCustomError:  # the switch says what is wrong with it
        return use, {"name": name, "parameters": given}
    return step.use or use, {"name": name, "parameters": {**step.parameters, **given}}


def remove(name: Name, api: Api = None) -> None:
    """Remove an instance from all chains it stands in; ports and networks go on."""
    with reach(api) as client:
        client.remove_function(name)
    print(f"{name} is gone")


def set_(
    name: Name,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="Parameters.")],
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Change parameters of an instance, from the next frame on."""
    with reach(api) as client:
        found = client.set_function(name, _given(pairs))
    if as_json:
        print_json(found)
    else:
        print(f"{name}  {pairs_text(found['parameters'])}")


def reload(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="NAME", help="The instances; without any: all.")] = None,
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
        metavar="EVENT", help="One of its events; without: all.")] = None,
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
    """Tell what each function of a port says of a frame.

    Nothing in the switch sees it; or, with --frames, it is told of those that come.
    """
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
        print(f"{one['length']} bytes  {pairs_text(one['headers'])}")
        for step in one["steps"]:
            print(f"  {step['function']}: {step['verdict']}")
            for name, (before, after) in step["changed"].items():
                print(f"    {name}  {before or 0} -> {after or 0}")
    if not found:
        print(f"no frame came within {seconds:g} seconds")


def _frame(written: str | None, pcap: str | None, number: int) -> bytes:
    """The frame that a command names."""
    if (written is None) == (pcap is None):
        raise typer.BadParameter("give --frame HEX, --pcap FILE, or --frames N",
                                 param_hint="--frame")
    if pcap is None:
        try:
            return bytes.fromhex(written or "")
        except ValueError:
            raise typer.BadParameter("write two hexadecimal digits for each byte, as in"
                                     " ffffffffffff0200000000010806", param_hint="--frame"
                                     ) from None
    from byway.packet.pcapfile import read_frames

    try:
        found = next(islice(read_frames(Path(pcap)), number - 1, None), None)
    except OSError as error:
        raise typer.BadParameter(f"{pcap}: {error.strerror}", param_hint="--pcap") from None
    except ValueError as error:
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
    return {key: value_of(value)
            for key, value in split_pairs(pairs, "KEY=VALUE", "limit=50").items()}


def _shown(found: Row) -> list[str]:
    lines = [f"{key:<10}  {text(found[key])}"
             for key in ("name", "use", "summary", "state", "reason", "ports") if found[key]]
    lines += [f"{'frames':<10}  {found['frames']}",
              f"{'faults':<10}  {found['faults']}"
              + (f", the last one: {found['last_fault']}" if found["last_fault"] else "")]
    if found["copies_lost"]:
        lines.append(f"{'copies lost':<10}  {found['copies_lost']}")
    if listener := found.get("listener"):
        said = [listener["state"], f"pid {listener['pid']}" if listener["pid"] else "",
                listener["last"] or ""]
        lines.append(f"{'listener':<10}  {', '.join(filter(None, said))}")
    for title, values in (("parameters", found["parameters"]), ("drops", found["drops"])):
        if values:
            lines += [title, *(f"  {name}  {text(value)}" for name, value in values.items())]
    if states := found.get("states"):
        lines += ["state", *(f"  {name}  {pairs_text(stats)}" for name, stats in states.items())]
    return lines


def register(app: typer.Typer) -> None:
    """Add these commands to `byway nf`."""
    for name, command in (
            ("list", list_functions), ("show", show), ("add", add), ("remove", remove),
            ("set", set_), ("table", table), ("put", put), ("reload", reload), ("events", events),
            ("trace", trace)):
        app.command(name, rich_help_panel="In a running switch")(command)
    app.command(hidden=True)(listen)
