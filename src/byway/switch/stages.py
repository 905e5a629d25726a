# SPDX-License-Identifier: Apache-2.0
"""What is done with a port's frames besides switching them: which stages it has.

Used by worker (staging.py calls the stages, staged.py and deliver.py the rest) and by control,
which fills the record. A port without stages has none, and costs nothing for them.

parent: the address of the PORT that frames for this one really go to, 0: itself (a trunk's
sub-port's frames go to the trunk port, a tunnel's over an uplink to that). way: how a tunnel's
frames get there (ports.tunnel_uplink), 0 for all others. trunk, meter, security, responder, groups,
router, uplink: the address of that stage's own record for this port, 0 where it has none.
mirror_rx, mirror_tx: the number + 1 of the port that gets a copy of what comes in, or goes out.
chain_rx, chain_tx: the address of a CHAIN (chain.py), the network functions that frames go through.
services: the STEPS of a port with services; service: the BACK of an appliance's port (service.py).
alone: chain_rx, where that is all that is done with what comes in.
"""

from byway.machine.layout import record

STAGES, stages_at, S = record("stages", [
    "parent", "way", "trunk", "meter", "security", "responder", "groups", "router", "uplink",
    "mirror_rx", "mirror_tx", "chain_rx", "chain_tx", "alone", "services", "service"])
