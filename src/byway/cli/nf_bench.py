# SPDX-License-Identifier: Apache-2.0
"""`byway nf bench`: functions by themselves and as a chain, next to a chain without functions.

Used by cli.nf. Uses testing.chain_bench; what names a function is read by nf_use.py.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byway.cli.nf_use import Use, UseError, uses
from byway.cli.output import Column, column, print_json, print_table

if TYPE_CHECKING:
    from byway.functions.memory import Chain

EMPTY = "(empty chain)"


def run_bench(written: Sequence[str], captures: Sequence[str], flows: int, seconds: float,
              as_json: bool) -> int:
    """Measure and print; -> 0, 1 where a function is refused, 2 for a wrong call."""
    from byway.machine.clock import measure_hz
    from byway.nf import FunctionError, ParameterError
    from byway.packet.pcapfile import PcapError
    from byway.testing.builders import from_pcap
    from byway.testing.chain_bench import ChainBench, connections

    try:
        chosen = [one for text in written for one in uses(text)]
        frames = [frame for path in captures for frame in from_pcap(path)] or connections(flows)
        hz = measure_hz(0.05)
        chains = _chains(chosen, hz)
    except (UseError, FunctionError) as error:
        for problem in error.problems:
            print(f"byway nf bench: {problem}", file=sys.stderr)
        return error.status if isinstance(error, UseError) else 1
    except ParameterError as error:
        print(f"byway nf bench: {error}", file=sys.stderr)
        return 2
    except (PcapError, OSError) as error:
        print(f"byway nf bench: --pcap: {error}", file=sys.stderr)
        return 2
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

    def instance(one: Use) -> Instance:
        return Instance(blueprint_of(one.use, Path("/")), one.parameters)

    chains = {EMPTY: Chain([], "rx", hz)}
    for place, one in enumerate(chosen):
        name = one.shown if one.shown not in chains else f"{one.shown}.{place + 1}"
        chains[name] = Chain([instance(one)], "rx", hz)
    if len(chosen) > 1:
        chains["all of them"] = Chain([instance(one) for one in chosen], "rx", hz)
    return chains
