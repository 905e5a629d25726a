# SPDX-License-Identifier: Apache-2.0
"""Plans that no worker follows, for tests of the kernels that read them.

Used by tests; see worker/plan.py.
"""

import ctypes
from collections.abc import Mapping

from byway.worker.plan import LOOK, Plan


def settle(plan: Plan) -> None:
    """Make the edits here and now."""
    edits, _ = plan.take()
    for where, what in edits.reshape(-1, 2).tolist():
        if where != LOOK:
            ctypes.c_int64.from_address(where).value = what


def plan_of(ports: Mapping[int, int], members: Mapping[int, list[int]],
            longest: int = 1514) -> Plan:
    """A plan with PORT addresses by number, and networks with these members and no fdb."""
    plan = Plan()
    for network, numbers in members.items():
        plan.set_network(network, 0, longest)
        for number in numbers:
            plan.join(network, number)
    for number, address in ports.items():
        plan.set_port(number, address)
    settle(plan)
    return plan
