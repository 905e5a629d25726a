# SPDX-License-Identifier: Apache-2.0
"""The state file: what is kept, what is refused, and that it loses nothing."""

import sqlite3
import stat
from pathlib import Path

import pytest

from byway.control.actions import (
    Action,
    AddFunction,
    AddGroup,
    AddNetwork,
    AddPort,
    RemoveEntry,
    RemoveNetwork,
    RemovePort,
    SetUnderlay,
)
from byway.control.diff import actions
from byway.control.model import (
    EntryConfig,
    FunctionConfig,
    GroupConfig,
    HostConfig,
    NetworkConfig,
    PcapPort,
    RouterConfig,
    RuleConfig,
    UnderlayConfig,
    VhostUserPort,
)
from byway.control.parts import Parts, key_of
from byway.control.store import APPLICATION, Store, StoreError

BLUE = NetworkConfig(name="blue", mtu=9000)
VM1 = VhostUserPort(name="vm1", network="blue", kind="vhost-user", socket="/tmp/vm1.sock")
TAPE = PcapPort(name="tape", network="blue", kind="pcap", write="/tmp/tape.pcap")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lab.db")


def kept(path: str, *actions: Action) -> None:
    """Write into the file, as a switch that ends afterwards."""
    store = Store(path)
    store.keep(actions)
    store.close()


def found(path: str) -> list[str]:
    """The names of what is in the file, in order."""
    store = Store(path)
    parts, problems = store.load()
    store.close()
    assert problems == []
    return [part.name for part in parts]


def test_what_was_kept_is_there_at_the_next_start(path: str) -> None:
    kept(path, AddNetwork(BLUE), AddPort(VM1), AddPort(TAPE))
    store = Store(path)
    assert store.load() == ([BLUE, VM1, TAPE], [])
    store.close()


def test_what_was_removed_is_gone_and_what_was_changed_is_changed(path: str) -> None:
    kept(path, AddNetwork(BLUE), AddPort(VM1), AddPort(TAPE))
    changed = VM1.model_copy(update={"socket": "/tmp/other.sock"})
    kept(path, RemovePort("tape"), RemovePort("vm1"), AddPort(changed))
    store = Store(path)
    assert store.load() == ([BLUE, changed], [])
    store.close()


def test_only_what_the_user_wrote_is_kept(path: str) -> None:
    kept(path, AddNetwork(NetworkConfig(name="blue")), AddPort(VM1))
    rows = sqlite3.connect(path).execute("SELECT body FROM ports").fetchall()
    assert rows == [('{"name":"vm1","network":"blue","kind":"vhost-user",'
                     '"socket":"/tmp/vm1.sock"}',)]


def test_to_remove_what_is_not_there_is_no_error(path: str) -> None:
    kept(path, RemovePort("vm1"), RemoveNetwork("blue"))
    assert found(path) == []


def test_others_may_not_read_the_file(path: str) -> None:
    kept(path)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_a_change_is_kept_whole_or_not_at_all(path: str) -> None:
    store = Store(path)
    store.keep([AddNetwork(BLUE)])
    store._database.execute("PRAGMA max_page_count = 5")  # SQLite's own full disk
    many = [AddPort(VM1.model_copy(update={"name": f"vm{k}"})) for k in range(500)]
    with pytest.raises(StoreError, match="disk is full; make room and try again; nothing was"):
        store.keep(many)
    store.keep([RemoveNetwork("none")])  # it goes on
    store.close()
    assert found(path) == ["blue"]


def test_two_switches_never_have_one_file(path: str) -> None:
    store = Store(path)
    with pytest.raises(StoreError, match="in use by another switch; stop that one, or give each"):
        Store(path)
    store.keep([AddNetwork(BLUE)])
    store.close()
    assert found(path) == ["blue"]


def test_a_newer_file_is_left_alone(path: str) -> None:
    kept(path, AddNetwork(BLUE))
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 7")
    other.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match=r"a newer Byway \(its version is 7, this one knows 3\)"):
        Store(path)
    assert Path(path).read_bytes() == before


def test_the_file_of_another_program_is_left_alone(path: str) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    before = Path(path).read_bytes()
    with pytest.raises(StoreError, match="belongs to another program; set another path"):
        Store(path)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database\n" * 300, b"SQLite format 3\0" * 300])
