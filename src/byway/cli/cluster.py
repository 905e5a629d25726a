# SPDX-License-Identifier: Apache-2.0
"""`byway cluster status`: how the cluster is, as this host sees it.

Used by main. Uses byway.client through reach.
"""

import typer

from byway.cli.output import print_json, text
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The cluster that a running switch is in.")


@app.callback()
def group() -> None:
    """The cluster that a running switch is in."""


@app.command()
def status(api: Api = None, as_json: Json = False) -> None:
    """Show how the cluster is: its etcd, this host, and what is known here. Status 1 where it does
    not answer, or not everything is known yet."""
    with reach(api) as client:
        cluster = client.cluster()
    if as_json:
        print_json(cluster)
    else:
        width = max(map(len, cluster))
        for key, value in cluster.items():
            print(f"{key.replace('_', ' '):<{width}}  {_shown(value)}")
    if not (cluster["connected"] and cluster["synced"]):
        raise typer.Exit(1)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(one)}" for key, one in value.items()) or "-"
    return text(value)
