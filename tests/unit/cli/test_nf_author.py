# SPDX-License-Identifier: Apache-2.0
"""`byway nf new|check|test|bench`: what they write, say, and end with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byway.cli.nf_bench import run_bench
from byway.cli.nf_new import PlaceError, write_scaffold
from byway.cli.nf_test import tests_of as where_tests_are
from byway.cli.nf_use import UseError, uses
from byway.packet.pcapfile import write_frame, write_header
from byway.testing.builders import tcp

GOOD = '''from byway import nf


@nf.function
class Closed:
    """Close a port."""

    port: int = 80

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if frame.l4_dst == self.port:
            return nf.DROP("closed")
        return nf.PASS
'''
# Divides by what stands in a frame.
DIVIDES = '''from byway import nf


@nf.function
class Divides:
    """Trust the sender."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if frame.is_tcp and 100 // frame.tcp_window > 50:
            return nf.DROP("small window")
        return nf.PASS
'''
ENDLESS = '''from byway import nf


@nf.function
class Endless:
    """Wait for what does not come."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        n = 0
        while frame.is_arp:
            n += 1
        return nf.PASS
'''
# Numbers wrap in the switch, and do not in plain Python.
GROWS = '''from byway import nf


@nf.function
class Grows:
    """Grow beyond 64 bits."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        if (frame.tcp_seq << 40) > 0 or not frame.is_tcp:
            return nf.PASS
        return nf.DROP("negative")
'''
REFUSED = '''from byway import nf


