# SPDX-License-Identifier: Apache-2.0
"""`byway nf`: network functions, from the first line of one to its work in a running switch.

Used by main. The commands here are the author's (new, check, test, bench) and need no switch; those
of nf_switch.py ask a running one. Check, test and bench import the function's file: they run what
stands in it. Exit status: 0 where all is well, 1 where the function is not, 2 for a wrong call.
"""

import sys
from typing import Annotated

import typer

from byway.cli import nf_switch
from byway.cli.reach import Json

app = typer.Typer(no_args_is_help=True, help="Write, check and use network functions.")

AUTHORS = "Of authors: no switch is needed"

Use = Annotated[str, typer.Argument(
    metavar="FUNCTION", help="FILE, FILE:CLASS, or byway.NAME; with parameters as"
    " 'guard.py:RateGuard(limit=50)'.")]
Pcap = Annotated[list[str] | None, typer.Option(
    metavar="FILE", help="Frames of this capture too; may be repeated.")]


@app.callback()
def nf() -> None:
    """Write, check and use network functions."""


@app.command(rich_help_panel=AUTHORS)
def new(
    place: Annotated[str, typer.Argument(
        metavar="FILE[:CLASS]", help="The file to write, as guard.py or guard.py:RateGuard.")],
) -> None:
    """Write a network function to start from, and a test of it beside it."""
    from byway.cli.nf_new import PlaceError, write_scaffold

    try:
        written = write_scaffold(place)
    except PlaceError as error:
        print(f"byway nf new: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except OSError as error:
        print(f"byway nf new: {error.filename}: {error.strerror}", file=sys.stderr)
        raise typer.Exit(1) from None
    for path in written:
        print(f"wrote {path}")


@app.command(rich_help_panel=AUTHORS)
def check(
    function: Use,
    pcap: Pcap = None,
    frames: Annotated[int, typer.Option(
        min=1, max=10_000_000, help="How many frames are generated.")] = 3000,
    seed: Annotated[int, typer.Option(help="Decides which frames are generated.")] = 1,
    as_json: Json = False,
) -> None:
    """Compile a function, and run it over frames right, wrong and cut.

    Plain Python, interpreted and compiled have to agree, and nothing may go wrong.
    """
    from byway.cli.nf_check import run_check

    raise typer.Exit(run_check(function, pcap or [], frames, seed, as_json))


@app.command(rich_help_panel=AUTHORS, context_settings={
    "allow_extra_args": True, "ignore_unknown_options": True})
def test(
    context: typer.Context,
    file: Annotated[str, typer.Argument(
        metavar="FILE", help="The function's file, guard.py, or its tests', test_guard.py.")],
) -> None:
    """Run the tests of a function, each in plain Python and compiled.

    What follows FILE goes to pytest.
    """
    from byway.cli.nf_test import run_tests

    raise typer.Exit(run_tests(file, context.args))


@app.command(rich_help_panel=AUTHORS)
def bench(
    functions: Annotated[list[str], typer.Argument(
        metavar="FUNCTION", help="One, or several: a chain.")],
    pcap: Pcap = None,
    flows: Annotated[int, typer.Option(
        min=1, max=1_000_000, help="How many connections the frames are of.")] = 256,
    seconds: Annotated[float, typer.Option(min=0.05, max=600, help="How long.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Measure what a function or a chain costs: cycles for a frame, next to an empty chain."""
    from byway.cli.nf_bench import run_bench

    raise typer.Exit(run_bench(functions, pcap or [], flows, seconds, as_json))


nf_switch.register(app)
