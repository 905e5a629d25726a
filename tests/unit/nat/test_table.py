# SPDX-License-Identifier: Apache-2.0
"""What the user reads when nft is not there, or says no: a program in its place answers."""

from pathlib import Path

import pytest

from byway.nat import NatError, Publication, Table

PORT = Publication("tcp", 8080, "10.0.0.2", 80)
UNDERLINED = """\
/dev/stdin:1:38-47: Error: {why}
add element inet t ports4 {{ tcp . 8080 : 10.0.0.2 . 80 }}
                            ^^^^^^^^^^
"""


def nft(folder: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """From now on `nft` is a program that says `message` and fails."""
    (folder / "message").write_text(message)
    program = folder / "nft"
    program.write_text(f"#!/bin/sh\ncat {folder}/message >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(("message", "sentence"), [
    ("Operation not permitted (you must be root)\nnetlink: Error: cache",
     "may not be changed here; give byway CAP_NET_ADMIN$"),
    (UNDERLINED.format(why="Could not process rule: File exists"),
     r"published already, and leads elsewhere \(tcp . 8080\); choose another port of the host"),
    (UNDERLINED.format(why="interval overlaps with an existing one"),
     r"overlaps with one that is there already \(tcp . 8080\); give each network a range"),
    (UNDERLINED.format(why="Could not process rule: No such file or directory"),
     "the kernel refuses address translation .* it needs nf_tables with nft_nat"),
    ("", "nft failed without a word"),
    ("something new", "nft: something new; see nft"),
])
def test_a_refusal_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, sentence: str
) -> None:
    nft(tmp_path, monkeypatch, message)
    with pytest.raises(NatError, match=sentence):
        Table("t").publish([PORT])


def test_nothing_is_withdrawn_from_a_table_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft(tmp_path, monkeypatch, "/dev/stdin:1:18-24: Error: No such file or directory\n")
    Table("t").withdraw(["10.0.0.0/24"], [PORT])
    assert Table("t").content().publications == frozenset()


def test_a_port_that_leads_elsewhere_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft(tmp_path, monkeypatch, UNDERLINED.format(why="Could not process rule: File exists"))
    Table("t").withdraw(publications=[PORT])


def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byway.nat.table._SBIN", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NatError, match="nft is not installed; apt-get install nftables"):
        Table("t").remove()
