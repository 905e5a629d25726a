# SPDX-License-Identifier: Apache-2.0
"""What the command prints and writes: lines, JSON, JUnit, exit status, findings and replays."""

import json
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from byway.cli.main import app
from byway.conform.backend.acts import Act
from byway.conform.backend.hostile import Finding, minimise
from byway.conform.outcome import Level, Outcome, Verdict
from byway.conform.plain_rings import PlainBackEnd, PlainSwitch
from byway.conform.report import as_junit, count, sentence
from tests.unit.conform.mutants import AcksUnasked, KeepsDisabled

SOME = "transport.no-ack-unasked,ring.split.disabled-transmit-used,iotlb.misses"


def conform(*words: str) -> tuple[int, str]:
    """Run the command; -> its exit status and what it printed."""
    done = CliRunner().invoke(app, ["conform", "backend", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


@pytest.fixture(params=[PlainBackEnd])
def sockets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    paths = (str(tmp_path / "a.sock"), str(tmp_path / "b.sock"))
    with PlainSwitch(paths, (request.param,)):
        yield paths


def test_lines_and_a_sentence(sockets: tuple[str, str]) -> None:
    status, text = conform(sockets[0], "--peer", sockets[1], "--only", SOME)
    assert status == 0
    lines = text.splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [
        ["pass", "must", "transport.no-ack-unasked"],
        ["pass", "should", "ring.split.disabled-transmit-used"],
        ["not-applicable", "must", "iotlb.misses"]]
    assert lines[0].endswith("no acknowledgement")
    assert lines[2].endswith("did not offer ACCESS_PLATFORM")
    assert lines[-1] == ("PASSED: 2 of 3 checks passed, 0 must and 0 should failed, 1 do not apply,"
                         " 0 could not be made")


@pytest.mark.parametrize(("sockets", "status"), [(AcksUnasked, 1), (KeepsDisabled, 0)],
                         indirect=["sockets"])
def test_the_exit_status_is_that_of_the_musts(sockets: tuple[str, str], status: int) -> None:
    done, text = conform(sockets[0], "--timeout", "0.3", "--only",
                         "transport.no-ack-unasked,ring.split.disabled-transmit-used")
    assert done == status
    assert "fail" in text


def test_nobody_to_be_tested_is_said_once(tmp_path: Path) -> None:
    path = str(tmp_path / "nobody.sock")
    done = CliRunner().invoke(app, ["conform", "backend", path, "--timeout", "0.1"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"byway conform: no connection to {path} within 0.1 s: {path}: does not exist; "
        "start what listens there first\n")


def test_json(sockets: tuple[str, str]) -> None:
    status, text = conform(sockets[0], "--only", SOME, "--json", "--seed", "5")
    found = json.loads(text)
    assert status == 0
    assert (found["direction"], found["socket"], found["seed"]) == ("backend", sockets[0], 5)
    assert found["counts"]["pass"] == 2
    assert [check["verdict"] for check in found["checks"]] == ["pass", "pass", "not-applicable"]
    assert set(found["checks"][0]) == {
        "name", "level", "section", "done", "verdict", "seen", "seconds"}


def test_without_a_way_back_checks_of_received_frames_cannot_be_made(
        sockets: tuple[str, str]) -> None:
    _, text = conform(sockets[0], "--only", "net.header-zero", "--json")
    (check,) = json.loads(text)["checks"]
    assert check["verdict"] == "unable"
    assert "--peer" in check["seen"]


def test_a_loopback_is_a_way_back(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with PlainSwitch([path]):
        status, text = conform(path, "--loopback", "--only", "net,ring.split.disabled-receive")
    assert status == 0, text
    assert "unable" not in text


def test_a_server_is_dialled(tmp_path: Path) -> None:
    """With --mode server nobody comes here: that is said, and the socket's file is gone."""
    path = tmp_path / "a.sock"
    done = CliRunner().invoke(app, ["conform", "backend", str(path), "--mode", "server",
                                    "--timeout", "0.2", "--only", "transport.burst"])
    assert done.exit_code == 1
    assert "nobody came" in done.stderr
    assert not path.exists()


def test_junit(sockets: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    conform(sockets[0], "--only", SOME, "--junit", str(file))
    suite = xml.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "0", "1")
    assert next((c.get("classname"), c.get("name")) for c in suite) == (
        "backend.transport", "no-ack-unasked")


def test_a_report_that_cannot_be_written_is_said(sockets: tuple[str, str]) -> None:
    words = ["conform", "backend", sockets[0], "--only", SOME, "--junit", "/nowhere/report.xml"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "PASSED" in done.stdout
    assert "--junit /nowhere/report.xml: cannot be written" in done.stderr


def test_a_command_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    words = ["conform", "backend", str(tmp_path / "a.sock"), "--hostile", "--start", "/nowhere/be"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr) == (
        2, "byway conform: --start /nowhere/be: No such file or directory\n")


def test_junit_of_what_no_xml_can_hold() -> None:
    outcome = Outcome("a.b", Level.MUST, "section", "done", Verdict.FAIL, "\x00\x1b[31m<&>", 0.5)
    (case,) = xml.fromstring(as_junit("backend", "x", [outcome]).split("\n", 1)[1])
    (failure,) = case
    assert failure.get("message") == "??[31m<&>"
    assert failure.get("type") == "must"


def test_counts() -> None:
    kinds = [(Level.MUST, Verdict.FAIL), (Level.SHOULD, Verdict.FAIL), (Level.MUST, Verdict.PASS)]
    outcomes = [Outcome("a.b", level, "", "", verdict, "", 0.0) for level, verdict in kinds]
    assert count(outcomes) == {"pass": 1, "fail": 2, "not-applicable": 0, "unable": 0,
                               "must failed": 1, "should failed": 1}
    assert sentence(outcomes).startswith("FAILED: 1 of 3")


# ---------------------------------------------------------------- spoiled conversations


def test_minimising_leaves_what_is_needed() -> None:
    acts = [Act("pause", k) for k in range(40)]
    tried = []

    def breaks(some: list[Act]) -> bool:
        tried.append(len(some))
        return {3, 29} <= {act.number for act in some}

    assert [act.number for act in minimise(acts, breaks)] == [3, 29]
    assert len(tried) < 100


def test_a_finding_is_kept_in_a_file(tmp_path: Path) -> None:
    acts = (Act("message", 5, b"\x01\x02", 9, ("memory",), 7, 3), Act("kick", 1))
    finding = Finding("gone", "nobody answered", 1, 2, acts, True)
    file = str(tmp_path / "finding.json")
    finding.write(file)
    assert Finding.read(file) == finding


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "byway conform backend 1"}'])
def test_a_file_that_is_no_finding(text: str, tmp_path: Path) -> None:
    file = tmp_path / "finding.json"
    file.write_text(text)
    status, _ = conform(str(tmp_path / "a.sock"), "--replay", str(file))
    assert status == 2


def test_spoiled_conversations_leave_a_good_back_end_well(sockets: tuple[str, str]) -> None:
    status, text = conform(sockets[0], "--peer", sockets[1], "--hostile", "--cases", "40",
                           "--seed", "3", "--json")
    found = json.loads(text)
    assert (status, found["cases"], found["finding"]) == (0, 40, None)
    assert found["went on"] > 0
    assert found["hung up"] > 0
