# SPDX-License-Identifier: Apache-2.0
"""What the build process answers: blueprints, or what is wrong, where, and what to write."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from byway.functions.blueprint import Blueprint
from byway.functions.build import blueprint_of, build
from byway.functions.built import COMMAND, keep, known
from byway.functions.code import native
from byway.functions.compose import compose
from byway.machine import cachedir

GOOD = '''
from byway import nf

print("this is no part of the answer")


@nf.function
class Marks:
    """Marks frames."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        frame.ip_dscp = 7
        return nf.PASS
'''
LOOPS = '''
from byway import nf


@nf.function
class Loops:
    """Never ends."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        n = 0
        while n >= 0:
            n = n + frame.length - frame.length
        return nf.PASS
'''


def built(folder: Path, *uses: str) -> dict[str, Any]:
    order = {"functions": {use: str(folder) for use in uses},
             "chains": [{"direction": "rx", "uses": list(uses)}]}
    done = subprocess.run(COMMAND, input=json.dumps(order), capture_output=True, text=True,
                          timeout=230, check=True, env={**os.environ, "BYWAY_CACHE": str(folder)})
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_was_built_is_known_until_its_file_is_another(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path))
    file = tmp_path / "marks.py"
    file.write_text(GOOD)
    answer = built(tmp_path, "marks.py")
    assert answer["problems"] == {}
    found = known("marks.py", str(tmp_path))
    assert found == Blueprint.from_json(json.dumps(answer["blueprints"]["marks.py"]))
    assert found is not None
    assert native(compose([found], "rx")).cached
    file.write_text(GOOD.replace("7", "8"))
    assert known("marks.py", str(tmp_path)) is None
    file.write_text(GOOD)
    assert known("marks.py", str(tmp_path)) == found


@pytest.mark.parametrize(("text", "line", "message"), [
    ("def (", 1, "no Python"),
    ("import not_there", 1, "ModuleNotFoundError"),
    ("x = 1", 0, "not said which function"),
    ("raise SystemExit(3)", 1, "SystemExit"),
    (GOOD.replace("return nf.PASS", "return 5"), 13, "returns a number"),
    (LOOPS, 11, "work budget of 1000"),
])
def test_what_is_wrong_is_named(tmp_path: Path, text: str, line: int, message: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    problems = built(tmp_path, "bad.py")["problems"]["bad.py"]
    assert any(message in one["message"] and one["fix"] for one in problems), problems
    assert problems[0]["line"] == line
    assert problems[0]["file"].endswith("bad.py")


@pytest.mark.parametrize("use", ["gone.py", "byway.nothing", "marks.py:Other"])
def test_what_is_not_there_is_named(tmp_path: Path, use: str) -> None:
    (tmp_path / "marks.py").write_text(GOOD)
    problem, = built(tmp_path, use)["problems"][use]
    assert problem["message"].startswith(("there is no such file", "no such function comes",
                                          "there is no network function"))
    assert problem["fix"]


TABLE = GOOD.replace("from byway import nf", "import marks_table\nfrom byway import nf").replace(
    "= 7", "= marks_table.MARK")


def test_files_beside_count_for_every_function(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "marks_table.py").write_text("MARK = 7\n")
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(TABLE)
    blueprints = {use: blueprint_of(use, tmp_path) for use in ("one.py", "two.py")}
    for use, blueprint in blueprints.items():
        keep(blueprint, str(tmp_path))
        assert known(use, str(tmp_path)) == blueprint
    (tmp_path / "marks_table.py").write_text("MARK = 8\n")
    for use, blueprint in blueprints.items():
        assert known(use, str(tmp_path)) is None
        keep(blueprint, str(tmp_path))  # of files that are others now
        assert known(use, str(tmp_path)) is None


@pytest.mark.parametrize("harm", ["cut", "empty", "other", "writable"])
def test_what_is_found_damaged_or_may_be_anothers_is_not_known(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """What is known holds source that the switch runs."""
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "marks.py").write_text(GOOD)
    keep(blueprint_of("marks.py", tmp_path), str(tmp_path))
    assert known("marks.py", str(tmp_path)) is not None
    (file,) = (tmp_path / "cache").rglob("function_*")
    match harm:
        case "cut":
            file.write_bytes(file.read_bytes()[:200])
        case "empty":
            file.write_bytes(b"")
        case "other":
            cachedir.keep(file, b'{"of": "another format"}')
        case "writable":
            file.parent.chmod(0o777)
    assert known("marks.py", str(tmp_path)) is None


def test_a_fifo_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path / "cache"))
    os.mkfifo(tmp_path / "marks.py")
    assert known("marks.py", str(tmp_path)) is None


def test_a_switch_of_other_sources_is_not_built_for(tmp_path: Path) -> None:
    answer = build({"functions": {"byway.acl": "/"}, "chains": [], "sources": "of yesterday"})
    ((problem,),) = answer["problems"].values()
    assert "restart" in problem["fix"]
