# SPDX-License-Identifier: Apache-2.0
"""The memory of services (service.py), and which appliance does which part of their work.

Used by control (services.py there) and tests; uses population.py.

Who does the frames of a slot is chosen by *rendezvous*: each appliance draws a number for each slot
by hashing both names, and the highest that works has it. So one that fails leaves its slots to the
others, nobody else's flows move, and they come back with it.

All methods belong to the control thread. Where a record that workers know is let go of, whoever
holds it waits until each has ended its pass.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from byway.machine.dual import signed
from byway.machine.layout import address_of, alloc
from byway.switch.fdb import MAX_PORTS
from byway.switch.population import Population
from byway.switch.service import (
    ADDRESSES,
    BACK,
    BYPASS,
    HOMES,
    MOST,
    PROBE,
    PROBE_BYTES,
    SERVICE,
    SLOT_USED,
    SLOTS,
    STEPS,
    STEPS_FIRST,
)

_WORD = np.dtype("<i8")
SHORTEST = 60  # bytes of a frame on a wire, without FCS


class Homes:
    """Which addresses the ports with services have. One for a switch."""

    def __init__(self, seed: int | None = None) -> None:
        self.population = Population(seed=seed)
        self._steps = alloc(_WORD, MAX_PORTS + 1)
        self.record = alloc(HOMES, 1)
        self.record["homes"], self.record["steps"] = self.population.address, address_of(
            self._steps)
        self.address = address_of(self.record)

    def settle_in(self, steps: "Steps", macs: Sequence[int]) -> None:
        """A port has services, and these addresses. PopulationFullError: there is no room for all;
        the port has services nevertheless, until it is to ``leave``."""
        self._steps[steps.port] = steps.address
        for mac in macs:
            self.population.set_mac(steps.network, mac, steps.port)

    def forget(self, network: int, port: int, macs: Sequence[int]) -> None:
        """The port does not have these addresses any more."""
        for mac in macs:
            self.population.drop_mac(network, mac, port)

    def leave(self, port: int) -> None:
        """The port has no services any more."""
        self._steps[port] = 0


class Service:
    """A service with its appliances. Nothing passes as long as none of them works."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secret = secrets.token_bytes(8)
        self._slots = alloc(_WORD, SLOTS)
        self._draws: dict[str, list[bytes]] = {}  # of appliances, for each slot
        self.record = alloc(SERVICE, 1)
        self.record["slots"] = address_of(self._slots)
        self.address = address_of(self.record)

    def choose(self, *, bypass: bool, addresses: bool) -> None:
        """``bypass``: where no appliance works, frames go on without the service, else they are
        dropped. ``addresses``: a flow is all that two addresses exchange, whatever the ports."""
        self.record["flags"] = bypass * BYPASS | addresses * ADDRESSES

    def spread(self, working: Sequence[tuple[str, int, int]]) -> None:
        """These appliances work: name, and numbers of the left and right port."""
        words = {name: SLOT_USED | right << 16 | left for name, left, right in working}
        draws = self._draws = {name: self._draws.get(name) or _draws(name) for name in words}
        for slot in range(SLOTS):
            best = max(words, key=lambda name: draws[name][slot], default=None)
            self._slots[slot] = words[best] if best is not None else 0

    def share(self, left: int) -> int:
        """How many of the slots an appliance has that has this left port."""
        return int(np.count_nonzero((self._slots != 0) & (self._slots & 0xFFFF == left)))

    def statistics(self) -> dict[str, int]:
        """Frames that found no appliance: ``bypassed`` and ``blocked``."""
        return {name: int(self.record[name][0]) for name in ("bypassed", "blocked")}

    def probe(self, number: int) -> bytes:
        """The frame that asks an appliance whether it works; its ends are nobody's."""
        made = b"\x02" + self.secret[:5] + b"\x02" + self.secret[3:]
        made += PROBE.to_bytes(2, "big") + self.secret + number.to_bytes(8, "big")
        assert len(made) == PROBE_BYTES
        return made.ljust(SHORTEST, b"\0")


class Steps:
    """What a port with services has; ``services`` from the port outwards."""

    def __init__(self, homes: Homes, network: int, port: int, services: Sequence[Service]) -> None:
        if len(services) > MOST:
            raise ValueError(f"a port has {MOST} services at the most, not {len(services)}")
        self.network, self.port = network, port
        self._kept: tuple[Any, ...] = (homes, *services)
        self.record = alloc(STEPS, 1)
        row = self.record[0]
        row["known"], row["network"], row["port"] = homes.address, network, port
        row["count"] = len(services)
        words = self.record.view(_WORD)
        for k, service in enumerate(services, STEPS_FIRST // 8):
            words[k] = service.address
        self.address = address_of(self.record)


class Back:
    """What an appliance's port has: frames come back there. ``side``: LEFT or RIGHT."""

    def __init__(self, homes: Homes, service: Service, side: int, network: int, port: int) -> None:
        self._kept = homes, service
        self._heard = alloc(_WORD, 1)
        self.record = alloc(BACK, 1)
        row = self.record[0]
        row["known"], row["service"], row["side"] = homes.address, service.address, side
        row["network"], row["port"] = network, port
        row["secret"] = signed(int.from_bytes(service.secret, "big"))
        row["heard"] = address_of(self._heard)
        self.address = address_of(self.record)

    def is_like(self, other: "Back") -> bool:
        """Is it the same side of the same service, on the same port?"""
        same = ("known", "service", "side", "network", "port", "secret")
        return all(int(self.record[name][0]) == int(other.record[name][0]) for name in same)

    @property
    def heard(self) -> int:
        """The number of the last probe that came back here; 0: none yet."""
        return int(self._heard[0])


def _draws(name: str) -> list[bytes]:
    return [hashlib.blake2b(f"{slot}/{name}".encode(), digest_size=8).digest()
            for slot in range(SLOTS)]
