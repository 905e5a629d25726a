# SPDX-License-Identifier: Apache-2.0
"""What the network's configuration says to this plugin, checked: every problem is code 7.

Used by the verbs. The keys are described in docs/reference/cni.md.

Wishes for one attachment (its MAC, its addresses) can come three ways. The nearest to the runtime
wins: runtimeConfig (capabilities), then args.cni, then CNI_ARGS.
"""

import ipaddress
import re
from typing import Any, NamedTuple

from byway_cni.call import Call, valid_ifname
from byway_cni.problem import CniError, Code

STATE = "/var/lib/byway/cni.db"
OWN_IPAM = ("byway", "byway-cni")  # the names under which addresses are had in process
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class PortMapping(NamedTuple):
    """A published port: frames for host:host_port go to container_port of the container."""

    protocol: str
    host: str  # an address of this host, or empty for all
    host_port: int
    container_port: int


class Settings(NamedTuple):
    """The plugin's configuration for one call."""

    network: str  # of the switch
    vni: int | None
    mtu: int | None  # bytes
    api: str  # empty: found like the commands find it
    state: str
    ipam: dict[str, Any]  # empty: no addresses
    gateway: bool  # an interface of this host has the gateway's address
    default_route: bool
    masquerade: bool
    gateway_interface: str
    mac: str  # empty: the plugin chooses
    ips: tuple[str, ...]
    mappings: tuple[PortMapping, ...]
    bandwidth: dict[str, int]
    dns: dict[str, Any]

    @property
    def own_ipam(self) -> bool:
        """Whether Byway's own pools give the addresses."""
        return self.ipam.get("type") in OWN_IPAM


def read_settings(call: Call) -> Settings:
    """The settings of a call; CniError with code 7 names the key."""
    config = call.config
    runtime = _table(config, "runtimeConfig")
    wishes = _table(_table(config, "args"), "cni")
    network = _text(config, "network") or call.network
    if not _NETWORK.fullmatch(network):
        raise wrong("network", network, "write 1 to 63 letters, digits, '_', '.' and '-'")
    ipam = _table(config, "ipam")
    if ipam and not isinstance(ipam.get("type"), str):
        raise wrong("ipam.type", ipam.get("type"), 'write "byway", or the name of an IPAM plugin')
    masquerade = _flag(config, "ipMasq")
    default_route = _flag(config, "isDefaultGateway")
    interface = _text(config, "gatewayInterface") or f"byw-{network}"[:15]
    if not valid_ifname(interface):
        raise wrong("gatewayInterface", interface, "write the name of an interface: 1 to 15 bytes")
    return Settings(
        network=network,
        vni=_number(config, "vni", 1, 0xFFFFFF),
        mtu=_number(config, "mtu", 68, 9216),
        api=_text(config, "api"),
        state=_text(config, "state") or STATE,
        ipam=ipam,
        gateway=_flag(config, "isGateway") or default_route or masquerade,
        default_route=default_route,
        masquerade=masquerade,
        gateway_interface=interface,
        mac=_mac(_text(runtime, "mac") or _text(wishes, "mac") or call.arguments.get("MAC", "")),
        ips=_ips(runtime, wishes, call),
        mappings=_mappings(runtime),
        bandwidth=_bandwidth(runtime),
        dns=_table(runtime, "dns") or _table(config, "dns"),
    )


def wrong(key: str, value: object, fix: str) -> CniError:
    """The error for one key of the configuration."""
    return CniError(Code.CONFIGURATION, f"{key} is {str(value)[:60]!r}", fix)


def _string(value: object) -> str:
    """A text, for functions that would take a number as well. ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(key, value, "write a JSON object")
    return value


def _text(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise wrong(key, value, "write a string")
    return value


def _flag(config: dict[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise wrong(key, value, "write true or false")
    return value


def _number(config: dict[str, Any], key: str, low: int, high: int) -> int | None:
    value = config.get(key)
    if value is None or (value == 0 and key == "mtu"):  # 0 is what other plugins' users write
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(key, value, f"write a number from {low} to {high}")
    return value


def _mac(value: str) -> str:
    mac = value.lower().replace("-", ":")
    if mac and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00"):
        raise wrong("mac", value, 'write a unicast address as in "02:00:00:00:00:01"')
    return mac


def _ips(runtime: dict[str, Any], wishes: dict[str, Any], call: Call) -> tuple[str, ...]:
    for value in (runtime.get("ips"), wishes.get("ips"),
                  [text for text in call.arguments.get("IP", "").split(",") if text]):
        if value:
            break
    if not value:
        return ()
    if not isinstance(value, list):
        raise wrong("ips", value, "write a list of addresses")
    for text in value:
        try:
            ipaddress.ip_interface(_string(text))
        except ValueError:
            raise wrong("ips", text, 'write addresses as in "10.0.0.2" or "10.0.0.2/24"') from None
    return tuple(value)


def _mappings(runtime: dict[str, Any]) -> tuple[PortMapping, ...]:
    value = runtime.get("portMappings")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise wrong("portMappings", value, "write a list")
    return tuple(_mapping(entry) for entry in value)


def _mapping(entry: object) -> PortMapping:
    if not isinstance(entry, dict):
        raise wrong("portMappings", entry, "write a list of objects")
    # Some runtimes write HostPort for hostPort.
    found = {key.lower(): value for key, value in entry.items()}
    protocol = str(found.get("protocol") or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise wrong("portMappings.protocol", protocol, 'write "tcp", "udp" or "sctp"')
    ports = [_number(found, key, 1, 65535) for key in ("hostport", "containerport")]
    if None in ports:
        raise wrong("portMappings", entry, "write hostPort and containerPort")
    host = found.get("hostip") or ""
    try:
        if host:
            ipaddress.ip_address(_string(host))
    except ValueError:
        raise wrong("portMappings.hostIP", host, "write an address of this host") from None
    return PortMapping(protocol, str(host), ports[0] or 0, ports[1] or 0)


def _bandwidth(runtime: dict[str, Any]) -> dict[str, int]:
    found = _table(runtime, "bandwidth")
    rates = {}
    for key in ("ingressRate", "ingressBurst", "egressRate", "egressBurst"):
        value = found.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
            raise wrong(f"bandwidth.{key}", value, "write bits (a second)")
        rates[key] = value
    for way in ("ingress", "egress"):
        if rates[f"{way}Burst"] and not rates[f"{way}Rate"]:
            raise wrong(f"bandwidth.{way}Burst", rates[f"{way}Burst"],
                        f"give the {way}Rate as well, in bits a second")
    return {key: value for key, value in rates.items() if value}
