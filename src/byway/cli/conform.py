# SPDX-License-Identifier: Apache-2.0
"""`byway conform`: test somebody's vhost-user back end or front end, without a switch.

Used by main. Imports byway.conform when it is called. Exit status: 0 where no *must* failed, 1
where one did or nobody is there to be tested, 2 for a wrong call.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from byway.cli.output import column, print_json, print_table
from byway.cli.reach import Json

if TYPE_CHECKING:
    from byway.conform.outcome import Check, Outcome

app = typer.Typer(no_args_is_help=True,
                  help="Test a vhost-user back end or front end of anybody's, over its socket.")


class Mode(StrEnum):
    """Who listens at the socket."""

    SERVER = "server"
    CLIENT = "client"


Socket = Annotated[str | None, typer.Argument(metavar="SOCKET", help="The Unix socket.")]
Only = Annotated[str | None, typer.Option(
    metavar="PATTERN", help="Checks by name: shell patterns or groups, with commas between.")]
Listed = Annotated[bool, typer.Option("--list", help="List the checks and end.")]
Junit = Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit report there.")]
Seed = Annotated[int, typer.Option(help="Decides everything that is random.")]


@app.callback()
def conform() -> None:
    """Test a vhost-user back end or front end of anybody's, over its socket."""


@app.command()
def backend(
    socket: Socket = None,
    peer: Annotated[str | None, typer.Option(
        metavar="SOCKET2", help="Another port of the same switch: what goes into one comes out of"
        " the other.")] = None,
    loopback: Annotated[bool, typer.Option(
        "--loopback", help="The back end sends frames back to where they came from.")] = False,
    mode: Annotated[Mode, typer.Option(help="Who listens: client: the back end.")] = Mode.CLIENT,
    timeout: Annotated[float, typer.Option(
        min=0.1, max=600, help="Seconds within which what must come has to come.")] = 2.0,
    seed: Seed = 1,
    only: Only = None,
    listed: Listed = False,
    as_json: Json = False,
    junit: Junit = None,
    hostile: Annotated[bool, typer.Option(
        "--hostile", help="Spoiled conversations and rings in place of the checks.")] = False,
    cases: Annotated[int, typer.Option(min=1, help="How many, with --hostile.")] = 200,
    out: Annotated[str, typer.Option(
        metavar="FILE", help="Where a finding of --hostile is written.")] = "finding.json",
    replay: Annotated[str | None, typer.Option(
        metavar="FILE", help="Do what this file says, as --hostile wrote it.")] = None,
    start: Annotated[str | None, typer.Option(
        metavar="COMMAND", help="What starts the back end, for --hostile and --replay: it is"
        " started again after it broke.")] = None,
) -> None:
    """Test a back end: Byway plays the front end and the driver."""
    from byway.conform.backend.catalogue import all_checks

    checks = _select(all_checks(), only, listed, as_json)
    if peer and loopback:
        _wrong("--peer and --loopback exclude each other")
    from byway.conform.backend.bench import Bench

    subject = _open(lambda path: Bench(path, server=mode is Mode.SERVER, peer=peer,
                                       loopback=loopback, timeout=timeout, seed=seed), socket)
    if hostile or replay:
        from byway.cli.conform_hostile import run_hostile

        raise typer.Exit(run_hostile(subject, str(socket), seed, cases, out, replay, start,
                                    as_json))
    raise typer.Exit(_run("backend", str(socket), seed, checks, subject, as_json, junit))


