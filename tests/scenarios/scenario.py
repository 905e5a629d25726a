# SPDX-License-Identifier: Apache-2.0
"""Scenarios: one text file each, with networks, ports, frames in, frames out, and counters.

Used by test_scenarios.py. A file (TOML) has, in this order:

about       a sentence
[[network]] as in a configuration file
[[port]]    as in a configuration file; kind is "vhost-user" where it is left out, and a guest is
            connected to it (``guest``: options of byway.testing.Guest; ``guest = false``: none).
            ``read`` of a pcap port lists frames, ``write = true`` captures.
[frame]     name = "destination source type len=60", each frame once. Address bytes after a "+"
            count up with every copy sent; "tag=5" puts a VLAN tag in front of the type.
[[step]]    what happens, in this order: ``connect``, ``hang_up``, ``disable`` (lists of ports with
            guests), ``after`` (seconds that pass), ``send`` ("port frame" or "port frame x 10"),
            ``until_up`` (ports to wait for), ``passes`` (that many in one go, with no turn for the
            control thread); then passes until nothing moves, then ``out``: what each port put out.
            A port that is not listed must have put out nothing.
            ``fdb``: the addresses known afterwards, as "network address port".
[counters]  port = "rx=1 tx=2 drop_reason=3", everything that is not 0. Ports that are not listed
            must have counted nothing.
"""

import tomllib
from pathlib import Path
from typing import Any

from byway.machine.clock import measure_hz, tsc
from byway.packet.pcapfile import read_frames, write_frame, write_header
from byway.testing.guest import Guest
from byway.virtio.features import Feature, mask
from tests.running import RunningSwitch

STEP_KEYS = {"connect", "hang_up", "disable", "after", "send", "until_up", "passes", "out", "fdb",
             "fdb_entries"}


def build(text: str, copy: int = 0) -> bytes:
    """The frame that a line describes; ``copy``: which of several."""
    words = text.split()
    destination, source, *tags, kind, length = words
    head = address(destination, copy) + address(source, copy)
    for tag in tags:
        head += bytes.fromhex("8100") + int(tag.removeprefix("tag=")).to_bytes(2, "big")
    head += int(kind, 16).to_bytes(2, "big")
    wanted = int(length.removeprefix("len="))
    return (head + bytes(k % 251 for k in range(wanted)))[:wanted]


def address(text: str, copy: int) -> bytes:
    """6 bytes; with a "+" in front, the number counts up."""
    number = int(text.removeprefix("+").replace(":", ""), 16)
    return (number + (copy if text.startswith("+") else 0)).to_bytes(6, "big")


def sending(text: str) -> tuple[str, str, int]:
    """ "vm1 hello x 3" -> port, frame, copies."""
    port, frame, *times = text.split()
    return port, frame, int(times[1]) if times else 1


def expected(text: str) -> tuple[str, int]:
    """ "hello x 3" -> frame, copies."""
    frame, *times = text.split()
    return frame, int(times[1]) if times else 1


