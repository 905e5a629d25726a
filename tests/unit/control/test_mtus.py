# SPDX-License-Identifier: Apache-2.0
"""The MTUs that nobody wrote."""

import pytest

from byway.control.diff import Change
from byway.control.model import Config, NetworkConfig, NullPort, SwitchConfig, UnderlayConfig
from byway.control.mtus import with_mtus
from byway.control.problem import ConfigError
from byway.control.wanted import Wanted
from tests.unit.control.fake_engine import FakeEngine

PLAIN = NetworkConfig(name="plain")
BLUE = NetworkConfig(name="blue", vni=1)
FIXED = NetworkConfig(name="fixed", vni=2, mtu=1200)


def config(underlay: UnderlayConfig | None, *ports: NullPort) -> Config:
    return Config(underlay=underlay, networks=(PLAIN, BLUE, FIXED), ports=ports)


def mtus(made: Config) -> list[int]:
    return [network.mtu for network in made.networks]


@pytest.mark.parametrize(("address", "mtu", "left"), [
    ("192.0.2.1", 1500, 1450), ("fd00::1", 1500, 1430), ("192.0.2.1", 9050, 9000),
    ("192.0.2.1", 65535, 9216)])
def test_a_network_is_as_large_as_tunnels_leave_it(address: str, mtu: int, left: int) -> None:
    made = with_mtus(config(UnderlayConfig(address=address)), lambda asked: {address: mtu}[asked])
    assert mtus(made) == [1500, left, 1200]
    assert made.underlay is not None
    assert made.underlay.mtu == mtu


def test_without_an_underlay_nobody_is_asked() -> None:
    assert mtus(with_mtus(config(None), lambda _: 1 // 0)) == [1500, 1500, 1200]


def test_what_is_written_is_not_asked() -> None:
    made = with_mtus(config(UnderlayConfig(address="192.0.2.1", mtu=2000)), lambda _: 1 // 0)
    assert mtus(made) == [1500, 1950, 1200]


def test_an_uplink_has_the_mtu_of_its_network() -> None:
    underlay = UnderlayConfig(address="192.0.2.1", uplink="wire")
    wire = NullPort(name="wire", network="plain", kind="null")
    assert mtus(with_mtus(config(underlay, wire), lambda _: 1 // 0)) == [1500, 1450, 1200]


def test_an_address_that_nobody_has() -> None:
    with pytest.raises(ConfigError, match='underlay: address: no interface of this host has "192'):
        with_mtus(config(UnderlayConfig(address="192.0.2.1")), lambda _: None)


def test_a_kernel_that_does_not_answer() -> None:
    def ask(_: str) -> int:
        raise OSError(1, "no")

    with pytest.raises(ConfigError, match="underlay: mtu: cannot be asked from the kernel"):
        with_mtus(config(UnderlayConfig(address="192.0.2.1")), ask)


def test_what_is_filled_in_was_not_written() -> None:
    made = with_mtus(config(UnderlayConfig(address="192.0.2.1")), lambda _: 1500)
    assert made.networks[1].model_dump(exclude_unset=True) == {"name": "blue", "vni": 1}
    again = with_mtus(made, lambda _: 9050)
    assert mtus(again) == [1500, 9000, 1200]


def test_a_network_of_the_api_gets_its_mtu_and_the_same_again_is_no_change() -> None:
    engine = FakeEngine(SwitchConfig())
    wanted = Wanted(engine, SwitchConfig(), ask=lambda _: 1500)
    wanted.change(Config(underlay=UnderlayConfig(address="192.0.2.1")))
    for _ in range(2):
        wanted.alter(Change(add_networks=[BLUE]))
    assert [network["mtu"] for network in engine.networks()] == [1450]
    assert len(engine.applied) == 2
    with pytest.raises(ConfigError, match="is 1451, but the underlay's is 1500 and a tunnel takes"):
        wanted.alter(Change(add_networks=[NetworkConfig(name="x", vni=9, mtu=1451)]))


def test_a_larger_underlay_opens_ports_again() -> None:
    engine = FakeEngine(SwitchConfig())
    answers = iter([1500, 9050])
    wanted = Wanted(engine, SwitchConfig(), ask=lambda _: next(answers))
    file = config(UnderlayConfig(address="192.0.2.1"), NullPort(
        name="a", network="blue", kind="null"), NullPort(name="b", network="plain", kind="null"))
    wanted.change(file)
    made = wanted.change(file)
    assert [type(action).__name__ for action in made] == [
        "SetUnderlay", "RemovePort", "RemoveNetwork", "AddNetwork", "AddPort", "SetUnderlay"]
