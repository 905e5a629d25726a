# SPDX-License-Identifier: Apache-2.0
"""Authors' files are found with the modules that are theirs, in whatever order they are asked for.
"""

import os
import sys
from pathlib import Path

import pytest

from byway.functions.build import blueprint_of
from byway.functions.built import keep, known
from byway.functions.finding import digest_of, file_and_name, find
from byway.nf.problem import FunctionError

GUARD = """
from byway import nf
import limits


@nf.function
class Guard:
    limit: int = limits.LIMIT

    def process(self, frame):
        return nf.PASS
"""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two, with files of the same names."""
    made = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(made, 1):
        folder.mkdir()
        (folder / "limits.py").write_text(f"LIMIT = {number}00\n")
        for name in ("guard", "second"):
            (folder / f"{name}.py").write_text(GUARD)
    return made


def limit(folder: Path, use: str = "guard.py") -> tuple[int, set[str]]:
    """-> the number that its module has, and the files that it came from."""
    cls, files = find(use, folder)
    assert all(digest_of(Path(path)) == digest for path, digest in files.items())
    assert {Path(path).parent for path in files} == {folder}
    return vars(cls)["limit"], {Path(path).name for path in files}


def test_each_folder_has_its_own_modules(folders: list[Path]) -> None:
    a, b = folders
    for folder, number in ((a, 100), (b, 200), (a, 100)):
        assert limit(folder) == (number, {"guard.py", "limits.py"})


def test_a_folder_with_a_colon_in_its_name(folders: list[Path]) -> None:
    a, _ = folders
    folder = a.rename(a.with_name("a:b"))
    assert file_and_name(f"{folder}/guard.py") == (f"{folder}/guard.py", "")
    for use in (f"{folder}/guard.py", f"{folder}/guard.py:Guard"):
        assert find(use, Path("/"))[0].__name__ == "Guard"
        keep(blueprint_of(use, Path("/")), "/")
        assert known(use, "/") is not None


def test_all_files_are_noted_for_a_second_function_of_a_folder(folders: list[Path]) -> None:
    a, _ = folders
    assert limit(a) == (100, {"guard.py", "limits.py"})
    assert limit(a, "second.py") == (100, {"second.py", "limits.py"})


def test_an_edit_of_the_same_length_is_seen_at_once(folders: list[Path]) -> None:
    a, _ = folders
    when = (a / "limits.py").stat().st_mtime_ns
    for number in (100, 101, 102):
        (a / "limits.py").write_text(f"LIMIT = {number}\n")
        os.utime(a / "limits.py", ns=(when, when))
        assert limit(a)[0] == number
    assert not list(a.rglob("*.pyc"))


def test_a_module_beside_goes_before_one_that_is_here_already(
        folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here = type(sys)("limits")
    monkeypatch.setitem(sys.modules, "limits", here)
    assert limit(folders[1])[0] == 200
    assert sys.modules["limits"] is here


def test_modules_of_a_folder_above_are_noted(
        folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = folders
    monkeypatch.syspath_prepend(str(a.parent))
    (a.parent / "shared_rules.py").write_text("LIMIT = 7\n")
    (a / "guard.py").write_text(GUARD.replace("limits", "shared_rules"))
    cls, files = find("guard.py", a)
    assert vars(cls)["limit"] == 7
    assert {Path(path).name for path in files} == {"guard.py", "shared_rules.py"}


def test_what_python_and_packages_bring_is_not_the_authors(folders: list[Path]) -> None:
    a, _ = folders
    (a / "guard.py").write_text("import colorsys, numpy, byway.nf.plain\n" + GUARD)
    assert limit(a)[1] == {"guard.py", "limits.py"}
    assert "colorsys" in sys.modules


@pytest.mark.parametrize("kind", ["fifo", "endless", "long"])
def test_no_program(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "guard.py"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    assert digest_of(path) == ""
    with pytest.raises(FunctionError, match=r"no such file|more than 16 MiB"):
        find("guard.py", tmp_path)
