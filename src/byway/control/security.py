# SPDX-License-Identifier: Apache-2.0
"""Security groups of the configuration, and the ports that have them.

Used by policy. Uses switch.groups_control, which compiles rules and keeps connections.

Members of a group, for rules that name one, are the IP addresses of all ports that have it: those
of this switch are told from here, those of other hosts by the population.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

from byway.control.model import GroupConfig, RuleConfig
from byway.control.overlay import Overlay, ip_bytes
from byway.machine.clock import tsc
from byway.ports.port import Port
from byway.switch.fdb import CLOCK_SHIFT
from byway.switch.groups_compile import Rule
from byway.switch.groups_control import PORT_LIMIT, Connection, SecurityGroups

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}


class Security:
    """The security groups of one switch. ``hz``: ticks a second of the time stamp counter;
    ``connections``: that are tracked at the most."""

    def __init__(self, overlay: Overlay, hz: float, connections: int) -> None:
        self.configs: dict[str, GroupConfig] = {}
        self._groups = SecurityGroups(hz / (1 << CLOCK_SHIFT), connections)
        self._groups.on_moved(overlay.keep)
        overlay.on_member(self.member)
        self._members: dict[str, list[tuple[str, bytes]]] = {}  # (group, IP) by port

    # ------------------------------------------------------------ groups
    def set_group(self, config: GroupConfig) -> None:
        """A group with these rules is there, or has these from now on."""
        self._groups.set_group(config.name, rules_of(config))
        self.configs[config.name] = config

    def remove_group(self, name: str) -> None:
        """It is there no more; no port has it."""
        del self.configs[name]
        self._groups.remove_group(name)

    def member(self, group: str, ip: bytes, on: bool) -> None:
        """A port of another host that has the group has this address, or no more."""
        if on:
            self._groups.join(group, ip)
        else:
            self._groups.leave(group, ip)

    # ------------------------------------------------------------ ports
    def attach(self, port: Port) -> int:
        """The port's groups are these from now on; -> what stands in its stages, 0 for none."""
        names = port.config.security_groups
        before = self._members.pop(port.name, [])
        now = [(group, ip_bytes(ip)) for group in names for ip in port.config.known_ips]
        for group, ip in now:
            self._groups.join(group, ip)
        for group, ip in before:
            self._groups.leave(group, ip)
        if now:
            self._members[port.name] = now
        return self.attach_number(port, port.index)

    def attach_number(self, port: Port, number: int) -> int:
        """The port's groups are those of port number ``number``, its own or a sub-port's; -> what
        stands in the stages of that, 0 for none."""
        names, limit = port.config.security_groups, port.config.limit
        most = limit.connections if limit and limit.connections else PORT_LIMIT
        return self._groups.attach(number, names, most) if names else 0

    def detach(self, port: Port) -> None:
        """No worker knows the port, its sub-ports, or its groups, any more."""
        for group, ip in self._members.pop(port.name, []):
            self._groups.leave(group, ip)
        for number in (port.index, *(number for number, _ in port.sub_ports)):
            self._groups.detach(number)

    # ------------------------------------------------------------ connections
    def tick(self) -> None:
        """Once a second: forget what has aged out."""
        self._groups.tick(int(tsc()) >> CLOCK_SHIFT)

    def connections(self, names: dict[int, str], limit: int) -> list[dict[str, Any]]:
        """At most ``limit`` connections of the ports with these numbers."""
        now = int(tsc()) >> CLOCK_SHIFT
        return [_shown(one, names[one.port])
                for one in self._groups.connections(now, names, limit)]


def _shown(one: Connection, port: str) -> dict[str, Any]:
    guest, remote = _end(one.guest, one.guest_port), _end(one.remote, one.remote_port)
    egress = one.opened_by == "guest"
    return {
        "port": port, "direction": "egress" if egress else "ingress", "protocol": one.protocol,
        "source": guest if egress else remote, "destination": remote if egress else guest,
        "state": one.state, "idle": round(one.idle, 1), "left": round(one.left, 1),
    }


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def rules_of(config: GroupConfig) -> Iterable[Rule]:
    """The rules of a group, each once for every family that it is for."""
    return [_rule(rule, version) for rule in config.rules for version in rule.families]


def _rule(rule: RuleConfig, version: int) -> Rule:
    protocol = rule.protocol
    return Rule(
        ingress=rule.direction == "ingress", version=version,
        protocol=PROTOCOLS[protocol] if isinstance(protocol, str) else protocol,
        ports=rule.port_range, icmp_type=rule.icmp_type, icmp_code=rule.icmp_code,
        remote=ipaddress.ip_network(rule.remote) if rule.remote else None,
        remote_group=rule.remote_group)
