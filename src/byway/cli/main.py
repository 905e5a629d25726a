# SPDX-License-Identifier: Apache-2.0
"""`byway`: all commands joined.

The entry point of the package. Uses the other modules of cli.
"""

from typing import Annotated

import typer

from byway import __version__
from byway.cli import (
    cluster,
    conform,
    connection,
    docker_plugin,
    doctor,
    fdb,
    host,
    network,
    nf,
    population,
    port,
    router,
    run,
    security_group,
    service,
    top,
    underlay,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"byway {__version__}")
        raise typer.Exit


@app.callback()
def byway(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A user-space virtual switch: frames between virtual machines, around the kernel."""


run.register(app)
app.add_typer(port.app, name="port")
app.add_typer(network.app, name="network")
app.add_typer(fdb.app, name="fdb")
app.add_typer(underlay.app, name="underlay")
app.add_typer(host.app, name="host")
app.add_typer(population.app, name="population")
app.add_typer(security_group.app, name="security-group")
app.add_typer(router.app, name="router")
app.add_typer(service.app, name="service")
app.add_typer(connection.app, name="connection")
app.add_typer(cluster.app, name="cluster")
app.command()(top.top)
app.add_typer(nf.app, name="nf")
app.add_typer(conform.app, name="conform")
app.command()(doctor.doctor)
app.command()(docker_plugin.docker_plugin)


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="byway")
