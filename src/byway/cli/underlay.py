# SPDX-License-Identifier: Apache-2.0
"""`byway underlay show`: what carries the tunnels, and what it dropped.

Used by main. Uses byway.client through reach; the sentences of drop reasons from packet.reason.
"""

import typer

from byway.cli.output import print_json, text
from byway.cli.reach import Api, Json, reach
from byway.packet.reason import Reason

app = typer.Typer(no_args_is_help=True, help="What carries the tunnels of a running switch.")


@app.callback()
def group() -> None:
    """What carries the tunnels of a running switch."""


@app.command()
def show(api: Api = None, as_json: Json = False) -> None:
    """Show the underlay: its address and state, and datagrams that belong to no host."""
    with reach(api) as client:
        underlay = client.underlay()
        wanted = client.switch()["underlay"] or {}
    if as_json:
        print_json(underlay)
        return
    for key in ("address", "port", "mtu", "uplink"):
        print(f"{key:<8}  {text(wanted.get(key))}")
    for key in ("state", "reason"):
        print(f"{key:<8}  {text(underlay[key])}")
    for way in ("rx", "tx"):
        print(f"{way:<8}  {underlay[f'{way}_frames']} frames, {underlay[f'{way}_bytes']} bytes")
    print(f"{'drops':<8}  {sum(underlay['drops'].values())}")
    for name, count in underlay["drops"].items():
        reason = Reason.__members__.get(name.upper())
        print(f"  {name}  {count}  {f'{reason.sentence} {reason.fix}' if reason else ''}".rstrip())
