# SPDX-License-Identifier: Apache-2.0
"""vhost/backend.py: what a conversation means, in the orders of real front ends and in odd ones."""

import os
from collections.abc import Callable

import pytest

from byway.testing.conversation import (
    FEATURES,
    LOG_SIZE,
    MAC,
    RING_SIZE,
    USER,
    FileKind,
    Step,
    cloud_hypervisor,
    legacy,
    qemu,
    region,
    ring_address,
    virtio_user,
)
from byway.testing.dialogue import (
    CONFIG_SPACE,
    OFFERED,
    PROTOCOL_OFFERED,
    Dialogue,
    End,
    Files,
    IdleTarget,
)
from byway.vhost.backend import BackEnd
from byway.vhost.messages import NEED_REPLY, SPECS, VERSION, Request
from byway.vhost.payloads import (
    Config,
    Inflight,
    Iotlb,
    Log,
    RingFile,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_u64,
    unpack_u64,
)
from byway.virtio.features import Feature, mask

R = Request
EVENT = (FileKind.EVENT,)


def u64(request: Request, value: int) -> Step:
    return Step(request, payload=pack_u64(value))


def state(request: Request, index: int, num: int) -> Step:
    return Step(request, payload=VringState(index, num).pack())


def ring_file(request: Request, index: int, given: bool = True) -> Step:
    return Step(request, payload=RingFile(index, given).pack(), files=EVENT if given else ())


def ring_steps(index: int) -> dict[str, Step]:
    return {"num": state(R.SET_VRING_NUM, index, RING_SIZE),
            "base": state(R.SET_VRING_BASE, index, 5),
            "addr": Step(R.SET_VRING_ADDR, payload=ring_address(index).pack()),
            "kick": ring_file(R.SET_VRING_KICK, index),
            "call": ring_file(R.SET_VRING_CALL, index)}


TABLE = Step(R.SET_MEM_TABLE, payload=pack_memory_table([region()]), files=(FileKind.MEMORY,))
SET_FEATURES = u64(R.SET_FEATURES, FEATURES)
TAKE_ALL = u64(R.SET_PROTOCOL_FEATURES, PROTOCOL_OFFERED)


def start(talk: Dialogue, *indices: int) -> None:
    """Features, memory and these rings."""
    talk.play([TAKE_ALL, SET_FEATURES, TABLE])
    for index in indices:
        talk.play(list(ring_steps(index).values()))
    assert talk.end is None, talk.reason
    assert talk.target.served == list(indices)


# ---------------------------------------------------------------- real front ends


def test_qemu(talk: Dialogue) -> None:
    replies = talk.play(qemu())
    assert talk.end is None, talk.reason
    assert talk.target.served == [0, 1]
    assert all(ring.enabled for ring in talk.back_end.rings[:2])
    assert talk.back_end.mtu == 1500
    assert talk.back_end.features == FEATURES
    asked = [m.request for m in replies]
    assert asked.count(R.GET_FEATURES) == 2
    assert asked.count(R.SET_MEM_TABLE) == 2
    # At the first start the call changes right after the kick, in the running ring; later it
    # comes with the start, since GET_VRING_BASE closed it.
    assert talk.target.calls == [0, 1]


def test_virtio_user(talk: Dialogue) -> None:
    talk.play(virtio_user())
    assert talk.end is None, talk.reason
    assert talk.target.served == [0, 1]
    assert talk.back_end.status == 15


def test_cloud_hypervisor(talk: Dialogue) -> None:
    replies = talk.play(cloud_hypervisor())
    assert talk.end is None, talk.reason
    assert len(replies) == len(cloud_hypervisor()) - 1, "all but SET_OWNER are answered, once"
    assert not any(ring.enabled for ring in talk.back_end.rings)


def test_legacy(talk: Dialogue) -> None:
    steps = legacy()
    talk.play(steps[:-3])
    assert talk.target.served == [0, 1]
    assert all(ring.enabled for ring in talk.back_end.rings), "at once without bit 30"
    assert [(r.kick, r.call, r.base) for r in talk.back_end.rings[:2]] == [(-1, -1, 7)] * 2
    talk.play(steps[-3:])
    assert talk.target.served == []
    assert talk.end is None


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("last", ["num", "addr", "kick", "call"])
def test_a_ring_is_ready_whatever_comes_last(talk: Dialogue, last: str) -> None:
    talk.play([SET_FEATURES, TABLE])
    steps = ring_steps(0)
    end = steps.pop(last)
    talk.play(list(steps.values()))
    assert talk.target.served == []
    assert not talk.back_end.rings[0].ready
    talk.say(end)
    ring = talk.back_end.rings[0]
    assert talk.target.served == [0]
    assert (ring.ready, ring.base, ring.size) == (True, 5, RING_SIZE)
    assert ring.desc == talk.back_end.memory.user_to_host(ring_address(0).desc, 1)