@nf.function
class Refused:
    """Keep a list."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        seen = [1, 2]
        return nf.PASS
'''


def byway(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-c", "from byway.cli.main import main; main()", "nf", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=230,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"})


# ---------------------------------------------------------------- new


def test_what_new_writes_is_a_function_with_its_name(tmp_path: Path) -> None:
    files = write_scaffold(f"{tmp_path}/rate_guard.py")
    assert [file.name for file in files] == ["rate_guard.py", "test_rate_guard.py"]
    assert "class RateGuard:" in files[0].read_text()
    assert "from rate_guard import RateGuard" in files[1].read_text()
    write_scaffold(f"{tmp_path}/other:Chosen")
    assert "class Chosen:" in (tmp_path / "other.py").read_text()


def test_a_folder_with_a_colon_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    guard, tests = write_scaffold(f"{folder}/guard.py")
    assert where_tests_are(str(guard)) == where_tests_are(f"{guard}:Guard") == tests
    (one,) = uses(str(guard))
    assert (one.use, one.shown) == (f"{guard}:Guard", "Guard")


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_guard.py").write_text("mine")
    with pytest.raises(FileExistsError):
        write_scaffold(f"{tmp_path}/guard.py")
    assert (tmp_path / "test_guard.py").read_text() == "mine"
    assert not (tmp_path / "guard.py").exists()


@pytest.mark.parametrize(("place", "message"), [
    ("rate-guard.py", "made of letters, digits and _"), ("class.py", "made of letters"),
    ("guard.py:Rate-Guard", "no name for a class"), ("guard.py:class", "no name for a class")])
def test_new_says_what_a_name_can_be(tmp_path: Path, place: str, message: str) -> None:
    with pytest.raises(PlaceError, match=message):
        write_scaffold(f"{tmp_path}/{place}")


@pytest.mark.compiled_only
def test_what_new_writes_passes_its_tests_and_the_check(tmp_path: Path) -> None:
    assert byway(tmp_path, "new", "guard.py").returncode == 0
    tested = byway(tmp_path, "test", "guard.py")
    assert (tested.returncode, tested.stdout.count("....")) == (0, 1), tested.stdout
    checked = byway(tmp_path, "check", "guard.py", "--frames", "600")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "agree; nothing went wrong" in checked.stdout


# ---------------------------------------------------------------- which function


def test_a_file_means_all_its_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two.py").write_text(GOOD + DIVIDES.replace("from byway import nf", ""))
    monkeypatch.chdir(tmp_path)
    assert [one.use for one in uses("two.py")] == [
        f"{tmp_path}/two.py:Closed", f"{tmp_path}/two.py:Divides"]
    [one] = uses("two.py:Closed(port=23)")
    assert (one.shown, one.parameters) == ("Closed", {"port": 23})
    assert uses("byway.nat44")[0].use == "byway.nat44"


@pytest.mark.parametrize(("written", "message", "status"), [
    ("none.py", "No such file", 2), ("none.py:Guard", "there is no such file", 2),
    ("guard", "names no function's code", 2), ("empty.py", "no network function in it", 1),
    ("broken.py", "broken.py:1: ", 1), ("good.py:Closed(80)", "are no parameters", 2)])
def test_what_is_no_function_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     written: str, message: str, status: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("empty", "x = 1\n"), ("broken", "def (:\n"), ("good", GOOD)):
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UseError, match=message) as raised:
        uses(written)
    assert raised.value.status == status


# ---------------------------------------------------------------- check


@pytest.mark.compiled_only
def test_a_capture_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    with (tmp_path / "a.pcap").open("wb") as file:
        write_header(file)
        for _ in range(40):
            write_frame(file, tcp(dport=80), 1.0)
    done = byway(tmp_path, "check", "good.py", "--frames", "1", "--pcap", "a.pcap", "--json")
    [report] = json.loads(done.stdout)
    assert (done.returncode, report["good"], report["frames"]) == (0, True, 41)
    assert report["reasons"]["closed"] >= 40
    missing = byway(tmp_path, "check", "good.py", "--pcap", "b.pcap")
    assert (missing.returncode, "b.pcap" in missing.stderr) == (2, True)


@pytest.mark.compiled_only
@pytest.mark.parametrize(("source", "line", "message"), [
    (DIVIDES, 9, "division by zero"), (ENDLESS, 10, "work budget used up")])
def test_what_goes_wrong_is_told_with_its_line(tmp_path: Path, source: str, line: int,
                                               message: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    done = byway(tmp_path, "check", "bad.py", "--json")
    [report] = json.loads(done.stdout)
    assert done.returncode == 1
    [finding] = report["findings"]
    assert (Path(finding["file"]).name, finding["line"]) == ("bad.py", line)
    assert message in finding["message"]
    assert finding["frame"]


@pytest.mark.compiled_only
def test_what_the_switch_would_do_otherwise_is_told(tmp_path: Path) -> None:
    (tmp_path / "grows.py").write_text(GROWS)
    done = byway(tmp_path, "check", "grows.py")
    assert done.returncode == 1
    assert "plain Python: pass" in done.stderr
    assert "compiled: drop 'negative'" in done.stderr


@pytest.mark.parametrize("command", ["check", "bench"])
def test_what_cannot_be_compiled_is_refused(tmp_path: Path, command: str) -> None:
    (tmp_path / "refused.py").write_text(REFUSED)
    done = byway(tmp_path, command, "refused.py")
    assert done.returncode == 1
    assert f"byway nf {command}: {tmp_path}/refused.py:9: " in done.stderr


def test_parameters_are_checked(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    done = byway(tmp_path, "check", "good.py:Closed(limit=1)")
    assert done.returncode == 2
    assert done.stderr.startswith("byway nf check: there is no parameter 'limit'")


# ---------------------------------------------------------------- test, bench


def test_bench_says_what_is_lacking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench(["byway.nat44"], [], 8, 0.05, as_json=False) == 2
    assert capsys.readouterr().err == (
        "byway nf bench: nat44: parameter outside has no default; give it a value behind the"
        " function, as in 'guard.py:RateGuard(limit=50)'\n")
    assert run_bench(["byway.acl"], [f"{tmp_path}/none.pcap"], 8, 0.05, as_json=False) == 2
    assert capsys.readouterr().err == (
        f"byway nf bench: --pcap: {tmp_path}/none.pcap: No such file or directory\n")
    assert run_bench(["byway.acl"], [], 8, 0.05, as_json=False) == 0
    assert "acl is measured with nothing in rules" in capsys.readouterr().err


def test_tests_stand_beside_their_function(tmp_path: Path) -> None:
    guard = tmp_path / "guard.py"
    guard.write_text(GOOD)
    with pytest.raises(FileNotFoundError, match="its tests stand in"):
        where_tests_are(str(guard))
    tests = tmp_path / "test_guard.py"
    tests.write_text("")
    assert where_tests_are(f"{guard}:Closed") == where_tests_are(str(tests)) == tests
    with pytest.raises(FileNotFoundError, match="no such file"):
        where_tests_are(str(tmp_path / "none.py"))


def test_a_test_that_fails_fails_the_command(tmp_path: Path) -> None:
    (tmp_path / "guard.py").write_text(GOOD)
    (tmp_path / "test_guard.py").write_text("def test_it():\n    assert False\n")
    assert byway(tmp_path, "test", "guard.py").returncode == 1
    assert byway(tmp_path, "test", "none.py").returncode == 2


@pytest.mark.compiled_only
def test_bench_shows_each_function_and_the_chain(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    done = byway(tmp_path, "bench", "good.py", "good.py:Closed(port=9)", "--seconds", "0.05",
                 "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["chain"]: row for row in json.loads(done.stdout)}
    assert list(rows) == ["(empty chain)", "Closed", "Closed.2", "all of them"]
    assert all(row["cycles_per_frame"] > 0 for row in rows.values())
    assert (rows["Closed"]["not_passed"], rows["Closed.2"]["not_passed"]) == (1.0, 0.0)
    assert (rows["all of them"]["not_passed"]) == 1.0
