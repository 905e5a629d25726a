# SPDX-License-Identifier: Apache-2.0
"""What this host writes of itself, without etcd and without its thread.

With both: tests/system/test_cluster*.py."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from byway.control.cluster.etcd import Access
from byway.control.cluster.layout import Layout
from byway.control.cluster.presence import Presence

LEASE = 5


class FakeEtcd:
    """Carries out every change; `keys`: what was written."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.changes = 0

    def change(self, _conditions: Sequence[Any], operations: Sequence[Any]) -> tuple[bool, int]:
        self.changes += 1
        for operation in operations:
            one = operation.request_put
            assert one.lease == LEASE
            self.keys[one.key.decode()] = json.loads(one.value)
        return True, 10 + self.changes


@pytest.fixture
def etcd() -> FakeEtcd:
    return FakeEtcd()


@pytest.fixture
def presence(etcd: FakeEtcd) -> Presence:
    said: list[str] = []
    made = Presence(Access(("192.0.2.9:1",)), Layout("/byway"), "a", "192.0.2.1", 10,
                    said.append, lambda: None)
    made._etcd.close()
    made._etcd = etcd  # type: ignore[assignment]
    return made


def test_another_address_is_written_once(presence: Presence, etcd: FakeEtcd) -> None:
    presence.set_networks(("blue",))
    presence._write(LEASE)
    assert etcd.keys["/byway/hosts/a"]["address"] == "192.0.2.1"
    presence.set_address("192.0.2.8")
    assert presence._work.is_set()  # the thread is woken
    presence._write(LEASE)
    assert etcd.keys["/byway/hosts/a"]["address"] == "192.0.2.8"
    assert etcd.keys["/byway/hosts/a"]["networks"] == ["blue"]
    presence.set_address("192.0.2.8")
    presence._write(LEASE)
    assert etcd.changes == 2
