# SPDX-License-Identifier: Apache-2.0
"""`byway port list|show`; add and remove are of change_port.

Used by main. Uses byway.client through reach; the sentences of drop reasons from packet.reason.
"""

import os
import sys
from typing import Annotated, Any

import typer

from byway.cli.change_port import add, remove
from byway.cli.output import Column, aligned, column, print_json, print_table, text
from byway.cli.reach import Api, Json, reach
from byway.cli.snippets import NoSnippet, Snippet, make_snippet
from byway.packet.reason import Reason

app = typer.Typer(no_args_is_help=True, help="The ports of a running switch.")

_COLUMNS = [
    column("name"), column("network"), column("kind"), column("state"),
    column("rx_frames", "rx frames", right=True), column("tx_frames", "tx frames", right=True),
    Column("drops", lambda port: str(sum(port["drops"].values())), right=True),
    column("reason"),
]
_RINGS = [
    column("index", "ring", right=True), column("way"), column("format"),
    column("size", right=True),
    Column("enabled", lambda ring: "yes" if ring["enabled"] else "no"),
    *(Column(key, lambda ring, key=key: text(ring.get(key)), right=True)  # type: ignore[misc]
      for key in ("frames", "bytes", "calls")),
]


@app.command("list")
def list_ports(api: Api = None, as_json: Json = False) -> None:
    """List the ports with state and counters."""
    with reach(api) as client:
        ports = client.ports()
    if as_json:
        print_json(ports)
    else:
        print_table(_COLUMNS, ports)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The port.")],
    snippet: Annotated[
        Snippet | None, typer.Option(help="Instead: the text that connects such a peer to it.")
    ] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Show all there is to know about one port, or how to connect to it."""
    with reach(api) as client:
        port = client.port(name)
        path = os.path.abspath(client.path)
    if snippet:
        try:
            made = make_snippet(snippet, port, path)
        except NoSnippet as error:
            print(f"byway: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        if as_json:
            print_json({"port": name, "for": snippet, "text": made})
        else:
            print(made)
    elif as_json:
        print_json(port)
    else:
        print("\n".join(_description(port)))


def _description(port: dict[str, Any]) -> list[str]:
    lines = [f"{key:<10}  {text(port[key])}"
             for key in ("name", "network", "kind", "state", "reason", "peer", "mac", "mtu")]
    if trouble := port.get("last_trouble"):
        lines.insert(5, f"{'last down':<10}  {trouble}")
    if (carrier := port.get("carrier")) is not None:
        lines.append(f"{'carrier':<10}  {'yes' if carrier else 'no'}")
    if local := port.get("local"):
        lines.append(f"{'local':<10}  {local}")
    if ring := port.get("ring"):
        lines.append(f"{'ring':<10}  {ring['slots']} slots of {ring['slot_bytes']} bytes")
    enabled = port.get("queues_enabled")
    lines.append(f"{'queues':<10}  {port['queues']}"
                 + ("" if enabled is None else f", {enabled} enabled"))
    lines += _features(port["features"])
    if rings := port.get("rings"):
        lines.append("rings")
        lines += [f"  {line}" for line in aligned(_RINGS, rings)]
    if xdp := port.get("xdp"):
        lines += _section("xdp", xdp)
    for way in ("rx", "tx"):
        lines.append(
            f"{way:<10}  {port[f'{way}_frames']} frames, {port[f'{way}_bytes']} bytes")
    lines.append(f"{'drops':<10}  {sum(port['drops'].values())}")
    for reason, count in port["drops"].items():
        lines.append(f"  {reason}  {count}  {_sentence(reason)}".rstrip())
    return lines


def _section(title: str, facts: dict[str, Any]) -> list[str]:
    """A line for each fact; of a fact with parts, one for each part that says something."""
    lines = [title]
    for name, fact in facts.items():
        if isinstance(fact, dict):
            lines += [f"  {name.replace('_', ' ')}: {part} {text(value)}"
                      for part, value in fact.items() if value]
        else:
            lines.append(f"  {name.replace('_', ' ')}: {text(fact)}")
    return lines


def _features(features: dict[str, Any]) -> list[str]:
    """What was offered and taken, and why each other feature is off."""
    lines = [f"{key:<10}  {text(features[key])}" for key in ("offered", "acked")]
    if why := features.get("off"):
        width = max(map(len, why))
        lines += ["off", *(f"  {name:<{width}}  {reason}" for name, reason in why.items())]
    return lines


def _sentence(name: str) -> str:
    """Why frames are dropped for this reason; empty for one of a newer switch."""
    reason = Reason.__members__.get(name.upper())
    return f"{reason.sentence} {reason.fix}" if reason else ""


app.command()(add)
app.command()(remove)
