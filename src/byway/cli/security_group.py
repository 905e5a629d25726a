# SPDX-License-Identifier: Apache-2.0
"""`byway security-group list|show|add|remove`: what ports may reach and be reached by.

Used by main. Uses byway.client through reach. A rule is written as its direction and its keys with
commas between: "ingress,protocol=tcp,ports=80,remote=10.0.0.0/8".
"""

from typing import Annotated, Any

import typer

from byway.cli.output import Column, column, print_json, print_table
from byway.cli.pairs import split_pair
from byway.cli.reach import Api, Json, reach

app = typer.Typer(no_args_is_help=True, help="What the ports of a running switch may reach.")

_COLUMNS = [
    column("name"), Column("rules", lambda group: str(len(group["rules"])), right=True),
    Column("ports", lambda group: str(len(group["ports"])), right=True),
]
_NUMBERS = ("icmp_type", "icmp_code")


@app.command("list")
def list_groups(api: Api = None, as_json: Json = False) -> None:
    """List the security groups."""
    with reach(api) as client:
        groups = client.security_groups()
    if as_json:
        print_json(groups)
    else:
        print_table(_COLUMNS, groups)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The security group.")],
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Show the rules of a security group, and its ports."""
    with reach(api) as client:
        group = client.security_group(name)
    if as_json:
        print_json(group)
        return
    print(f"name   {group['name']}")
    print(f"ports  {' '.join(group['ports']) or '-'}")
    print("rules")
    for rule in group["rules"]:
        print(f"  {rule_text(rule)}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The security group.")],
    rule: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help='As "ingress,protocol=tcp,ports=80"; repeat it.')
    ] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Add a security group, or give the one of that name these rules; its ports go on."""
    with reach(api) as client:
        group = client.add_security_group(
            {"name": name, "rules": [parse_rule(one) for one in rule or []]})
    if as_json:
        print_json(group)
    else:
        print(f"security group {name} has {len(group['rules'])} rules")


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Those to remove.")],
    api: Api = None,
) -> None:
    """Remove security groups that no port and no rule speaks of, all of them or none."""
    with reach(api) as client:
        client.change(remove_security_groups=dict.fromkeys(names))


def rule_text(rule: dict[str, Any]) -> str:
    """A rule of the API, as it is written on the command line."""
    keys = [f"{key}={value}" for key, value in rule.items()
            if key != "direction" and value is not None]
    return ",".join([rule["direction"], *keys])


def parse_rule(written: str) -> dict[str, Any]:
    """A rule of the command line, for the API. What is no key or value, the switch says."""
    direction, *rest = written.split(",")
    rule: dict[str, Any] = {"direction": direction}
    for one in rest:
        key, value = split_pair(one, "--rule", "direction,key=value,...")
        number = key in _NUMBERS or key == "protocol"
        rule[key] = int(value) if number and value.isdecimal() else value
    return rule
