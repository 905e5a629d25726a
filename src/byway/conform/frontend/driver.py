# SPDX-License-Identifier: Apache-2.0
"""Checks of the driver behind a front end, and of what both do after the connection ended.

Used by frontend.catalogue. Sources: VIRTIO 1.2; the vhost-user specification's headings.
"""

from byway.conform.backend.bench import expect
from byway.conform.frontend.bench import FRAMES, FrontBench
from byway.conform.frontend.conversation import noted, taken
from byway.conform.frontend.meeting import Meeting
from byway.conform.outcome import Check, Gone, NotApplicable, must, should
from byway.virtio.features import Feature, has, header_length

F = Feature
FEW = 2  # kicks that were under way when they were no longer wanted


def posts(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    expect(bench.facts["buffers"] > 0, "its receive ring is empty")
    return f"{bench.facts['buffers']} chains were posted"


def buffer_size(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    features, sizes = taken(bench), bench.first.back_end.buffer_sizes
    if not sizes:
        raise NotApplicable("no buffer was used")
    least = header_length(features) if has(features, F.MRG_RXBUF) else 1526
    expect(min(sizes) >= least, f"a receive buffer of {min(sizes)} bytes; {least} are needed")
    return f"buffers of {min(sizes)} to {max(sizes)} bytes"


def accepts(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    got = bench.facts["delivered"]
    expect(got >= 2 * FRAMES, f"buffers for {got} of {2 * FRAMES} frames only: it does not post "
           "them again")
    return f"{got} frames delivered"


def reposts(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    had, have = bench.facts["buffers"], bench.facts["buffers after"]
    expect(2 * have >= had, f"{had} chains at first, {have} after {2 * FRAMES} frames")
    return f"{have} chains are posted after {2 * FRAMES} frames"


def quiet(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    kicks = bench.facts["quiet kicks"]
    expect(kicks <= FEW, f"{kicks} kicks while none were wanted")
    return f"{kicks} kicks while none were wanted"


def first_kick(bench: FrontBench) -> str:
    """A device that sleeps is woken for what is posted or sent."""
    bench.need_start(bench.first)
    if not bench.first.back_end.frames_in:
        raise NotApplicable("sent no frame")
    return f"{bench.first.back_end.frames_in} frames arrived"


def frames_sane(bench: FrontBench) -> str:
    frames = bench.first.sent_by_driver
    if not frames:
        raise NotApplicable("sent no frame")
    short = [len(f) for f in frames if len(f) < 14]
    expect(not short, f"a frame of {short[:1]} bytes")
    return f"{len(frames)} frames of {min(map(len, frames))} to {max(map(len, frames))} bytes"


# ---------------------------------------------------------------- again


def came_again(bench: FrontBench) -> Meeting:
    """The visit after the hang-up; NotApplicable where there was none."""
    bench.need_start(bench.first)
    try:
        again = bench.visit("again")
    except Gone as gone:
        raise NotApplicable("did not come again") from gone
    if not again.running:
        raise NotApplicable("did not start its rings again")
    return again


def returns(bench: FrontBench) -> str:
    bench.need_start(bench.first)
    meeting = bench.visit("again")
    expect(meeting.running, f"it came, but its rings were not started within {bench.timeout:g} s")
    return f"it came again and started its rings with {len(meeting.said)} messages"


def same_features(bench: FrontBench) -> str:
    again = came_again(bench)
    old, new = bench.first.back_end.features, again.back_end.features
    expect(old == new, f"it took {new:#x}, {old:#x} before: the driver behind it was not asked")
    return f"{new:#x} again"


def same_position(bench: FrontBench) -> str:
    """A ring whose driver knows of no break goes on where the device stopped."""
    again = came_again(bench)
    found = again.notes.get("rings.base-and-used")
    expect(not found, "; ".join(found or ()))
    packed = has(again.back_end.features, F.RING_PACKED)
    start = 1 << 15 if packed else 0
    for k in (0, 1):
        base = again.back_end.bases.get(k, 0) & 0xFFFF
        expect(base in (bench.left_at.get(k), start), f"ring {k} was left at "
               f"{bench.left_at.get(k, 0):#x} and begins at {base:#x}")
    return "where they were, or from the beginning"


def serves_again(bench: FrontBench) -> str:
    came_again(bench)
    got = bench.facts.get("delivered again", 0)
    expect(got >= FRAMES // 2, f"{got} of {FRAMES} frames were delivered after the reconnect")
    return f"{got} frames delivered after the reconnect"


def rules_again(bench: FrontBench) -> str:
    again = came_again(bench)
    known = {"rings.base-and-used", *bench.first.notes}
    found = [t for name, texts in again.notes.items() if name not in known for t in texts]
    expect(not found, "; ".join(found[:3]))
    return f"nothing in {len(again.said)} messages"




def survives(bench: FrontBench) -> str:
    """After a reply that nobody asked for: it comes back."""
    came_again(bench)
    meeting = bench.visit("nonsense")
    expect(bool(meeting.said), "it did not speak again")
    return "it came again" + (" and started its rings" if meeting.running else "")


TALK, DRIVER = "Communication", "VIRTIO 1.2, 2.7.5"
AGAIN = "hang up, wait for it to come again"
CHECKS: tuple[Check[FrontBench], ...] = (
    must("driver.posts", "VIRTIO 1.2, 5.1.6.3", "count its receive buffers", posts),
    must("driver.buffer-size", "VIRTIO 1.2, 5.1.6.3.1", "look at its receive buffers",
         buffer_size),
    must("driver.accepts", "VIRTIO 1.2, 5.1.6.4", "give it 400 frames", accepts),
    should("driver.reposts", "VIRTIO 1.2, 5.1.6.3", "count its buffers after 400 frames",
           reposts),
    noted(must, "driver.available-index", "VIRTIO 1.2, 2.7.13", "look at the available index",
          start=True),
    noted(must, "driver.addresses", DRIVER, "look for descriptors that point to no memory",
          start=True),
    noted(must, "driver.chain", DRIVER, "look for chains that lead nowhere", start=True),
    noted(must, "driver.chain-order", "VIRTIO 1.2, 2.7.4.2", "look for readable descriptors after "
          "writable ones", start=True),
    noted(must, "driver.direction", "VIRTIO 1.2, 5.1.6", "look for descriptors of the wrong "
          "direction", start=True),
    noted(must, "driver.indirect", "VIRTIO 1.2, 2.7.5.3.1", "look at indirect tables", start=True),
    noted(should, "driver.empty-descriptor", DRIVER, "look for descriptors of no bytes",
          start=True),
    noted(must, "driver.unnegotiated", "VIRTIO 1.2, 2.2.1", "look for the use of features that "
          "were not taken", start=True),
    noted(must, "driver.header", "VIRTIO 1.2, 5.1.6.2.1", "look at the headers of its frames",
          start=True),
    must("driver.frames", "VIRTIO 1.2, 5.1.6.2", "look at the frames it sends", frames_sane),
    must("driver.kicks", "VIRTIO 1.2, 2.7.10", "sleep until it kicks", first_kick),
    should("driver.kicks-wanted-only", "VIRTIO 1.2, 2.7.10.1", "ask for no kicks, count them",
           quiet),
    should("session.returns", TALK, AGAIN, returns),
    must("session.same-features", TALK, AGAIN, same_features),
    must("session.positions", "SET_VRING_BASE", AGAIN, same_position),
    must("session.serves", TALK, AGAIN + ", give it frames", serves_again),
    must("session.rules", TALK, AGAIN + ", look for whatever is wrong", rules_again),
    should("session.nonsense", "Header", "send it a reply that it did not ask for", survives),
)
