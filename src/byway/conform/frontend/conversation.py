# SPDX-License-Identifier: Apache-2.0
"""Checks of what a front end says: order of messages, features, memory, rings.

Used by frontend.catalogue. Most judge what was noted on the first visit; sources are the
vhost-user specification's headings, and VIRTIO 1.2.
"""

import itertools
from collections.abc import Callable, Sequence

from byway.conform.backend.bench import expect
from byway.conform.backend.features import NEEDS
from byway.conform.frontend.bench import FrontBench
from byway.conform.outcome import Check, Failed, NotApplicable, must, should
from byway.vhost.payloads import MemoryRegion, VringState, unpack_memory_table, unpack_u64
from byway.virtio.features import Feature, has, names

F = Feature
PAGE = 4096


def comes(bench: FrontBench) -> str:
    meeting = bench.first
    expect(bool(meeting.said), "it connected and said nothing")
    return f"it came and sent {len(meeting.said)} messages"


def starts(bench: FrontBench) -> str:
    meeting = bench.first
    if not bench.facts.get("started"):
        last = ", ".join(meeting.names()[-5:]) or "nothing"
        raise Failed(f"within {bench.timeout:g} s its rings were not started and enabled; it said "
                     f"{last} at last; {meeting.ended or 'the connection stays'}")
    return f"rings {sorted(meeting.back_end.devices)} are served"


def rule(bench: FrontBench, rules: Sequence[str], visit: str = "first", start: bool = False) -> str:
    """Nothing was noted under these rules."""
    meeting = bench.visit(visit)
    if start:
        bench.need_start(meeting)
    found = [text for name in rules for text in meeting.notes.get(name, ())]
    expect(not found, "; ".join(found[:3]))
    return f"nothing in {len(meeting.said)} messages" if not start else "nothing"


def _index(bench: FrontBench, *wanted: str) -> int:
    """Where the first of these requests is; -1 where none is."""
    return next((k for k, n in enumerate(bench.first.names()) if n in wanted), -1)


def before(bench: FrontBench, one: str, other: tuple[str, ...]) -> str:
    first, later = _index(bench, one), _index(bench, *other)
    if later < 0:
        raise NotApplicable(f"did not send {' or '.join(other)}")
    expect(0 <= first < later, f"{bench.first.names()[later]} came before {one}"
           if first >= 0 else f"{one} was not sent")
    return f"message {first + 1}, before message {later + 1}"


def taken(bench: FrontBench) -> int:
    """The features it took."""
    said = [s for s in bench.first.said if s.name == "SET_FEATURES"]
    if not said:
        raise NotApplicable("did not send SET_FEATURES")
    return unpack_u64(said[-1].payload)


def takes(bench: FrontBench, feature: Feature) -> str:
    features = taken(bench)
    expect(has(features, feature), f"it took {' '.join(names(features))}")
    return "taken"


def closure(bench: FrontBench) -> str:
    features = taken(bench)
    for feature, needed in NEEDS:
        if has(features, feature):
            expect(any(has(features, n) for n in needed),
                   f"{feature.name} was taken without {' or '.join(n.name for n in needed)}")
    return f"took {' '.join(names(features))}"


def bit_thirty(bench: FrontBench) -> str:
    if _index(bench, "SET_PROTOCOL_FEATURES") < 0:
        raise NotApplicable("took no protocol features")
    return takes(bench, F.PROTOCOL_FEATURES)


def constant(bench: FrontBench) -> str:
    """While rings run only LOG_ALL may change; between runs a driver may take others."""
    every = [s for s in bench.first.said if s.name == "SET_FEATURES"]
    earlier = [s for s in every if s.when <= _first_kick(bench)]
    said = {unpack_u64(s.payload) & ~(1 << F.LOG_ALL)
            for s in every if s not in earlier[:-1]}
    expect(len(said) <= 1, f"SET_FEATURES with {' then '.join(map(hex, sorted(said)))} after the "
           "rings were started")
    return "no change after the start"


def _first_kick(bench: FrontBench) -> float:
    return next((s.when for s in bench.first.said if s.name == "SET_VRING_KICK"), 1e18)


# ---------------------------------------------------------------- memory and rings


def _regions(bench: FrontBench) -> list[MemoryRegion]:
    found: list[MemoryRegion] = []
    for said in bench.first.said:
        if said.name == "SET_MEM_TABLE":
            found += unpack_memory_table(said.payload)
        elif said.name == "ADD_MEM_REG":
            found.append(MemoryRegion.unpack_single(said.payload))
    if not found:
        raise NotApplicable("shared no memory")
    return found