@app.command()
def frontend(
    socket: Socket = None,
    connect: Annotated[bool, typer.Option(
        "--connect", help="The front end listens; the same as --mode client.")] = False,
    mode: Annotated[Mode, typer.Option(help="Who listens: server: Byway.")] = Mode.SERVER,
    timeout: Annotated[float, typer.Option(
        min=0.1, max=600, help="Seconds for it to come, to start, to take frames.")] = 30.0,
    seed: Seed = 1,
    only: Only = None,
    listed: Listed = False,
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Test a front end and the driver behind it: Byway plays the back end and the device."""
    from byway.conform.frontend.catalogue import all_checks

    checks = _select(all_checks(), only, listed, as_json)
    from byway.conform.frontend.bench import FrontBench

    server = mode is Mode.SERVER and not connect
    subject = _open(lambda path: FrontBench(path, server=server, timeout=timeout, seed=seed),
                    socket)
    raise typer.Exit(_run("frontend", str(socket), seed, checks, subject, as_json, junit))


# ---------------------------------------------------------------- parts of both


def _wrong(text: str) -> None:
    print(f"byway conform: {text}", file=sys.stderr)
    raise typer.Exit(2)


def _select(checks: Iterable["Check[Any]"], only: str | None, listed: bool,
            as_json: bool) -> list["Check[Any]"]:
    """The checks to make; where only their list is wanted, it is printed and that is all."""
    from byway.conform.runner import select

    chosen = select(list(checks), only)
    if not chosen:
        _wrong(f"--only {only}: no check has such a name; --list shows them")
    if listed:
        rows = [{"name": c.name, "level": c.level.value, "section": c.section, "done": c.done}
                for c in chosen]
        if as_json:
            print_json(rows)
        else:
            print_table([column("name", "check"), column("level"), column("section"),
                         column("done", "what is done")], rows)
        raise typer.Exit(0)
    return chosen


def _open(make: Any, socket: str | None) -> Any:
    from byway.machine.unixsocket import SocketError, check_path

    if socket is None:
        _wrong("which socket? --help shows how to name it")
    try:
        check_path(str(socket))
        return make(socket)
    except SocketError as error:
        print(f"byway conform: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _run(direction: str, path: str, seed: int, checks: list["Check[Any]"], subject: Any,
         as_json: bool, junit: str | None) -> int:
    """Make the checks and say what came of them; -> the exit status."""
    from byway.conform import report

    outcomes: list[Outcome] = []
    try:
        if nobody := _nobody(subject):
            print(f"byway conform: {nobody}", file=sys.stderr)
            return 1
        for outcome in _shown(checks, subject, as_json):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        print("byway conform: interrupted", file=sys.stderr)
        return 1
    finally:
        subject.close()
    written = not junit or _write(junit, report.as_junit(direction, path, outcomes))
    if as_json:
        print(json.dumps(report.as_json(direction, path, seed, outcomes), indent=2))
    else:
        print(report.sentence(outcomes))
    return int(not written or any(outcome.counts for outcome in outcomes))


def _write(file: str, text: str) -> bool:
    """Write a report; where that is not possible, say so."""
    try:
        Path(file).write_text(text)
    except OSError as error:
        print(f"byway conform: --junit {file}: cannot be written: {error.strerror}",
              file=sys.stderr)
        return False
    return True


def _nobody(subject: Any) -> str:
    """Why there is nobody to test at the socket; empty where somebody answers."""
    from byway.conform.outcome import Failed, Gone
    from byway.vhost.messages import ProtocolError

    try:
        subject.probe()
    except Gone as error:
        return str(error)
    except (Failed, ProtocolError):
        return ""  # What it answers is for the checks to judge.
    return ""


def _shown(checks: list["Check[Any]"], subject: Any, as_json: bool) -> Iterator["Outcome"]:
    """Outcomes, each shown as it comes: on a terminal with progress, else a line each."""
    from byway.conform.runner import run

    if as_json:
        yield from run(checks, subject)
    elif sys.stdout.isatty():
        yield from _drawn(checks, subject)
    else:
        wide = max(len(check.name) for check in checks)
        for outcome in run(checks, subject):
            print(f"{outcome.verdict.value:14}  {outcome.level.value:6}  {outcome.name:{wide}}  "
                  f"{outcome.seen}", flush=True)
            yield outcome


COLOURS = {"pass": "green", "fail": "red", "not-applicable": "dim", "unable": "yellow"}


def _drawn(checks: list["Check[Any]"], subject: Any) -> Iterator["Outcome"]:
    """On a terminal: progress below, the table at the end."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
    from rich.text import Text

    from byway.conform.runner import run

    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in ("verdict", "level", "check", "section", "seen"):
        table.add_column(heading, no_wrap=heading not in ("seen", "section"))
    with Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                  console=console, transient=True) as progress:
        task = progress.add_task("", total=len(checks))
        for outcome in run(checks, subject,
                           lambda check: progress.update(task, description=check.name)):
            progress.advance(task)
            verdict = outcome.verdict.value
            table.add_row(Text(verdict, COLOURS[verdict]), outcome.level.value, outcome.name,
                          Text(outcome.section), Text(outcome.seen))
            yield outcome
    console.print(table)
