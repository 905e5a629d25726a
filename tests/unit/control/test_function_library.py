# SPDX-License-Identifier: Apache-2.0
"""The code that a switch has of its network functions: what it may not wait for, nor compile."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from byway.control.function_library import Library
from byway.control.function_steps import Order
from byway.control.problem import EngineError
from byway.functions.code import native
from byway.functions.compose import compose

GUARD = """
from byway import nf


@nf.function
class Guard:
    def process(self, frame):
        return nf.DROP("{}") if frame.ip_ttl == 3 else nf.PASS
"""
# Answers what is asked for, but compiles nothing.
LAZY = (sys.executable, "-c", """
from byway.functions.confined import answer
from byway.functions.build import build
answer(lambda order: build({**order, "chains": []}))
""")


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """A chain that nobody has made before."""
    (tmp_path / "guard.py").write_text(GUARD.format(f"{tmp_path} {time.time_ns()}"))
    return Order("rx", ((f"{tmp_path}/guard.py:Guard", False),))


@pytest.mark.timeout(400)  # the first one to need stages and tables may have them compiled
@pytest.mark.compiled_only
def test_code_that_is_not_in_the_cache_is_not_compiled_in_the_switch(order: Order) -> None:
    library = Library(LAZY)
    built = asyncio.run(library.build([order], []))
    (problem,) = built.every_problem()
    assert "is not to be had from" in str(problem)
    (blueprint,) = built.blueprints.values()
    assert not native(compose([blueprint], "rx")).cached
    library.install(built)
    assert library.failed(order) == [problem]
    assert library.lacks(order)


@pytest.mark.compiled_only
def test_code_is_there_when_it_was_built(order: Order) -> None:
    library = Library()
    built = asyncio.run(library.build([order], []))
    assert built.every_problem() == []
    library.install(built)
    assert not library.lacks(order)
    loaded = library.code(order).native
    assert loaded._address is not None, "it is loaded already"
    library.forget([])
    assert not library.lacks(order), "it is in the cache"
    library.forget([order])
    assert library.code(order).native is loaded, "it was asked for lately"


@pytest.mark.parametrize("text", [
    "import os; os._exit(0)", "import os; os._exit(3)",
    "import os; os.write(3, b'{}')\nos._exit(0)",
    "import os; os.kill(os.getpid(), 9)",
])
def test_a_file_that_ends_the_process(order: Order, tmp_path: Path, text: str) -> None:
    (tmp_path / "guard.py").write_text(text)
    with pytest.raises(EngineError, match=r"building .*guard\.py:Guard") as error:
        asyncio.run(Library().build([order], []))
    assert error.value.fix


@pytest.mark.parametrize("answer", ["{}", '{"blueprints": []}', '{"blueprints": {"a": {}}}'])
def test_an_answer_that_is_none(order: Order, answer: str) -> None:
    with pytest.raises(EngineError, match="an answer that is none"):
        asyncio.run(Library((sys.executable, "-c", f"print({answer!r})")).build([order], []))


def test_a_file_that_nothing_comes_from_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "guard.py")
    use = f"{tmp_path}/guard.py"
    (problem,) = asyncio.run(Library().build([], [use])).every_problem()
    assert "there is no such file" in str(problem)
