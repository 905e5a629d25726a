# SPDX-License-Identifier: Apache-2.0
"""The source of a chain: what is in it, and what only then when somebody needs it."""

import pytest

from byway.functions.blueprint import Blueprint
from byway.functions.compose import compose
from byway.functions.harness import blueprint_of
from tests.unit.functions.samples import Counts, Divides, Older, Says


def test_a_function_that_is_there_twice_is_defined_once() -> None:
    once, twice = (compose([blueprint_of(Older)] * n, "rx").source for n in (1, 2))
    name = blueprint_of(Older).methods["process"].name
    assert once.count(f"def {name}(") == twice.count(f"def {name}(") == 1
    assert (once.count(f"= {name}("), twice.count(f"= {name}(")) == (1, 2)


def test_the_digest_is_of_the_functions_and_their_order() -> None:
    one, other = blueprint_of(Older), blueprint_of(Says)
    digests = {compose(functions, direction).digest for functions, direction in (
        ([one, other], "rx"), ([other, one], "rx"), ([one, other], "tx"), ([one], "rx"))}
    assert len(digests) == 4
    assert compose([one, other], "rx") == compose([one, other], "rx")
    assert compose([one], "rx", traced=True).digest != compose([one], "rx").digest


def test_what_nobody_needs_is_not_in_it() -> None:
    source = compose([blueprint_of(Says)], "rx").source
    assert "time_of(chain" not in source.split("def chain(")[1]
    assert "went_wrong(i0)" not in source
    assert "went_wrong(i0)" in compose([blueprint_of(Divides)], "rx").source
    reads, writes = (compose([blueprint_of(function)], "tx").source.split("def chain(")[1]
                     for function in (Counts, Older))
    assert "own_row(batch" not in reads
    assert "own_row(batch" in writes


def test_each_direction_has_its_method() -> None:
    blueprint = blueprint_of(Counts)
    for direction in ("rx", "tx"):
        method = blueprint.method(direction)
        assert method is not None
        assert method.name in compose([blueprint], direction).source
    one_way = Blueprint(**{**vars(blueprint), "methods": {"rx": blueprint.methods["rx"]}})
    with pytest.raises(ValueError, match="no method for tx"):
        compose([one_way], "tx")


def test_a_blueprint_is_the_same_after_its_journey() -> None:
    for function in (Counts, Says, Divides):
        blueprint = blueprint_of(function)
        again = Blueprint.from_json(blueprint.to_json())
        assert again.digest == blueprint.digest
        assert compose([again], "rx") == compose([blueprint], "rx")
        assert [again.place(name) for name in again.parameters] == [
            blueprint.place(name) for name in blueprint.parameters]
