# SPDX-License-Identifier: Apache-2.0
"""An overlay that keeps plain dicts, and refuses what would tear a hole: used by the population's
and the cluster's tests in place of the data path."""


class FakeOverlay:
    """What the data path would have. `calls` is what it was told, in order."""

    def __init__(self) -> None:
        self.tunnels: dict[str, str] = {}
        self.floods: set[tuple[str, str]] = set()
        self.entries: dict[tuple[str, int], tuple[tuple[bytes, ...], str | None]] = {}
        self.members: list[tuple[str, bytes]] = []
        self.calls: list[tuple[object, ...]] = []

    def set_tunnel(self, host: str, address: str) -> None:
        """A tunnel; no other host has its address."""
        assert all(at != address for name, at in self.tunnels.items() if name != host)
        self.tunnels[host] = address
        self.calls.append(("set_tunnel", host, address))

    def drop_tunnel(self, host: str) -> None:
        """A tunnel that nothing goes to any more."""
        assert all(at != host for _, at in self.entries.values()), "entries before their tunnel"
        assert all(at != host for _, at in self.floods), "floods before their tunnel"
        del self.tunnels[host]
        self.calls.append(("drop_tunnel", host))

    def flood(self, network: str, host: str, on: bool) -> None:
        """A member of a network that has a tunnel, told once."""
        assert host in self.tunnels
        assert ((network, host) in self.floods) != on, "told twice"
        (self.floods.add if on else self.floods.discard)((network, host))
        self.calls.append(("flood", network, host, on))

    def set_entry(self, network: str, mac: int, ips: tuple[bytes, ...], host: str | None,
                  gone: tuple[bytes, ...] = ()) -> None:
        """An entry, through a tunnel that is there; `gone` is exactly what it had besides."""
        had = self.entries.get((network, mac), ((), None))[0]
        assert set(gone) == set(had) - set(ips)
        assert host is None or host in self.tunnels, "an entry without its tunnel"
        assert self.entries.get((network, mac)) != (ips, host), "told twice"
        assert all(len(ip) == 16 for ip in ips)
        self.entries[network, mac] = (ips, host)
        self.calls.append(("set_entry", network, mac, ips, host))

    def drop_entry(self, network: str, mac: int, ips: tuple[bytes, ...]) -> None:
        """An entry that is there, with the addresses that it has."""
        assert self.entries.pop((network, mac))[0] == ips
        self.calls.append(("drop_entry", network, mac))

    def member(self, group: str, ip: bytes, on: bool) -> None:
        """A member joins, or one that is there leaves."""
        (self.members.append if on else self.members.remove)((group, ip))

    def forget_network(self, network: str) -> None:
        """The switch took the network away, and all that the data path had of it."""
        self.entries = {at: told for at, told in self.entries.items() if at[0] != network}
        self.floods = {at for at in self.floods if at[0] != network}
