# SPDX-License-Identifier: Apache-2.0
"""`byway nf bench`: functions by themselves and as a chain, next to a chain without functions.

Used by cli.nf. Uses testing.chain_bench; what names a function is read by nf_use.py.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byway.cli.nf_use import Use, UseError, captured, uses
from byway.cli.output import Column, column, print_json, print_table

if TYPE_CHECKING:
    from byway.functions.memory import Chain

EMPTY = "(empty chain)"
_FILLED = ("lpm", "rules", "maglev")  # states that only users fill


def run_bench(written: Sequence[str], captures: Sequence[str], flows: int, seconds: float,
              as_json: bool) -> int:
    """Measure and print; -> 0, 1 where a function is refused, 2 for a wrong call."""
    from byway.machine.clock import measure_hz
    from byway.nf import FunctionError
    from byway.testing.chain_bench import ChainBench, connections

    try:
        chosen = [one for text in written for one in uses(text)]
        frames = captured(captures) or connections(flows)
        hz = measure_hz(0.05)
        chains = _chains(chosen, hz)
    except (UseError, FunctionError) as error:
        for problem in error.problems:
            print(f"byway nf bench: {problem}", file=sys.stderr)
        return error.status if isinstance(error, UseError) else 1
    _tell_empty(chains)
    costs = ChainBench(frames).measure(chains, seconds)
    empty = costs[EMPTY].cycles
    rows = [{"chain": name, "cycles_per_frame": round(cost.cycles, 1),
             "added_cycles": round(max(0.0, cost.cycles - empty), 1),
             "ns_per_frame": round(cost.cycles / hz * 1e9, 2),
             "not_passed": round(cost.settled, 4)} for name, cost in costs.items()]
    if as_json:
        print_json(rows)
    else:
        print_table([
            column("chain"), column("cycles_per_frame", "cycles/frame", right=True),
            column("added_cycles", "added", right=True),
            column("ns_per_frame", "ns/frame", right=True),
            Column("not passed", lambda row: f"{row['not_passed']:.1%}", right=True)], rows)
    return 0


def _chains(chosen: Sequence[Use], hz: float) -> "dict[str, Chain]":
    """A chain of none, one of each function, and one of all where there are several."""
    from byway.functions.build import blueprint_of
    from byway.functions.memory import Chain, Instance
    from byway.nf import ParameterError

    def instance(one: Use) -> Instance:
        try:
            return Instance(blueprint_of(one.use, Path("/")), one.parameters)
        except ParameterError as error:
            raise UseError([f"{one.shown}: {error} behind the function, as in"
                            " 'guard.py:RateGuard(limit=50)'"]) from None

    chains = {EMPTY: Chain([], "rx", hz)}
    for place, one in enumerate(chosen):
        name = one.shown if one.shown not in chains else f"{one.shown}.{place + 1}"
        chains[name] = Chain([instance(one)], "rx", hz)
    if len(chosen) > 1:
        chains["all of them"] = Chain([instance(one) for one in chosen], "rx", hz)
    return chains


def _tell_empty(chains: "Mapping[str, Chain]") -> None:
    """Say of functions whose tables only users fill that nobody has: what they cost then is another
    thing."""
    for name, chain in chains.items():
        for instance in chain.instances if len(chain.instances) == 1 else ():
            empty = [table for table, spec in instance.blueprint.states.items()
                     if spec["kind"] in _FILLED]
            if empty:
                print(f"byway nf bench: {name} is measured with nothing in {', '.join(empty)}",
                      file=sys.stderr)