@pytest.mark.parametrize("last", [SET_FEATURES, TABLE])
def test_features_and_memory_may_come_last(talk: Dialogue, last: Step) -> None:
    talk.play([*ring_steps(0).values(), *ring_steps(1).values()])
    talk.play([s for s in (TABLE, SET_FEATURES) if s is not last])
    assert talk.target.served == []
    talk.say(last)
    assert talk.target.served == [0, 1]


def test_enable_before_everything(talk: Dialogue) -> None:
    talk.play([state(R.SET_VRING_ENABLE, 0, 1)] * 3)
    start(talk, 0, 1)
    assert [r.enabled for r in talk.back_end.rings[:2]] == [True, False]


def test_status_counts_only_once_it_was_sent(talk: Dialogue) -> None:
    start(talk, 0)
    talk.say(u64(R.SET_STATUS, 3))
    assert talk.target.served == []
    talk.say(u64(R.SET_STATUS, 11))
    talk.say(u64(R.SET_STATUS, 15))
    assert talk.target.served == [0]
    assert unpack_u64(talk.get(R.GET_STATUS)) == 15
    talk.say(u64(R.SET_STATUS, 0))
    assert talk.target.served == []


def test_what_changes_nothing_disturbs_nobody(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.play([state(R.SET_VRING_ENABLE, 0, 1), u64(R.SET_STATUS, 15)])
    before = talk.target.detaches
    talk.play([SET_FEATURES, TAKE_ALL, TABLE, state(R.SET_VRING_ENABLE, 0, 1), Step(R.SET_OWNER),
               Step(R.RESET_OWNER), Step(R.GET_FEATURES), u64(R.NET_SET_MTU, 1400),
               u64(R.SET_STATUS, 15), state(R.SET_VRING_NUM, 0, RING_SIZE),
               Step(R.SET_VRING_ADDR, payload=ring_address(0).pack()), Step(R.GET_STATUS),
               ring_file(R.SET_VRING_CALL, 0), ring_file(R.SET_VRING_ERR, 0),
               Step(R.SET_LOG_FD, files=EVENT), Step(R.GET_MAX_MEM_SLOTS)])
    assert talk.end is None, talk.reason
    assert (talk.target.detaches, talk.target.attached) == (before, True)


def test_the_table_says_what_stops_the_rings(new_talk: Callable[..., Dialogue]) -> None:
    """Every request, with a payload that changes something, stops the rings iff it says so."""
    changes = {
        R.SET_FEATURES: u64(R.SET_FEATURES, OFFERED), R.SET_PROTOCOL_FEATURES: TAKE_ALL,
        R.SET_MEM_TABLE: Step(R.SET_MEM_TABLE, payload=TABLE.payload,
                              files=(FileKind.OTHER_MEMORY,)),
        R.SET_VRING_NUM: state(R.SET_VRING_NUM, 0, 128),
        R.SET_VRING_BASE: state(R.SET_VRING_BASE, 0, 9),
        R.GET_VRING_BASE: state(R.GET_VRING_BASE, 0, 0),
        R.SET_VRING_ADDR: Step(R.SET_VRING_ADDR,
                               payload=VringAddress(0, 1, USER, USER + 0x3000, USER + 0x2000,
                                                    0).pack()),
        R.SET_VRING_ENABLE: state(R.SET_VRING_ENABLE, 0, 1),
        R.NET_SET_MTU: u64(R.NET_SET_MTU, 1400), R.SET_STATUS: u64(R.SET_STATUS, 1),
        R.SET_LOG_BASE: Step(R.SET_LOG_BASE, payload=Log(LOG_SIZE, 0).pack(),
                             files=(FileKind.LOG,)),
        R.GET_INFLIGHT_FD: Step(R.GET_INFLIGHT_FD, payload=Inflight(0, 0, 2, 256).pack()),
        R.SET_INFLIGHT_FD: Step(R.SET_INFLIGHT_FD, payload=Inflight(4096, 0, 1, 64).pack(),
                                files=(FileKind.SHORT_MEMORY,)),
        R.SET_BACKEND_REQ_FD: Step(R.SET_BACKEND_REQ_FD, files=(FileKind.CHANNEL,)),
        R.IOTLB_MSG: Step(R.IOTLB_MSG, payload=Iotlb(0, 4096, 0, 3, 3).pack()),
        R.SEND_RARP: Step(R.SEND_RARP, payload=MAC + bytes(2)),
        R.GET_CONFIG: Step(R.GET_CONFIG, payload=Config(0, 0, bytes(12)).pack()),
        R.SET_CONFIG: Step(R.SET_CONFIG, payload=Config(0, 1, CONFIG_SPACE).pack()),
        R.ADD_MEM_REG: Step(R.ADD_MEM_REG, files=(FileKind.MEMORY,), payload=(
            pack_u64(0) + pack_u64(1 << 40) + pack_u64(4096) + pack_u64(1 << 30) + pack_u64(0))),
        R.REM_MEM_REG: Step(R.REM_MEM_REG, payload=region().pack_single()),
        **{r: ring_file(r, 0) for r in (R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR)}}
    for spec in SPECS.values():
        if spec.served:
            talk = new_talk()
            start(talk, 0, 1)
            before = talk.target.detaches
            talk.say(changes.get(spec.number, Step(spec.number)))
            assert talk.end is None, talk.reason
            assert (talk.target.detaches > before, spec.name) == (spec.stops, spec.name)
            assert talk.target.attached


# ---------------------------------------------------------------- stop, continue, reset


def test_stop_and_start_again(talk: Dialogue) -> None:
    start(talk, 0, 1)
    kick = talk.back_end.rings[1].kick
    talk.target.positions[1] = 77
    assert VringState.unpack(talk.get(R.GET_VRING_BASE, VringState(1, 0).pack())).num == 77
    ring = talk.back_end.rings[1]
    assert (ring.ready, ring.kick, ring.call, ring.address) == (False, -1, -1, None)
    assert not os.path.exists(f"/proc/self/fd/{kick}")
    assert talk.target.served == [0]
    steps = ring_steps(1)
    del steps["base"]
    talk.play(list(steps.values()))
    assert talk.target.served == [0, 1]
    assert talk.target.positions[1] == 77, "continues where it stopped"


def test_a_change_elsewhere_keeps_the_position(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.target.positions[0] = 0xFFFF
    talk.say(state(R.SET_VRING_ENABLE, 1, 1))
    assert talk.back_end.rings[0].base == 0xFFFF
    assert talk.target.positions[0] == 0xFFFF


def test_base_of_a_ring_that_never_ran(talk: Dialogue) -> None:
    talk.say(state(R.SET_VRING_BASE, 0, 1234))
    assert talk.get(R.GET_VRING_BASE, VringState(0, 0).pack()) == VringState(0, 1234).pack()


def test_call_is_swapped_under_a_running_ring(talk: Dialogue) -> None:
    start(talk, 0)
    old = talk.back_end.rings[0].call
    talk.say(ring_file(R.SET_VRING_CALL, 0))
    assert talk.target.calls == [0]
    assert talk.back_end.rings[0].call not in (old, -1)
    talk.say(ring_file(R.SET_VRING_CALL, 0, given=False))
    assert talk.back_end.rings[0].call == -1
    assert talk.target.calls == [0, 0]


def test_event_fds_do_not_block(talk: Dialogue) -> None:
    start(talk, 0)
    ring = talk.back_end.rings[0]
    assert not os.get_blocking(ring.kick)
    assert not os.get_blocking(ring.call)


def test_reset_device(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.say(state(R.SET_VRING_ENABLE, 0, 1))
    talk.say(Step(R.RESET_DEVICE))
    back_end = talk.back_end
    assert talk.target.served == []
    assert (back_end.features, back_end.features_set, back_end.status) == (0, False, 0)
    assert not any(r.enabled or r.kick >= 0 or r.base for r in back_end.rings)
    assert back_end.memory.regions == [region()]
    start(talk, 0, 1)


def test_reset_owner_is_ignored(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.say(Step(R.RESET_OWNER))
    assert talk.target.served == [0, 1]


def test_memory_with_the_rings_removed_and_added(talk: Dialogue) -> None:
    start(talk, 0, 1)
    talk.target.positions[0] = 9
    talk.say(Step(R.REM_MEM_REG, payload=region().pack_single(), files=(FileKind.MEMORY,)))
    assert (talk.end, talk.target.served) == (None, [])
    assert talk.back_end.rings[0].desc == 0
    talk.say(Step(R.ADD_MEM_REG, payload=region().pack_single(), files=(FileKind.OTHER_MEMORY,)))
    assert talk.target.served == [0, 1]
    assert talk.target.positions[0] == 9


def test_memory_added_and_removed_for_each_queue_pair(talk: Dialogue) -> None:
    """As QEMU 7.2 does for a card with several: what has no effect disturbs nobody."""
    start(talk, 0, 1)
    again = Step(R.ADD_MEM_REG, payload=region().pack_single(), files=(FileKind.MEMORY,))
    attaches = talk.target.attaches
    talk.say(again)
    assert (talk.end, talk.target.attaches) == (None, attaches)
    gone = Step(R.REM_MEM_REG, payload=region().pack_single())
    for _ in range(3):
        talk.say(gone)
    assert (talk.end, talk.back_end.memory.regions) == (None, [])
    talk.say(again)
    assert talk.target.served == [0, 1]


def test_an_empty_table_stops_the_rings(talk: Dialogue) -> None:
    start(talk, 0)
    talk.say(Step(R.SET_MEM_TABLE, payload=pack_memory_table([])))
    assert (talk.end, talk.target.served) == (None, [])


def test_hang_up_releases_everything(new_talk: Callable[..., Dialogue]) -> None:
    talk = new_talk()
    start(talk, 0, 1)
    talk.hang_up()
    assert talk.end is End.CLOSED
    assert not talk.target.attached
    assert talk.back_end.memory.regions == []
    talk.back_end.close()


# ---------------------------------------------------------------- queues, features, answers


@pytest.mark.parametrize(("queue_pairs", "multiqueue", "says", "rings"),
                         [(1, False, 2, 4), (1, True, 2, 4), (2, True, 2, 4), (32, True, 32, 64),
                          (32, False, 64, 128)])
def test_queue_num(new_talk: Callable[..., Dialogue], queue_pairs: int, multiqueue: bool,
                   says: int, rings: int) -> None:
    offered = OFFERED if multiqueue else OFFERED & ~mask(Feature.MQ)
    talk = new_talk(features=offered, queue_pairs=queue_pairs)
    talk.say(TAKE_ALL)
    promised = unpack_u64(talk.get(R.GET_FEATURES)) >> Feature.MQ & 1
    assert promised == (multiqueue and queue_pairs > 1), "a guest uses what MQ promises"
    assert unpack_u64(talk.get(R.GET_QUEUE_NUM)) == says
    assert len(talk.back_end.rings) == rings


@pytest.mark.parametrize("queue_pairs", [0, 33])
def test_too_few_or_too_many_pairs(queue_pairs: int) -> None:
    with pytest.raises(ValueError, match=f"{queue_pairs} queue pairs; from 1 to 32"):
        BackEnd(IdleTarget(), features=OFFERED, protocol_features=0, queue_pairs=queue_pairs)


def test_rings_beyond_the_pairs_are_never_ready(new_talk: Callable[..., Dialogue]) -> None:
    talk = new_talk(queue_pairs=1)
    talk.play([SET_FEATURES, TABLE])
    for index in range(4):
        talk.play(list(ring_steps(index).values()))
    assert talk.end is None, talk.reason
    assert talk.target.served == [0, 1]


def test_getters(talk: Dialogue) -> None:
    assert unpack_u64(talk.get(R.GET_FEATURES)) == OFFERED
    assert unpack_u64(talk.get(R.GET_PROTOCOL_FEATURES)) == PROTOCOL_OFFERED
    talk.say(TAKE_ALL)
    assert unpack_u64(talk.get(R.GET_MAX_MEM_SLOTS)) == 32
    assert unpack_u64(talk.get(R.GET_STATUS)) == 0


def test_acknowledgements_only_when_negotiated(talk: Dialogue) -> None:
    owner = Step(R.SET_OWNER, VERSION | NEED_REPLY)
    assert talk.say(owner) == []
    (reply,) = talk.say(Step(R.SET_PROTOCOL_FEATURES, VERSION | NEED_REPLY,
                             pack_u64(PROTOCOL_OFFERED)))
    assert (reply.request, reply.flags, reply.payload) == (R.SET_PROTOCOL_FEATURES, 5, bytes(8))
    assert len(talk.say(owner)) == 1
    assert talk.say(Step(R.SET_OWNER)) == []
    # A request with a reply of its own gets no acknowledgement beside it.
    assert len(talk.say(Step(R.GET_FEATURES, VERSION | NEED_REPLY))) == 1


def test_a_front_end_that_never_reads(files: Files, new_talk: Callable[..., Dialogue]) -> None:
    talk = new_talk()
    for _ in range(2000):
        talk.write(Step(R.GET_FEATURES))
        talk.run()
    assert talk.end is End.ERROR
    assert "does not read" in talk.reason
