# SPDX-License-Identifier: Apache-2.0
"""The hostile guest: reproducible, and its checks would notice."""

import pytest

from byway.testing.hostile import HostileError, HostileRings


def test_cases_depend_on_seed_and_number_only() -> None:
    rings = HostileRings(3, digests=True)
    first = [rings.run(k) for k in range(30)]
    again = [rings.run(k) for k in reversed(range(30))][::-1]
    assert first == again
    assert len({outcome.digest for outcome in first}) > 25
    rings.close()
    other = HostileRings(4, digests=True)
    assert [other.run(k).digest for k in range(30)] != [o.digest for o in first]
    other.close()


@pytest.mark.parametrize(("field", "rule"), [
    ("used_idx", "as many buffers go back"), ("frames", "delivered frames are counted"),
    ("drops", "each frame is delivered or counted")])
def test_what_is_checked(field: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does one thing wrong is found out by the case that shows it."""
    rings = HostileRings(5)
    drive = rings._drive

    def wrong(*arguments: object) -> tuple[int, int]:
        done = drive(*arguments)
        if field == "used_idx":
            rings.tx.queue["used_idx"] += 1
        elif field == "frames":
            rings.tx.counters["frames"] += 1
        else:
            rings.tx.counters["drops"][0, 1] += 1
        return done

    monkeypatch.setattr(rings, "_drive", wrong)
    with pytest.raises(HostileError, match=rf"HostileRings\(5\).run\(\d+\): {rule}"):
        [rings.run(number) for number in range(20)]
    rings.close()
