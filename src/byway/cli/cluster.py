# SPDX-License-Identifier: Apache-2.0
"""`byway cluster status`: how the cluster is, as this host sees it.

Used by main. Uses byway.client through reach.
"""

from typing import Any

import typer

from byway.cli.output import aligned, column, print_json, text
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="The cluster that a running switch is in.")

_MEMBERS = [column("host"), column("address"), column("networks")]


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
        print("\n".join(_description(cluster)))
    if not (cluster["connected"] and cluster["synced"]):
        raise typer.Exit(1)


def _description(cluster: dict[str, Any]) -> list[str]:
    """What is one value first; then who is there, and what is wrong."""
    lists = {"members", "problems"}
    width = max(map(len, cluster))
    lines = [f"{key.replace('_', ' '):<{width}}  {_shown(value)}"
             for key, value in cluster.items() if key not in lists]
    if members := cluster.get("members"):
        lines += ["members", *(f"  {line}" for line in aligned(_MEMBERS, members))]
    if problems := cluster.get("problems"):
        lines += ["problems", *(f"  {problem}" for problem in problems)]
    return lines


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(one)}" for key, one in value.items()) or "-"
    return text(value)