def memory_sane(bench: FrontBench) -> str:
    regions = _regions(bench)
    for r in regions:
        expect(r.size > 0, "a region of no bytes")
        for start in (r.gpa, r.user, r.offset):
            expect(start + r.size <= 1 << 64, f"a region that runs over the end: {r}")
    return f"{len(regions)} regions were described"


def memory_aligned(bench: FrontBench) -> str:
    for r in _regions(bench):
        expect(not (r.gpa | r.user | r.size | r.offset) % PAGE, f"not in whole pages: {r}")
    return "all in whole pages"


def memory_fds(bench: FrontBench) -> str:
    tables = [s for s in bench.first.said if s.name == "SET_MEM_TABLE"]
    if not tables:
        raise NotApplicable("sent no SET_MEM_TABLE")
    for said in tables:
        regions = len(unpack_memory_table(said.payload))
        expect(regions == said.fds, f"{regions} regions with {said.fds} fds")
    return f"{len(tables)} tables, an fd for each region"


def _states(bench: FrontBench, name: str) -> list[VringState]:
    found = [VringState.unpack(s.payload) for s in bench.first.said if s.name == name]
    if not found:
        raise NotApplicable(f"sent no {name}")
    return found


def ring_sizes(bench: FrontBench) -> str:
    packed = has(taken(bench), F.RING_PACKED)
    seen = set()
    for state in _states(bench, "SET_VRING_NUM"):
        size = state.num
        expect(1 <= size <= 32768, f"ring {state.index} of {size} entries")
        expect(packed or not size & (size - 1), f"split ring {state.index} of {size} entries")
        seen.add(size)
    return f"sizes {sorted(seen)}"


def bases(bench: FrontBench) -> str:
    packed = has(taken(bench), F.RING_PACKED)
    sizes = {s.index: s.num for s in _states(bench, "SET_VRING_NUM")}
    for state in _states(bench, "SET_VRING_BASE"):
        expect(packed or state.num <= 0xFFFF, f"ring {state.index} begins at {state.num:#x}")
        if packed and state.index in sizes:
            expect(state.num & 0x7FFF < sizes[state.index], f"ring {state.index} of "
                   f"{sizes[state.index]} begins at {state.num:#x}")
    return "in range"


def enables(bench: FrontBench) -> str:
    if not has(taken(bench), F.PROTOCOL_FEATURES):
        raise NotApplicable("did not take PROTOCOL_FEATURES")
    on = {s.index for s in _states(bench, "SET_VRING_ENABLE") if s.num == 1}
    expect({0, 1} <= on, f"only rings {sorted(on)} were enabled")
    return f"rings {sorted(on)} were enabled"


def event_fds(bench: FrontBench) -> str:
    for name in ("SET_VRING_KICK", "SET_VRING_CALL"):
        said = [s for s in bench.first.said if s.name == name]
        expect(bool(said), f"no {name}")
        for one in said:
            value = unpack_u64(one.payload)
            expect(bool(one.fds) != bool(value & 0x100), f"{name} {value:#x} with {one.fds} fds")
            expect(not value & ~0x1FF, f"{name} {value:#x}")
    return "an fd, or the bit that says none"


def complete(bench: FrontBench) -> str:
    """Number and addresses before the kick, which starts a ring."""
    seen: set[tuple[str, int]] = set()
    bench.need_start(bench.first)
    for one in bench.first.said:
        if one.name in ("SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_BASE"):
            seen.add((one.name, int.from_bytes(one.payload[:4], "little")))
        elif one.name == "SET_VRING_KICK":
            ring = one.payload[0]
            missing = [n for n in ("SET_VRING_NUM", "SET_VRING_ADDR") if (n, ring) not in seen]
            expect(not missing, f"ring {ring} was kicked off without {', '.join(missing)}")
    return "size and addresses first"


