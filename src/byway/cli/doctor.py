# SPDX-License-Identifier: Apache-2.0
"""`byway doctor`: what this machine offers, what is missing, and what it would give.

Used by main. Uses machine.facts; needs no running switch.
"""

from dataclasses import asdict

from byway.cli.output import print_json
from byway.cli.reach import Json
from byway.machine.facts import Fact, machine_facts


def doctor(as_json: Json = False) -> None:
    """Say what this machine offers to a switch, what is missing, and what it would give."""
    facts = machine_facts()
    if as_json:
        print_json([asdict(fact) for fact in facts])
    else:
        print("\n".join(lines(facts)))


def lines(facts: list[Fact]) -> list[str]:
    """One line a fact; under a missing one, what it would give and how to get it."""
    width = max(len(fact.name) for fact in facts)
    indent = " " * (width + 11)
    made = []
    for fact in facts:
        made.append(f"{fact.state:<7}  {fact.name:<{width}}  {fact.found}")
        if fact.state in ("missing", "broken"):
            made += [f"{indent}it gives: {fact.gives}"] if fact.gives else []
            made += [f"{indent}to get it: {fact.fix}"] if fact.fix else []
    counts = {state: sum(fact.state == state for fact in facts) for state in ("missing", "broken")}
    if counts["broken"]:
        made.append(f"Byway does not work here: {counts['broken']} broken.")
    else:
        made.append(f"Byway works here; {counts['missing']} things would make it better."
                    if counts["missing"] else "Byway works here; nothing is missing.")
    return made