class Scenario:
    """One file, played on a stepped engine."""

    def __init__(self, path: Path) -> None:
        self.script: dict[str, Any] = tomllib.loads(path.read_text())
        self.frames: dict[str, str] = self.script["frame"]
        unknown = {key for step in self.script["step"] for key in step} - STEP_KEYS
        assert not unknown, f"{path.name}: steps have no {sorted(unknown)}"

    def play(self, folder: Path) -> None:
        """Do all steps and check what comes of them; AssertionError says which step is wrong."""
        self.guests: dict[str, Guest] = {}
        self.captured: dict[str, int] = {}
        self.offset = 0.0
        self.hz = measure_hz()
        with RunningSwitch(folder, stepped=True) as self.switch:
            try:
                self._set_up(folder)
                for number, step in enumerate(self.script["step"], 1):
                    self._do(step)
                    self._check(step, f"step {number}")
                self._check_counters()
            finally:
                for guest in self.guests.values():
                    guest.close()

    def _set_up(self, folder: Path) -> None:
        for network in self.script["network"]:
            self.switch.network(**network)
        for number, port in enumerate(self.script["port"], 1):
            options = dict(port)
            kind = options.pop("kind", "vhost-user")
            guest = options.pop("guest", {})
            if "socket" in options:
                options["socket"] = self.switch.socket(options["socket"])
            if kind == "pcap":
                self._files(folder, options)
            self.switch.add(kind, **options)
            if kind == "vhost-user" and guest is not False:
                self._connect(port["name"], number, guest)

    def _files(self, folder: Path, options: dict[str, Any]) -> None:
        name = options["name"]
        if "read" in options:
            path = folder / f"{name}-in.pcap"
            with path.open("wb") as file:
                write_header(file)
                for line in options["read"]:
                    frame, copies = expected(line)
                    for copy in range(copies):
                        write_frame(file, build(self.frames[frame], copy), 0.0)
            options["read"] = str(path)
        if options.pop("write", False):
            options["write"] = str(folder / f"{name}-out.pcap")
            self.captured[name] = 0

    def _connect(self, port: str, number: int, options: dict[str, Any]) -> None:
        options = dict(options)
        names = options.pop("features", [])
        features = mask(*(Feature[name.upper()] for name in names))
        self.guests[port] = self.switch.guest(port, number, features=features, **options)

    # ------------------------------------------------------------ a step
    def _do(self, step: dict[str, Any]) -> None:
        for port in step.get("connect", ()):
            self._connect(port, 99, {})
        for port in step.get("hang_up", ()):
            self.guests.pop(port).close()
            self.switch.until(lambda p=port: self.switch.port(p)["state"] != "up")
        for port in step.get("disable", ()):
            for ring in (0, 1):
                self.guests[port].front.enable_ring(ring, False)
        for port in step.get("until_up", ()):
            self.switch.until(lambda p=port: self.switch.port(p)["state"] == "up")
        if "after" in step:
            self.offset += step["after"] * self.hz
            self.switch.call(self.switch.engine.expire, self._now())
        for line in step.get("send", ()):
            port, frame, copies = sending(line)
            frames = [build(self.frames[frame], copy) for copy in range(copies)]
            assert self.guests[port].send(frames) == copies
        self.switch.step(step.get("passes", 0), self._now())
        self.switch.settle(self._now())

    def _now(self) -> int:
        return int(tsc()) + int(self.offset)

    def _put_out(self, port: str) -> list[bytes]:
        """What came out of a port since it was asked before."""
        if port in self.guests:
            return self.guests[port].receive(1 << 20)
        if port in self.captured:
            for _ in range(3):  # turns of the control thread, which writes the file
                self.switch.call(lambda: None)
            frames = list(read_frames(self.switch.folder / f"{port}-out.pcap"))
            seen, self.captured[port] = self.captured[port], len(frames)
            return frames[seen:]
        return []

    def _check(self, step: dict[str, Any], where: str) -> None:
        out = step.get("out", {})
        for port in [*self.guests, *self.captured]:
            wanted = []
            for line in out.get(port, ()):
                frame, copies = expected(line)
                wanted += [build(self.frames[frame], copy) for copy in range(copies)]
            got = self._put_out(port)
            assert [f.hex() for f in got] == [f.hex() for f in wanted], f"{where}: {port}"
        self._check_fdb(step, where)

    def _check_fdb(self, step: dict[str, Any], where: str) -> None:
        if "fdb" in step:
            found = {f"{e['network']} {e['mac']} {e['port']}"
                     for e in self.switch.call(self.switch.engine.fdb, None)}
            assert found == set(step["fdb"]), where
        if "fdb_entries" in step:
            counts = {n["name"]: n["fdb_entries"]
                      for n in self.switch.call(self.switch.engine.networks)}
            assert counts == step["fdb_entries"], where

    def _check_counters(self) -> None:
        wanted = self.script["counters"]
        for status in self.switch.call(self.switch.engine.ports):
            found = {"rx": status["rx_frames"], "tx": status["tx_frames"], **status["drops"]}
            counted = " ".join(f"{k}={n}" for k, n in found.items() if n)
            assert counted == wanted.get(status["name"], ""), f"counters of {status['name']}"
