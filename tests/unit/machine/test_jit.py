# SPDX-License-Identifier: Apache-2.0
"""The one decorator and the cache of machine code."""

import os
import pickle
import random
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from byway.machine import cachedir, jit
from byway.machine.cachedir import keep
from byway.machine.clock import measure_hz, tsc
from byway.machine.layout import address_of
from byway.machine.mem import ld64, st64
from byway.testing.kernels import every_atomic


def plus_one(address):
    """A function that C calls."""
    value = ld64(address) + 1
    st64(address, value)
    return value


@pytest.mark.compiled_only
def test_entries_are_loaded_where_they_are_kept(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    assert jit.prepare([every_atomic]) >= 0
    assert jit.is_cached(every_atomic)
    told: list[str] = []
    jit.prepare([every_atomic], told.append)
    assert told == [], "nothing to compile"
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path))
    assert not jit.is_cached(every_atomic)


@pytest.mark.compiled_only
def test_the_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write there runs code in the switch."""
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path))
    locator = every_atomic._cache._impl.locator
    locator.ensure_cache_path()
    path = Path(locator.get_cache_path())
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    path.chmod(0o777)
    with pytest.raises(PermissionError, match="others may write here"):
        locator.ensure_cache_path()


_LOAD = """
from byway.machine.jit import Native
from tests.unit.machine.test_jit import plus_one
import sys

native = Native(plus_one, 1)
print(native.load(), native.cached)
if "compile" in sys.argv:
    print(native.address != 0, native.load())
"""


def _loaded(cache: Path, *words: str) -> tuple[str, str]:
    """What a process says of the code of ``plus_one``, and what it complains of."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *words], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3], timeout=100,
        env={**os.environ, "BYWAY_CACHE": str(cache)})
    return " ".join(done.stdout.split()), done.stderr


@pytest.mark.compiled_only
def test_code_is_loaded_where_it_was_kept_and_never_compiled_for_that(tmp_path: Path) -> None:
    assert _loaded(tmp_path) == ("False False", "")
    assert _loaded(tmp_path, "compile") == ("False False True True", "")
    assert _loaded(tmp_path) == ("True True", "")
    (code,) = tmp_path.rglob("*plus_one*.nbc")
    whole = code.read_bytes()
    code.write_bytes(whole[:-1])
    assert _loaded(tmp_path) == ("False True", "")
    assert _loaded(tmp_path, "compile") == ("False True True True", "")
    keep(code, pickle.dumps(("not", "what", "the", "linker", "takes")))
    answer, said = _loaded(tmp_path)
    assert answer == "False True"
    assert "cannot be loaded" in said
    assert _loaded(tmp_path, "compile")[0] == "False True True True"
    assert _loaded(tmp_path) == ("True True", "")


@pytest.mark.compiled_only
def test_code_that_others_may_have_written_is_not_loaded(tmp_path: Path) -> None:
    _loaded(tmp_path, "compile")
    (code,) = tmp_path.rglob("*plus_one*.nbc")
    code.parent.chmod(0o777)
    assert _loaded(tmp_path)[0].startswith("False")
    answer, said = _loaded(tmp_path, "compile")
    assert answer.endswith("True True")
    assert "others may write here" in said


@pytest.mark.interpreted_only
def test_interpreted_kernels_are_plain_functions() -> None:
    assert jit.kernel(plus_one) is plus_one
    assert jit.kernel(entry=True)(plus_one) is plus_one
    assert jit.prepare([plus_one]) < 1


def test_a_native_function_is_called_by_address() -> None:
    import ctypes

    native = jit.Native(plus_one, 1)
    cell = np.array([41], np.int64)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(native.address)
    assert function(address_of(cell)) == 42
    assert cell[0] == 42


def test_one_thread_may_load_while_another_asks_for_an_address(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them comes first, of whichever functions."""
    asking = threading.Event()

    class Lock:
        """As the compiler's; tells when the thread that asks comes to it."""

        def __init__(self) -> None:
            self._lock = threading.RLock()

        def __enter__(self) -> None:
            if threading.current_thread() is asks:
                asking.set()
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    natives = [jit.Native(plus_one, 1) for _ in range(2)]
    for native in natives:
        native._code = SimpleNamespace(compile=lambda: None, address=4096)
    monkeypatch.setattr(jit, "INTERPRETED", False)
    monkeypatch.setattr(jit, "global_compiler_lock", lock := Lock())
    found: list[int] = []

    def load() -> None:
        with lock:
            asks.start()
            asking.wait()
            found.append(natives[1].load())

    asks = threading.Thread(target=lambda: found.append(natives[0].address), daemon=True)
    loads = threading.Thread(target=load, daemon=True)
    loads.start()
    for thread in (loads, asks):
        thread.join(30)
        assert not thread.is_alive(), "they wait for each other"
    assert found == [True, 4096]


def test_the_digest_names_sources_and_versions() -> None:
    assert cachedir.sources_digest() == cachedir.sources_digest()
    assert cachedir.sources_digest() != cachedir.sources_digest(("machine",))


@pytest.mark.parametrize(("variable", "value", "root", "expected"), [
    ("BYWAY_CACHE", "/elsewhere", True, "/elsewhere"), (None, "", True, "/var/cache/byway"),
    ("XDG_CACHE_HOME", "/x", False, "/x/byway"), (None, "", False, "~/.cache/byway")])
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variable: str | None, value: str,
                            root: bool, expected: str) -> None:
    for name in ("BYWAY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    assert cachedir.cache_root() == Path(expected).expanduser()


def test_the_clock() -> None:
    assert 1e8 < measure_hz() < 1e10
    first = int(tsc())
    assert int(tsc()) >= first


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_linked_after_all_of_their_callers(seed: int) -> None:
    rng = random.Random(seed)
    parts = [object.__new__(jit.Part) for _ in range(12)]
    for k, part in enumerate(parts):
        part._linking_libraries = rng.sample(parts[k + 1:], min(len(parts) - k - 1, 3))
    rng.shuffle(called := parts[:4])
    order = jit._parts(called)
    assert len(set(order)) == len(order)
    for place, part in enumerate(order):
        assert all(order.index(one) > place for one in part._linking_libraries)
