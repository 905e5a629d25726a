# SPDX-License-Identifier: Apache-2.0
"""The commands that are a switch themselves: `byway run`, `byway demo`, `byway bench`.

Used by main. They import the data path when they are called, not before.
"""

from importlib.util import find_spec
from typing import Annotated

import typer

from byway.cli.reach import Json

bench_app = typer.Typer(no_args_is_help=True, help="Measure the data path on this machine.")


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The configuration, in TOML.")],
    cluster: Annotated[
        str | None,
        typer.Option(metavar="etcd://HOST:PORT", help="The etcd of the cluster to be in."),
    ] = None,
) -> None:
    """Run a switch until SIGTERM or Ctrl-C. SIGHUP reads the file again."""
    from byway.control.daemon import main

    raise typer.Exit(main(file, cluster=cluster))


def demo(
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long guests exchange frames.")] = 5,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more on the way.")] = False,
) -> None:
    """Show a switch at work: three guests, two networks, every frame checked."""
    from byway.cli.demo import run_demo

    raise typer.Exit(run_demo(seconds, as_json, verbose))


@bench_app.callback()
def bench() -> None:
    """Measure the data path on this machine."""


@bench_app.command()
def vm2vm(
    frame: Annotated[
        str, typer.Option(help="Frame sizes in bytes, imix, or tso, with commas between.")
    ] = "64,256,1514,imix",
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="How long each size is measured.")] = 3,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the result there.")
    ] = None,
    packed: Annotated[bool, typer.Option("--packed", help="Packed rings.")] = False,
    pairs: Annotated[int, typer.Option(min=1, max=32, help="Queue pairs of each guest.")] = 1,
) -> None:
    """Two guests on another CPU: frames a second, bits a second, busy cycles a frame.

    tso: TCP frames of 64 KiB, to be cut into segments by whoever needs them cut: here nobody does.
    """
    from byway.cli.bench import run_vm2vm

    raise typer.Exit(run_vm2vm(frame.split(","), seconds, json_file, packed, pairs))


def register(app: typer.Typer) -> None:
    """Add those of these commands that this installation has."""
    app.command()(run)
    if find_spec("byway.cli.demo"):
        app.command()(demo)
    if find_spec("byway.cli.bench"):
        app.add_typer(bench_app, name="bench")