def ring_parts_inside(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    return rule(bench, ("rings.inside",), start=True)


# ---------------------------------------------------------------- status, queues


def status_order(bench: FrontBench) -> str:
    said = [unpack_u64(s.payload) for s in bench.first.said if s.name == "SET_STATUS"]
    if not said:
        raise NotApplicable("did not take STATUS")
    last = said[-1]
    for bit, earlier in ((2, 1), (8, 2), (4, 8)):
        expect(not last & bit or bool(last & earlier), f"status {last:#x}: bit {bit} without bit "
               f"{earlier}")
    for one, other in itertools.pairwise(said):
        lost = one & ~other & 0x0F
        expect(other == 0 or not lost or bool(other & 0x80), f"status {one:#x}, then {other:#x}: "
               "bits were cleared without a reset")
    return " ".join(f"{s:#x}" for s in said[-6:])


def queue_indices(bench: FrontBench) -> str:
    most = 2 * bench.first.back_end.pairs
    for one in bench.first.said:
        if one.name in ("SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_ENABLE"):
            index = int.from_bytes(one.payload[:4], "little")
            expect(index < most, f"{one.name} of ring {index} where there are {most}")
    return f"all below {most}"


def noted(make: Callable[..., Check[FrontBench]], name: str, section: str, done: str,
          *rules: str, start: bool = False) -> Check[FrontBench]:
    return make(name, section, done, rule, rules=rules or (name,), start=start)


TALK, STATES, TYPES = "Communication", "Ring states", "Front-end message types"
REGIONS, FIRST = "Memory region description", "look at its messages"
CHECKS: tuple[Check[FrontBench], ...] = (
    must("conversation.comes", TALK, "wait for it", comes),
    must("conversation.starts", "Starting and stopping rings", "serve it until its rings run",
         starts),
    noted(must, "conversation.known", TYPES, FIRST),
    noted(must, "conversation.payload-size", "Message Specification", FIRST),
    noted(must, "conversation.fds", TALK, "count the fds of its messages"),
    noted(must, "conversation.gated", "Protocol features", "look for messages whose protocol "
          "feature it did not take"),
    noted(must, "conversation.need-reply", "REPLY_ACK", "look for NEED_REPLY without REPLY_ACK"),
    noted(must, "conversation.refused", TYPES, "look for messages that cannot be done",
          "conversation.refused", "conversation.broken"),
    must("conversation.features-first", TYPES, FIRST, before, one="GET_FEATURES",
         other=("SET_FEATURES",)),
    must("conversation.protocol-features-first", TYPES, FIRST, before,
         one="GET_PROTOCOL_FEATURES", other=("SET_PROTOCOL_FEATURES",)),
    should("conversation.owner-first", "SET_OWNER", FIRST, before, one="SET_OWNER",
           other=("SET_MEM_TABLE", "ADD_MEM_REG")),
    must("conversation.features-before-rings", TYPES, FIRST, before, one="SET_FEATURES",
         other=("SET_VRING_KICK",)),
    must("features.offered-only", "VIRTIO 1.2, 2.2", "look for features that were not offered",
         rule, rules=("features.offered-only",)),
    must("features.protocol-offered-only", "Protocol features", "look for protocol features that "
         "were not offered", rule, rules=("features.protocol-offered-only",)),
    must("features.closure", "VIRTIO 1.2, 5.1.3.1", "look for features taken without those they "
         "need", closure),
    should("features.version-1", "VIRTIO 1.2, 6.1", "look for VERSION_1", takes,
           feature=F.VERSION_1),
    must("features.protocol-bit", TYPES, "look for PROTOCOL_FEATURES in SET_FEATURES",
         bit_thirty),
    must("features.constant", TYPES, "look for features changed while the rings run", constant),
    must("memory.described", REGIONS, "look at sizes and addresses", memory_sane),
    should("memory.whole-pages", REGIONS, "look at the alignment of regions", memory_aligned),
    must("memory.fds", "SET_MEM_TABLE", "count regions and fds", memory_fds),
    noted(must, "memory.overlap", REGIONS, "look for overlapping regions"),
    must("rings.size", "VIRTIO 1.2, 2.7", "look at SET_VRING_NUM", ring_sizes),
    noted(must, "rings.aligned", "VIRTIO 1.2, 2.7", "look at SET_VRING_ADDR"),
    must("rings.inside", "SET_VRING_ADDR", "look for rings in no region", ring_parts_inside),
    must("rings.base", "SET_VRING_BASE", "look at the bases", bases),
    must("rings.enabled", STATES, "look for SET_VRING_ENABLE", enables),
    must("rings.event-fds", "SET_VRING_KICK", "look at kick and call fds", event_fds),
    must("rings.complete", STATES, "look for rings started without size or address", complete),
    must("rings.index", "Multiple queue support", "look at the ring indices", queue_indices),
    must("status.order", "VIRTIO 1.2, 3.1.1", "look at SET_STATUS", status_order),
)
