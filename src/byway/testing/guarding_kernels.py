# SPDX-License-Identifier: Apache-2.0
"""The responder and port security as tests call them: cached entries of int64 arguments.

Used by tests of switch.responder and switch.port_security; see the function that each one calls.
"""

from byway.machine.jit import kernel
from byway.switch.port_security import security_rx
from byway.switch.responder import responder_rx


@kernel(entry=True)
def respond(record, batch):
    """Answer what can be answered of a batch."""
    responder_rx(record, batch)
    return 0


@kernel(entry=True)
def secure(record, batch):
    """Drop what a port may not send of a batch."""
    security_rx(record, batch)
    return 0