def test_a_broken_file_is_left_alone(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(StoreError, match=r"is broken, or none .* restore it from a backup"):
        Store(path)
    assert Path(path).read_bytes() == content


def test_a_file_with_a_broken_page_is_left_alone(path: str) -> None:
    kept(path, AddNetwork(BLUE), *(AddPort(VM1.model_copy(update={"name": f"vm{k}"}))
                                   for k in range(400)))
    content = bytearray(Path(path).read_bytes())
    content[4096 * 5:4096 * 6] = b"\xff" * 4096
    Path(path).write_bytes(content)
    with pytest.raises(StoreError, match="is broken"):
        Store(path)
    assert Path(path).read_bytes() == content


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened .No such file or directory.; make it"):
        Store(str(tmp_path / "none" / "lab.db"))


def test_an_entry_that_cannot_be_used_is_said_and_stays(path: str) -> None:
    kept(path, AddNetwork(BLUE), AddPort(VM1))
    other = sqlite3.connect(path)
    other.execute("INSERT INTO ports VALUES ('vm2', '{\"name\": \"vm2\", \"kind\": \"warp\"}')")
    other.execute("INSERT INTO ports VALUES ('vm3', '{')")
    other.commit()
    other.close()
    for _ in range(2):
        store = Store(path)
        parts, problems = store.load()
        store.keep([AddPort(TAPE)])
        store.close()
        assert parts[:2] == [BLUE, VM1]
        assert len(problems) == 2
        assert f'{path}: port "vm2": kind: "warp" is no kind of port' in problems[0]
        assert f'{path}: port "vm3" is no JSON' in problems[1]


def test_every_kind_is_kept_and_comes_back_in_an_order_that_works(path: str) -> None:
    vm1 = VhostUserPort.model_validate({
        **VM1.model_dump(), "vlans": {"10": "red"}, "security_groups": ["web"]})
    parts = [
        GroupConfig(name="web", rules=(RuleConfig(direction="egress"),)), BLUE,
        HostConfig(name="h2", address="192.0.2.2", networks=("blue",)),
        EntryConfig(network="blue", mac="02:00:00:00:00:02", host="h2"),
        RouterConfig(name="r", networks=("blue",)), vm1]
    parts_given = {key_of(part): part for part in reversed(parts)}
    kept(path, *actions(Parts(), parts_given))
    store = Store(path)
    assert store.load() == (parts, [])
    store.close()
    kept(path, RemoveEntry("blue", "02:00:00:00:00:02"))
    assert found(path) == ["web", "blue", "h2", "r", "vm1"]


def test_the_underlay_is_a_matter_of_the_configuration_file(path: str) -> None:
    kept(path, SetUnderlay(UnderlayConfig(address="192.0.2.1")))
    assert found(path) == []


def test_network_functions_are_kept(path: str) -> None:
    use = "/etc/guard.py:Guard"
    limits = FunctionConfig.model_validate({
        "name": "limits", "use": use, "parameters": {"limit": 3},
        "tables": {"rules": [{"value": "drop"}]}})
    port = VM1.model_copy(update={"chain": ("limits", f"{use}(limit=5)")})
    kept(path, AddFunction(limits), AddNetwork(BLUE), AddPort(port))
    store = Store(path)
    assert store.load() == ([limits, BLUE, port], [])
    store.close()


def test_a_file_of_version_1_becomes_one_of_this_version(path: str) -> None:
    old = sqlite3.connect(path)
    old.executescript(f"""
        CREATE TABLE networks (name TEXT PRIMARY KEY, body TEXT NOT NULL);
        CREATE TABLE ports (name TEXT PRIMARY KEY, body TEXT NOT NULL);
        PRAGMA application_id = {APPLICATION};
        PRAGMA user_version = 1;
        INSERT INTO networks VALUES ('blue', '{{"name": "blue", "mtu": 9000}}');
        INSERT INTO ports VALUES ('vm1', '{{"name": "vm1", "network": "blue",
            "kind": "vhost-user", "socket": "/tmp/vm1.sock"}}');
    """)
    old.close()
    store = Store(path)
    assert store.load() == ([BLUE, VM1], [])
    store.keep([AddGroup(GroupConfig(name="web"))])
    store.close()
    assert found(path) == ["web", "blue", "vm1"]
    after = sqlite3.connect(path)
    assert after.execute("PRAGMA user_version").fetchone() == (3,)


def test_what_the_engine_refuses_is_as_it_was_before(path: str) -> None:
    kept(path, AddNetwork(BLUE), AddPort(VM1))
    changed = VM1.model_copy(update={"socket": "/tmp/other.sock"})
    store = Store(path)
    seen = []

    def engine() -> None:
        with store.keeping([RemovePort("vm1"), AddPort(changed), AddPort(TAPE)]):
            seen.extend(store.load()[0])
            raise RuntimeError("refused")

    with pytest.raises(RuntimeError):
        engine()
    assert seen == [BLUE, changed, TAPE]  # it was there before the engine was asked
    assert store.load() == ([BLUE, VM1], [])
    store.close()
