# SPDX-License-Identifier: Apache-2.0
"""The stages of a port while control takes them away."""

import ctypes
from collections.abc import Callable

import pytest

from byway.machine.layout import CACHE_LINE, address_of, alloc
from byway.packet.batch import Batch
from byway.switch.stages import STAGES
from byway.worker import staging

Calls = list[tuple[str, int]]
RX = ("meter", "security", "responder", "groups", "services", "router")
TX = ("services", "groups", "meter", "trunk", "way")
KERNELS = {"way": "wrap_rows"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the stages are called with. Each field is 0 as soon as it has been read."""
    made: Calls = []

    def noting(name: str, answer: int) -> Callable[..., int]:
        def stage(record: int, *_: int) -> int:
            made.append((name, record))
            return answer
        return stage

    def once(address: int) -> int:
        word = ctypes.c_int64.from_address(address)
        found, word.value = word.value, 0
        return found

    for name in RX:
        monkeypatch.setattr(staging, f"{name}_rx", noting(name, 0))
    for name in TX:
        monkeypatch.setattr(staging, KERNELS.get(name, f"{name}_tx"), noting(name, 3))
    for name in ("learn_sources", "services_own"):
        monkeypatch.setattr(staging, name, lambda *_: None)
    monkeypatch.setattr(staging, "ld64_once", once)
    return made


@pytest.mark.interpreted_only
@pytest.mark.parametrize("names", [RX, TX])
def test_a_stage_that_goes_is_called_as_it_was_or_not_at_all(
        calls: Calls, names: tuple[str, ...]) -> None:
    batch, stages = Batch(), alloc(STAGES, 1, CACHE_LINE)
    for number, name in enumerate(names, 1):
        stages[name] = number
    for _ in range(2):
        if names == RX:
            staging.run_stages(address_of(stages), batch.address, 0, 0)
        else:
            assert staging.tx_stages(address_of(stages), batch.address, 0, 3, 0) == 3
        assert calls == [(name, number) for number, name in enumerate(names, 1)]
    assert not any(int(stages[name][0]) for name in names)
