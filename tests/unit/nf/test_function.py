# SPDX-License-Identifier: Apache-2.0
"""What an author's class declares, and what of it is refused."""

import inspect
from typing import Annotated, Any, ClassVar, Literal

import pytest

from byway import nf
from byway.nf.function import BUDGET, definition, is_function


@nf.function
class Whole:
    """All that a class can declare.

    More is said here.
    """

    limit: Annotated[int, nf.Range(1, 5)] = 3
    pause: nf.Seconds = nf.Seconds(2.5)
    mode: Literal["fast", "slow"] = "fast"
    mine: nf.Prefix4 = nf.Prefix4("10.0.0.0/8")
    needed: nf.IPv4
    note: ClassVar[int] = 1
    seen = nf.Map(key="ipv4", value="u32", capacity=10)
    hits = nf.Counter()
    PORTS = (80, 443)
    budget = 50

    def process(self, frame: nf.Frame) -> nf.Verdict:
        return nf.PASS

    @staticmethod
    async def listen(session: Any) -> None:
        """Beside the switch."""


def test_what_a_class_declares() -> None:
    found = definition(Whole)
    assert found.name == "Whole"
    assert found.summary == "All that a class can declare."
    assert found.file == __file__
    assert inspect.getsourcelines(Whole)[1] == found.line - 1  # the decorator's line is before
    assert [each.name for each in found.parameters] == ["limit", "pause", "mode", "mine", "needed"]
    assert list(found.states) == ["seen", "hits"]
    assert found.constants == {"note": 1, "PORTS": (80, 443)}
    assert found.entries == ("process",)
    assert found.budget == 50
    assert found.listener
    assert is_function(Whole)
    assert found.parameter("mode").choices == ("fast", "slow")


def test_each_instance_has_its_own_state_and_parameters() -> None:
    first, second = Whole(needed=nf.IPv4("10.0.0.1")), Whole(needed=nf.IPv4("10.0.0.2"), limit=5)
    first.seen.set(1, 2)
    assert (first.limit, second.limit) == (3, 5)
    assert first.seen.get(1) == 2
    assert second.seen.get(1) == 0
    assert Whole.seen.get(1) == 0
    assert first.needed == 0x0A000001


@pytest.mark.parametrize(("given", "message"), [
    ({"needed": "10.0.0.1", "limit": 6}, "parameter limit: 6 cannot be; give a number from 1 to 5"),
    ({"needed": "::1"},
     "parameter needed: '::1' cannot be; give an IPv4 address like \"10.0.0.1\""),
    ({"needed": "10.0.0.1", "nix": 1},
     "there is no parameter 'nix'; there are limit, pause, mode, mine, needed"),
    ({"needed": 1, "limt": 1}, "there is no parameter 'limt'; did you mean \"limit\"?"),
    ({}, "parameter needed has no default; give it a value"),
])
def test_values_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(nf.ParameterError) as raised:
        Whole(**given)
    assert str(raised.value) == message


def test_what_a_class_cannot_declare() -> None:
    """All that is wrong is told at once, each with its line."""
    with pytest.raises(nf.FunctionError) as raised:

        @nf.function
        class Wrong(dict):  # type: ignore[type-arg]
            things: list[int] = []  # noqa: RUF012
            rate = 1.5
            budget = 0
            table: int = nf.Counter()  # type: ignore[assignment]
            most: int = "many"  # type: ignore[assignment]
            rx: int = 3

            def process(self, frame: Any, more: int) -> Any:
                return nf.PASS

            def tx(self, frame: Any) -> Any:
                return nf.PASS

    first = inspect.getsourcelines(test_what_a_class_cannot_declare)[1]
    told = [(each.line - first, each.message) for each in raised.value.problems]
    assert told == [
        (5, "Wrong is derived from another class"),
        (6, "parameter things cannot be of type list[int]"),
        (7, "rate is of type float, which a function cannot have"),
        (8, "budget is 0, which is no number of loop rounds"),
        (9, "table is a state, with the type of a parameter"),
        (10, "parameter most: 'many' cannot be"),
        (11, "a parameter cannot be called rx"),
        (13, "process must take the frame and nothing else"),
        (16, "Wrong has process and tx"),
    ]
    assert all(each.file == __file__ and each.fix for each in raised.value.problems)
    assert f"{__file__}:{first + 8}: budget is 0" in str(raised.value)


def test_a_class_without_a_method_for_frames() -> None:
    with pytest.raises(nf.FunctionError, match="Silent has no method for frames; write def proc"):

        @nf.function
        class Silent:
            """Nothing."""


def test_what_is_no_function() -> None:
    assert not is_function(nf.Counter)
    with pytest.raises(nf.FunctionError, match="Counter is no network function; write @nf"):
        definition(nf.Counter)


def test_both_directions_with_one_state() -> None:
    @nf.function
    class Both:
        """Two."""

        def rx(self, frame: nf.Frame) -> nf.Verdict:
            return nf.PASS

        def tx(self, frame: nf.Frame) -> nf.Verdict:
            return nf.PASS

    assert definition(Both).entries == ("rx", "tx")
    assert definition(Both).budget == BUDGET
