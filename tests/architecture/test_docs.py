# SPDX-License-Identifier: Apache-2.0
"""The manual: it builds without a warning, its commands work, and its lists are complete."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from byway.cli.main import app
from byway.control.model import (
    KINDS,
    AddressPair,
    ApplianceConfig,
    ClusterConfig,
    EntryConfig,
    GroupConfig,
    HostConfig,
    LimitConfig,
    MirrorConfig,
    NetworkConfig,
    RouterConfig,
    RuleConfig,
    ServiceConfig,
    StaticRoute,
    SwitchConfig,
    UnderlayConfig,
)
from byway.packet.reason import Reason
from byway.ports.tap_port import TapPort
from byway.ports.vhost_kernel import VhostKernelPort
from byway.ports.vhost_user import PROTOCOL_OFFERED, SUPPORTED
from byway.ports.virtio_user import VirtioUserPort
from byway.vhost.messages import ProtocolFeature
from byway.virtio.features import Feature
from tests.architecture.console import Session, blocks, steps
from tests.architecture.sources import ROOT, shown

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
# Pages whose commands need a peer: a test with the peer runs them.
RUN_ELSEWHERE = {
    DOCS / "how-to" / "run-with-docker.md": ROOT / "tests/system/test_docker.py",
    DOCS / "how-to" / "run-a-cluster.md": ROOT / "tests/system/test_cluster_page.py",
}
RUN_PAGES = [
    page for page in PAGES if page not in RUN_ELSEWHERE
    and any(b.language == "console" and not b.not_run for b in blocks(page))
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
REFERENCE = DOCS / "reference"


def test_the_manual_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").is_file()


def test_the_manual_needs_no_network(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, check=True, timeout=100,
    )
    fetched = re.compile(r'<(?:script|img|iframe|link rel="stylesheet")[^>]+(?:src|href)="https?:')
    assert [p.name for p in tmp_path.rglob("*.html") if fetched.search(p.read_text())] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_manual_lead_somewhere(name: str) -> None:
    links = LINK.findall((ROOT / name).read_text())
    assert [to for to in links if "://" not in to and not (ROOT / to).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_shown_is_run_by_a_test(page: Path) -> None:
    left_out = [
        f"{shown(page, block.line)} {step.command}"
        for block in blocks(page)
        if block.language == "console" and block.not_run
        for step in steps(block.body)
        if step.command.startswith("byway ")
    ]
    assert left_out == []
    unmarked = [
        shown(page, block.line)
        for block in blocks(page)
        if block.language in {"bash", "sh", "shell"} and not block.not_run
    ]
    assert unmarked == [], "commands stand in ```console blocks"


@pytest.mark.compiled_only
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN_PAGES, ids=shown)
def test_the_commands_of_a_page_do_what_it_shows(page: Path) -> None:
    with Session() as session:
        session.run_page(page)


def test_pages_that_are_run_elsewhere_are_run_there() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert page.is_file()
        assert f'"{page.relative_to(DOCS)}"' in test.read_text()


# ---------------------------------------------------------------- the reference is complete


def _missing(page: str, words: list[str]) -> list[str]:
    text = " ".join((REFERENCE / page).read_text().split())
    return [word for word in words if word not in text]


def test_every_drop_reason_is_explained() -> None:
    for reason in Reason:
        row = [f"`{reason.name.lower()}`", reason.sentence, reason.fix]
        assert _missing("drop-reasons.md", row) == []


def _commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    for name, child in children.items():
        if not child.hidden:
            yield from _commands(child, f"{words} {name}")


def test_every_command_and_option_is_in_the_reference() -> None:
    expected = []
    for words, command in _commands(get_command(app), "byway"):
        expected.append(f"## `{words}")
        expected += [
            option
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and option != "--help"
        ]
    assert _missing("cli.md", expected) == []


def _keys(model: type[BaseModel]) -> list[str]:
    return [f"`{name}`" for name in model.model_fields]


@pytest.mark.parametrize("model", [
    SwitchConfig, NetworkConfig, UnderlayConfig, HostConfig, EntryConfig, RouterConfig, GroupConfig,
    RuleConfig, LimitConfig, ClusterConfig, ServiceConfig, *KINDS.values()])
def test_every_key_of_the_configuration_is_in_the_reference(model: type[BaseModel]) -> None:
    assert _missing("config.md", _keys(model)) == []


@pytest.mark.parametrize("model", [AddressPair, ApplianceConfig, MirrorConfig, StaticRoute])
def test_every_key_of_an_inline_table_is_in_the_reference(model: type[BaseModel]) -> None:
    text = (REFERENCE / "config.md").read_text()
    assert [name for name in model.model_fields if not re.search(rf"`\{{[^`]*\b{name} = ", text)
            and f"`{name}`" not in text] == []


def test_every_kind_of_port_is_in_the_reference() -> None:
    assert _missing("config.md", [f'kind = "{kind}"' for kind in KINDS]) == []


def test_the_features_in_the_reference_are_those_negotiated() -> None:
    text = (REFERENCE / "features.md").read_text()
    offered, wanted = text.split("## Wanted by a virtio-user port")
    virtio, protocol = offered.split("| vhost-user feature |")
    user, rest = wanted.split("## Wanted by a vhost-kernel port")
    kernel, tap = rest.split("## Of a tap port")
    for part, bits in ((virtio, SUPPORTED), (user, VirtioUserPort.supported),
                       (kernel, VhostKernelPort.supported), (tap, TapPort.supported)):
        assert _named(part) == {f.name for f in Feature if bits >> f & 1}
    assert _named(protocol) == {f.name for f in ProtocolFeature if PROTOCOL_OFFERED >> f & 1}


def _named(text: str) -> set[str]:
    return set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)`", text, re.MULTILINE))
