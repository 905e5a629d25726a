# SPDX-License-Identifier: Apache-2.0
"""Members of security groups, and many of them, their rules and their combinations, that change."""

import ipaddress
import sys
from collections.abc import Callable
from typing import Any

from byway.machine.jit import INTERPRETED
from byway.packet.reason import Reason
from byway.switch.groups_compile import Rule
from byway.switch.groups_members import HANDED
from byway.testing.flow_frames import SYN, TCP, UDP, Packet, tcp, udp
from tests.filtering import OUT4, OUT6, Filtered, octets

GUEST, REMOTE, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def asks(source: int, destination: int) -> Packet:
    """Begins a connection to the guest."""
    return Packet(REMOTE, GUEST, TCP, tcp(source, destination, SYN))


def test_members_come_and_go() -> None:
    lab = Filtered()
    lab.groups.set_group("db", [Rule(True, 4, TCP, (5432, 5432), remote_group="app")])
    lab.port(1, "db")
    assert lab.tx(asks(1, 5432)) is Reason.NOT_ALLOWED
    lab.groups.join("app", octets(REMOTE))
    lab.groups.join("app", octets(REMOTE))
    lab.groups.join("web", octets(REMOTE))
    assert lab.tx(asks(1, 5432)) is None
    assert lab.tx(asks(1, 5433)) is Reason.NOT_ALLOWED
    assert lab.groups.leave("app", octets(REMOTE))
    assert lab.tx(asks(2, 5432)) is None, "told twice"
    assert lab.groups.leave("app", octets(REMOTE))
    assert not lab.groups.leave("app", octets(REMOTE))
    assert lab.tx(asks(3, 5432)) is Reason.NOT_ALLOWED
    assert lab.tx(asks(1, 5432)) is None, "known ones go on until the next tick"
    lab.groups.tick(lab.now)
    assert lab.tx(asks(1, 5432)) is Reason.NOT_ALLOWED
    lab.groups.join("app", octets(REMOTE))
    assert lab.tx(asks(3, 5432)) is None


def test_a_group_of_members_that_is_known_before_its_rules() -> None:
    lab = Filtered()
    for k in range(200):
        lab.groups.join(f"g{k}", octets(f"10.1.0.{k}"))
    lab.groups.set_group("a", [Rule(True, 4, remote_group="g7"), Rule(True, 4, UDP,
                                                                     remote_group="g150")])
    lab.port(1, "a")
    passed = [k for k in range(200)
              if lab.tx(Packet(f"10.1.0.{k}", GUEST, TCP, tcp(1, 2, SYN))) is None]
    assert passed == [7]
    assert lab.tx(Packet("10.1.0.150", GUEST, UDP, udp(1, 2))) is None


def test_no_change_walks_the_members() -> None:
    """50 policies of 20 groups: a change costs as many lines with 4,000 members as with 400."""
    names = [f"g{k}" for k in range(20)]

    def lines_of_changes(count: int) -> int:
        lab = Filtered()
        for k in range(50):
            lab.groups.set_group(f"p{k}", [Rule(True, 4, remote_group=name) for name in names])
            lab.port(k, f"p{k}")
        members = [octets(str(ipaddress.IPv4Address(0x0A010000 + k))) for k in range(count)]
        for k, member in enumerate(members):
            lab.groups.join(names[k % 20], member)

        def change() -> None:
            for k in range(40):
                assert lab.groups.leave(names[k % 20], members[k])
                lab.groups.join(names[(k + 1) % 20], members[k])

        lines = lines_run(change)
        assert lab.tx(Packet("10.1.0.1", GUEST, UDP, udp(1, 2)), 49) is None
        return lines

    assert lines_of_changes(4000) < 1.5 * lines_of_changes(400)


def lines_run(call: Callable[[], None]) -> int:
    """How many lines of Python a call runs."""
    lines = 0

    def count(frame: object, event: str, argument: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def test_numbers_of_combinations_are_used_again_when_nobody_reads_them() -> None:
    lab = Filtered()
    kept: list[object] = []
    lab.groups.on_moved(kept.append)
    combinations = lab.groups.members.combinations
    for k in range(HANDED):
        lab.groups.join(f"g{k}", octets(REMOTE))
        lab.groups.leave(f"g{k}", octets(REMOTE))
    lab.groups.join("b", octets(REMOTE))
    assert dict(combinations) == {HANDED + 1: frozenset("b")}
    assert len(kept) == 1
    kept.clear()
    lab.groups.join("c", octets(OTHER))
    numbers = dict(combinations)
    assert numbers.pop(HANDED + 1) == frozenset("b")
    (again,) = numbers
    assert 1 <= again <= HANDED


def test_what_is_handed_over_to_be_kept_is_out_of_use() -> None:
    """Whoever keeps it may let it go as soon as workers have ended their pass."""
    lab = Filtered()
    groups, kept = lab.groups, []

    def keep(memory: object) -> None:
        kept.append(type(memory).__name__)
        assert all(port.record["policy"] not in (0, getattr(memory, "address", -1))
                   for port in groups._ports.values())
        assert memory is not groups.members._cells
        assert not any(memory is rules._combinations for policy in groups._policies.values()
                       for rules in policy.sets)

    groups.on_moved(keep)
    groups.set_group("a", [Rule(True, 4, remote_group="g1"), OUT4])
    lab.port(1, "a")
    lab.port(2, "a", "b")
    for k in range(200):
        groups.join(f"g{k}", octets(f"10.1.0.{k}"))
    for k in range(200):
        groups.leave(f"g{k}", octets(f"10.1.0.{k}"))
    groups.set_group("b", [OUT6])
    groups.set_group("a", [OUT6])
    lab.port(2, "a")
    groups.remove_group("a")
    groups.detach(2)
    assert {"Policy", "ndarray", "_Numbers", "_Port"} <= set(kept)


def test_ten_thousand_rules_that_overlap() -> None:
    lab = Filtered()
    n = 1000 if INTERPRETED else 10_000
    rules = [Rule(True, 4, TCP, (k * 5 % 60000, k * 5 % 60000 + 40), remote=ipaddress.ip_network(
        (0x0A000000 + (k << 8), 12 + k % 21), strict=False)) for k in range(n)]
    lab.groups.set_group("many", rules)
    lab.port(1, "many")
    rule = rules[n - 17]
    assert rule.remote is not None
    inside = str(rule.remote[0])
    assert rule.ports is not None
    assert lab.tx(Packet(inside, GUEST, TCP, tcp(1, rule.ports[0], SYN))) is None
    assert lab.tx(Packet("192.0.2.1", GUEST, TCP, tcp(1, rule.ports[0], SYN))) \
        is Reason.NOT_ALLOWED


# ---------------------------------------------------------------- what control is told
