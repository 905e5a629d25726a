# SPDX-License-Identifier: Apache-2.0
"""Steps that the tests of the back end share: single messages, and rings that run."""

from byway.testing.conversation import (
    FEATURES,
    RING_SIZE,
    FileKind,
    Step,
    region,
    ring_address,
)
from byway.testing.dialogue import PROTOCOL_OFFERED, Dialogue
from byway.vhost.messages import NEED_REPLY, VERSION, Request
from byway.vhost.payloads import RingFile, VringState, pack_memory_table, pack_u64

R = Request
EVENT = (FileKind.EVENT,)
TABLE = Step(R.SET_MEM_TABLE, payload=pack_memory_table([region()]), files=(FileKind.MEMORY,))
TAKE_ALL = Step(R.SET_PROTOCOL_FEATURES, payload=pack_u64(PROTOCOL_OFFERED))


def u64(request: Request, value: int) -> Step:
    """A request that carries an integer."""
    return Step(request, payload=pack_u64(value))


def asked(step: Step) -> Step:
    """The step, with an acknowledgement wanted."""
    return Step(step.request, VERSION | NEED_REPLY, step.payload, step.files)


def state(request: Request, index: int, num: int) -> Step:
    """A request that carries a ring and a number."""
    return Step(request, payload=VringState(index, num).pack())


def ring_file(request: Request, index: int, given: bool = True) -> Step:
    """A request that brings an event fd, or none."""
    return Step(request, payload=RingFile(index, given).pack(), files=EVENT if given else ())


def ring_steps(index: int, size: int = RING_SIZE, base: int = 5) -> list[Step]:
    """Everything about one ring, the kick last."""
    return [state(R.SET_VRING_NUM, index, size), state(R.SET_VRING_BASE, index, base),
            Step(R.SET_VRING_ADDR, payload=ring_address(index).pack()),
            ring_file(R.SET_VRING_CALL, index), ring_file(R.SET_VRING_KICK, index)]


def start(talk: Dialogue, *indices: int, features: int = FEATURES, size: int = RING_SIZE,
          base: int = 5) -> None:
    """Protocol features, features, memory and these rings, which then run."""
    talk.play([TAKE_ALL, u64(R.SET_FEATURES, features), TABLE])
    for index in indices:
        talk.play(ring_steps(index, size, base))
    assert talk.end is None, talk.reason
    assert talk.target.served == list(indices)
