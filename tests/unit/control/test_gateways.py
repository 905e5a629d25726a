# SPDX-License-Identifier: Apache-2.0
"""Which rules the ports with `masquerade` lead to: a program in nft's place writes them down."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from byway.control.gateways import Gateways
from byway.control.problem import EngineError


@dataclass(frozen=True)
class Port:
    """What a gateway port says."""

    name: str
    network: str
    address: tuple[str, ...]
    netns: str | None = None


BLUE = Port("gw-blue", "blue", ("10.0.0.1/24",))
RED = Port("gw-red", "red", ("10.1.0.1/24",))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which everything is that nft was told; it fails while `fail` is beside it."""
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\ncat >> {tmp_path}/told\n"
                       f"[ ! -e {tmp_path}/fail ] || {{ echo no good >&2; exit 1; }}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("byway.nat.forwarding.switch_on", lambda *_: ["forwarding is on now"])
    return tmp_path / "told"


def elements(told: Path) -> list[str]:
    """The subnets that nft was told since the last time, and tables that it was to remove."""
    text = told.read_text() if told.exists() else ""
    told.unlink(missing_ok=True)
    return [line.removeprefix("add element inet ") for line in text.splitlines()
            if "subnets4 {" in line and line.startswith("add")] or text.splitlines()[-1:]


def test_without_such_ports_nothing_is_asked_of_nft(told: Path) -> None:
    gateways = Gateways("lab")
    gateways.follow([])
    gateways.close()
    assert elements(told) == []


def test_the_rules_follow_the_ports(told: Path) -> None:
    gateways = Gateways("lab")
    gateways.follow([BLUE])
    assert elements(told) == ["byway-lab subnets4 { 10.0.0.0/24 }"]
    gateways.follow([BLUE])
    assert elements(told) == []  # as it was
    gateways.follow([BLUE, RED])
    assert elements(told) == ["byway-lab subnets4 { 10.0.0.0/24 }",
                              "byway-lab subnets4 { 10.1.0.0/24 }"]
    gateways.close()
    assert elements(told) == ["delete table inet byway-lab"]
    assert gateways.notes == ["forwarding is on now"] * 2


def test_a_refusal_leaves_the_rules_that_there_were(told: Path) -> None:
    gateways = Gateways("lab")
    gateways.follow([BLUE])
    elements(told)
    told.with_name("fail").touch()
    with pytest.raises(EngineError, match='port "gw-red": masquerade: nft: no good'):
        gateways.follow([BLUE, RED])
    told.with_name("fail").unlink()
    assert elements(told)[-1] == "byway-lab subnets4 { 10.0.0.0/24 }"
    gateways.follow([BLUE])
    assert elements(told) == []


def test_a_namespace_that_is_gone_took_its_rules_with_it(told: Path, tmp_path: Path) -> None:
    gateways = Gateways("lab")
    gateways._present = {str(tmp_path / "gone"): {"blue": ["10.0.0.1/24"]}}
    gateways.close()
    assert elements(told) == []
