# SPDX-License-Identifier: Apache-2.0
"""A Linux guest under QEMU, emulated (TCG), with vhost-user network cards and a serial shell.

Used by the QEMU tests. The guest's memory is a shared memfd; QEMU connects to the switch's socket
and connects again by itself (`reconnect=1`) when the switch went away. The cards have no MSI-X
(`vectors=0`): with it, QEMU 7.2 crashes under emulation when a vhost-user driver starts.
"""

import json
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.system.peers.process import PeerError, Process, wait_until

PROGRAM = "qemu-system-x86_64"
MODULES = ["virtio_pci", "virtio_net", "8021q"]
MEMORY_MIB = 192
IOMMU = ["-device", "intel-iommu,intremap=off,device-iotlb=on"]  # before the cards: they join it


@dataclass(frozen=True)
class Card:
    """A network card: `options` are those of QEMU's virtio-net-pci, `queues` its queue pairs.

    With ats=on it stands behind a port of its own: only there it is a PCIe device, whose guest
    says when a translation is no longer valid.
    """

    socket: Path
    mac: str
    options: str = ""
    queues: int = 1

    def arguments(self, index: int) -> list[str]:
        """QEMU's arguments for it."""
        queues = f",queues={self.queues}" if self.queues > 1 else ""
        device = f"virtio-net-pci,id=d{index},netdev=n{index},mac={self.mac},romfile=,vectors=0"
        port = []
        if "ats=on" in self.options:
            port = ["-device", f"pcie-root-port,id=r{index},chassis={index}"]
            device += f",bus=r{index}"
        return [
            *port,
            *("-chardev", f"socket,id=c{index},path={self.socket},reconnect=1"),
            *("-netdev", f"vhost-user,id=n{index},chardev=c{index}{queues}"),
            *("-device", ",".join(filter(None, [device, self.options]))),
        ]


@dataclass(frozen=True)
class Machine:
    """What a guest has besides its cards. `incoming`: where a migration comes from, a URI.

    With `iommu`, the guest's kernel maps all of its memory once and for all (iommu=pt).
    """

    memory: int = MEMORY_MIB
    cpus: int = 1
    iommu: bool = False
    incoming: str = ""

    def arguments(self) -> list[str]:
        """QEMU's arguments for it."""
        kind = "q35,kernel-irqchip=split" if self.iommu else "q35"
        argv = ["-M", kind, "-accel", "tcg,thread=multi", "-cpu", "max"]
        argv += ["-smp", str(self.cpus), "-m", str(self.memory)]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
        argv += ["-object", f"memory-backend-memfd,id=m0,size={self.memory}M,share=on"]
        argv += ["-machine", "memory-backend=m0"]
        argv += IOMMU if self.iommu else []
        return argv + (["-incoming", self.incoming] if self.incoming else [])


class Vm(Process):
    """A running guest. `address` goes to its first card: IPv4 with prefix length, or nothing."""

    def __init__(
        self,
        name: str,
        folder: Path,
        kernel: Path,
        initramfs: Path,
        cards: Iterable[Card],
        address: str = "",
        machine: Machine | None = None,
    ) -> None:
        self.qmp_path = folder / f"{name}.qmp"
        self.commands = 0
        machine = machine or Machine()
        argv = [PROGRAM, *machine.arguments()]
        argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        for index, card in enumerate(cards):
            argv += card.arguments(index)
        argv += ["-kernel", str(kernel), "-initrd", str(initramfs)]
        words = ["console=ttyS0 quiet", f"address={address}" if address else ""]
        words.append("intel_iommu=on iommu=pt" if machine.iommu else "")
        argv += ["-append", " ".join(filter(None, words))]
        # What QEMU itself says would come in between what the guest's shell says.
        errors = folder / f"{name}-qemu.log"
        super().__init__(name, argv, folder / f"{name}.log", errors=errors)

    def ready(self, timeout: float = 90.0) -> None:
        """Wait for the shell, which says a word or two first."""
        self.expect(r"SHELL-UP [\d.]+\n.*job control turned off\n", timeout)

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command; its output. PeerError if it fails."""
        return self.finish(self.begin(command), timeout)

    def background(self, command: str) -> None:
        """Run a shell command beside others, from now on; nothing is heard of it.

        It is no child of the shell: busybox's takes the end of a child for the end of its input.
        """
        self.run(f"(({command}) </dev/null >/dev/null 2>&1 &)")

    def begin(self, command: str) -> tuple[str, int, int]:
        """Start a shell command; what `finish` takes. One at a time."""
        self.commands += 1
        self.mark = len(self.output())
        # The quotes keep the shell's echo of the command from looking like the end.
        self.write(f'{command}\necho "END"{self.commands}":$?"\n')
        return command, self.commands, self.mark

    def finish(self, begun: tuple[str, int, int], timeout: float = 60.0) -> str:
        """Wait for the end of a command; its output. PeerError if it fails."""
        command, number, begin = begun
        found = self.expect(rf"END{number}:(\d+)\n", timeout)
        text = self.output()[begin : found.start()].strip()
        if found.group(1) != "0":
            raise self.error(f"{command!r} ended with {found.group(1)}")
        return text

    def interface(self, mac: str) -> str:
        """The name of the card with this address."""
        return self.run(f"grep -l {mac} /sys/class/net/eth*/address").split("/")[4]

    def ping(self, address: str, count: int, timeout: float = 60.0, options: str = "") -> int:
        """The number of replies to `count` echo requests, one every 20 ms."""
        text = self.run(f"ping -q -c {count} -i 0.02 -W 5 {options} {address} || true", timeout)
        found = re.search(r"(\d+) packets transmitted, (\d+) packets received", text)
        if found is None:
            raise self.error(f"ping said {text!r}")
        return int(found.group(2))

    def serve(self, file: str, port: int) -> None:
        """Send a file to everybody who connects to a TCP port, from now on."""
        self.background(f"nc -ll -p {port} -e cat {file}")

    def fetch(self, address: str, port: int, timeout: float = 60.0) -> str:
        """The MD5 sum of what `serve` sends there."""
        return self.run(f"nc {address} {port} </dev/null | md5sum", timeout).split()[0]

    def reboot(self) -> None:
        """Reboot from inside, and wait for the shell."""
        self.skip()
        self.write("reboot -f\n")
        self.ready()

    def qmp(self, command: str, **arguments: object) -> object:
        """Give one QMP command on a connection of its own; its result."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            wait_until(self.qmp_path.exists, f"{self.qmp_path}", 10)
            sock.connect(str(self.qmp_path))
            lines = sock.makefile("rw")
            lines.readline()  # the greeting
            for name, given in (("qmp_capabilities", {}), (command, arguments)):
                lines.write(json.dumps({"execute": name, "arguments": given}) + "\n")
                lines.flush()
                while "event" in (answer := json.loads(lines.readline())):
                    pass
            if "return" not in answer:
                raise PeerError(f"{self.name}: QMP {command}: {answer}")
            return answer["return"]


def version() -> str:
    """QEMU's version, as in "7.2.22"."""
    text = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+(?:\.\d+)+)", text)
    if found is None:
        raise PeerError(f"{PROGRAM} --version says {text!r}")
    return found.group(1)
