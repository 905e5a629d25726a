# SPDX-License-Identifier: Apache-2.0
"""The MTUs that nobody wrote: the underlay's, from the kernel; a network's, from the underlay.

Used by wanted, before anything is compared or checked. Uses the model and the machine.

A value that is filled in is not one that was written (`model_fields_set`): the state file does not
keep it, and it is filled in anew whenever the whole configuration is.
"""

from collections.abc import Callable
from typing import TypeVar

from byway.control.model import Config, NetworkConfig, UnderlayConfig
from byway.control.problem import ConfigError, Problem
from byway.machine.addresses import mtu_of_address

MAX_MTU = 9216  # bytes, of a network
# The MTU of the interface that has an address; None: there is none such.
Ask = Callable[[str], int | None]

Table = TypeVar("Table", NetworkConfig, UnderlayConfig)


def with_mtus(config: Config, ask: Ask = mtu_of_address) -> Config:
    """The configuration with every MTU in it. Raises ConfigError: the kernel cannot tell."""
    if config.underlay is None:
        return config
    underlay = _with_underlay_mtu(config, config.underlay, ask)
    return config.model_copy(update={
        "underlay": underlay,
        "networks": tuple(with_mtu(network, underlay) for network in config.networks)})


def with_mtu(network: NetworkConfig, underlay: UnderlayConfig | None) -> NetworkConfig:
    """A network as large as its tunnels leave it, where nobody wrote how large it is."""
    if underlay is None or underlay.mtu is None or network.vni is None \
            or "mtu" in network.model_fields_set:
        return network
    return _filled(network, min(underlay.mtu - underlay.overhead, MAX_MTU))


def _with_underlay_mtu(config: Config, underlay: UnderlayConfig, ask: Ask) -> UnderlayConfig:
    if "mtu" in underlay.model_fields_set and underlay.mtu is not None:
        return underlay
    if underlay.uplink is not None:
        networks = {network.name: network.mtu for network in config.networks}
        of = next((p.network for p in config.ports if p.name == underlay.uplink), None)
        # A port or network that is not there is told of by the checks that follow.
        return _filled(underlay, networks.get(of or "", 1500))
    try:
        mtu = ask(underlay.address)
    except OSError as error:
        raise ConfigError([Problem("underlay: mtu", f"cannot be asked from the kernel ({error})",
                                   "write it")]) from None
    if mtu is None:
        raise ConfigError([Problem(
            "underlay: address", f'no interface of this host has "{underlay.address}"',
            "configure it first, or write the address that this host has")])
    return _filled(underlay, min(mtu, 65535))


def _filled(table: Table, mtu: int) -> Table:
    return type(table).model_construct(
        _fields_set=set(table.model_fields_set), **{**dict(table), "mtu": mtu})
