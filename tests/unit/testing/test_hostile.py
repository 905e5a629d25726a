# SPDX-License-Identifier: Apache-2.0
"""The hostile guest: reproducible, and its checks would notice."""

import pytest

from byway.testing import hostile
from byway.testing.hostile import HostileError, HostileRings


@pytest.mark.parametrize("packed", [False, True])
def test_cases_depend_on_seed_and_number_only(packed: bool) -> None:
    rings = HostileRings(3, packed=packed, digests=True)
    first = [rings.run(k) for k in range(30)]
    again = [rings.run(k) for k in reversed(range(30))][::-1]
    assert first == again
    assert len({outcome.digest for outcome in first}) > 25
    rings.close()
    other = HostileRings(4, packed=packed, digests=True)
    assert [other.run(k).digest for k in range(30)] != [o.digest for o in first]
    other.close()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("field", "rule"), [
    ("used_idx", "as many buffers go back"), ("frames", "delivered frames are counted"),
    ("drops", "each frame is delivered or counted"), ("log", "the dirty log names"),
    ("sent", "what a guest sends is not written to")])
def test_what_is_checked(packed: bool, field: str, rule: str,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does one thing wrong is found out by the case that shows it."""
    rings = HostileRings(5, packed=packed)
    deliver, take = hostile.device_deliver, hostile.consume

    def wrong(*arguments: int) -> int:
        sent = deliver(*arguments)
        if field == "used_idx":
            rings.tx.queue["used_idx"] += 1
        elif field == "frames":
            rings.tx.counters["frames"] += 1
        elif field == "drops":
            rings.tx.counters["drops"][0, 1] += 1
        elif field == "log":
            rings.main[-1] += 1
        return sent

    def wrong_too(*arguments: int) -> int:
        taken = take(*arguments)
        if field == "sent":
            rings.main[-1] += 1
        return taken

    monkeypatch.setattr(hostile, "device_deliver", wrong)
    monkeypatch.setattr(hostile, "consume", wrong_too)
    how = ", packed=True" if packed else ""
    with pytest.raises(HostileError, match=rf"HostileRings\(5{how}\).run\(\d+\): {rule}"):
        [rings.run(number) for number in range(200)]
    rings.close()
