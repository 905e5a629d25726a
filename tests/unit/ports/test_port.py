# SPDX-License-Identifier: Apache-2.0
"""What all kinds of ports share: states, trouble, status; the null port."""

import pytest

from byway.control.opening import PORT_CLASSES
from byway.ports.port import Port, PortError
from byway.ports.record import P
from byway.virtio.ring import RingError
from tests.running import RunningSwitch


def test_an_error_names_key_problem_and_fix() -> None:
    error = PortError("socket", "is too long", "take a shorter one")
    assert str(error) == "socket: is too long; take a shorter one"
    assert str(PortError("read", "is empty", "")) == "read: is empty"


def test_the_null_port(switch: RunningSwitch) -> None:
    switch.add("null", "sink", mac="02:00:00:00:00:05")
    status = switch.port("sink")
    expected = {
        "name": "sink", "network": "blue", "kind": "null", "state": "up", "reason": "", "index": 0,
        "mac": "02:00:00:00:00:05", "queues": 1, "mtu": 1500,
        "features": {"offered": [], "acked": [], "off": {}}, "rx_frames": 0, "rx_bytes": 0,
        "tx_frames": 0,
        "tx_bytes": 0, "drops": {}, "peer": None}
    assert {key: status[key] for key in expected} == expected


def port(switch: RunningSwitch, name: str = "sink") -> Port:
    return switch.engine._ports[name]


def test_the_record_is_what_kernels_see(switch: RunningSwitch) -> None:
    switch.add("null", "first")
    switch.add("null", "sink")
    made = port(switch)
    row = made.record[0]
    assert (row["index"], row["ntx"], row["fault"], row["error"]) == (1, 1, 0, 0)
    assert row["alarm"] == switch.engine.alarm
    assert made.fault_flag - made.address == P.fault


OPTIONS = {
    "vhost-kernel": {"ifname": "none"}, "tap": {"ifname": "none"}, "null": {},
    "vhost-user": {}, "virtio-user": {}, "pcap": {"write": "none/out.pcap"},
    "af-packet": {"ifname": "none"}, "af-xdp": {"ifname": "none"},
    "udp": {"local": "127.0.0.1:9", "remote": "127.0.0.1:10"}}


@pytest.mark.parametrize("kind", PORT_CLASSES)
def test_one_that_was_never_opened_is_shown_and_closed(
        switch: RunningSwitch, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(switch.engine.functions, "why_shut", lambda port: "not yet")
    for name in ("a", "b"):
        switch.add(kind, name, **OPTIONS[kind])
    assert switch.port("a")["reason"] == "not yet"
    switch.remove("a")
    switch.call(port(switch, "b").close)
    switch.call(port(switch, "b").close)
    switch.close()


@pytest.mark.parametrize("error", list(RingError))
def test_trouble_in_words(switch: RunningSwitch, error: RingError) -> None:
    switch.add("null", "sink")
    port(switch).record["error"] = int(error)
    assert port(switch).trouble() == f"the peer's virtqueue is broken: {error.sentence}"
    switch.step()
    assert switch.port("sink")["state"] == "down"
    assert switch.port("sink")["reason"] == f"the peer's virtqueue is broken: {error.sentence}"
    assert port(switch).trouble() == ""


def test_a_fault_weighs_more_than_an_error(switch: RunningSwitch) -> None:
    switch.add("null", "sink")
    port(switch).record["error"] = int(RingError.BAD_HEAD)
    port(switch).record["fault"] = 1
    assert port(switch).trouble() == "the peer truncated the memory that it shares"


def test_a_kind_has_to_say_how_it_opens(switch: RunningSwitch) -> None:
    switch.add("null", "sink")
    made = Port(port(switch).config, 7, switch.engine, 1500)
    assert made.details() == {}
    for method in (made.open, made.close):
        with pytest.raises(NotImplementedError):
            method()
