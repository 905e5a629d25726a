# SPDX-License-Identifier: Apache-2.0
"""A Linux guest under QEMU, emulated (TCG), with a vhost-user network card and a serial shell.

Used by the QEMU tests. The guest's memory is a shared memfd; QEMU connects to the switch's socket
and connects again by itself (`reconnect=1`) when the switch went away. The card has no MSI-X
(`vectors=0`): with it, QEMU 7.2 crashes under emulation when a vhost-user driver starts.
"""

import json
import re
import socket
from pathlib import Path

from tests.system.peers.process import PeerError, Process, wait_until

PROGRAM = "qemu-system-x86_64"
MODULES = ["virtio_pci", "virtio_net"]
MEMORY_MIB = 192


class Vm(Process):
    """A running guest. `address` is its IPv4 address with prefix length."""

    def __init__(
        self,
        name: str,
        folder: Path,
        kernel: Path,
        initramfs: Path,
        vhost: Path,
        mac: str,
        address: str,
    ) -> None:
        self.qmp_path = folder / f"{name}.qmp"
        self.commands = 0
        argv = [
            PROGRAM,
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            str(MEMORY_MIB),
        ]
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
        argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        argv += ["-object", f"memory-backend-memfd,id=m0,size={MEMORY_MIB}M,share=on"]
        argv += ["-machine", "memory-backend=m0"]
        argv += ["-chardev", f"socket,id=c0,path={vhost},reconnect=1"]
        argv += ["-netdev", "vhost-user,id=n0,chardev=c0"]
        argv += ["-device", f"virtio-net-pci,netdev=n0,mac={mac},romfile=,vectors=0"]
        argv += ["-kernel", str(kernel), "-initrd", str(initramfs)]
        argv += ["-append", f"console=ttyS0 quiet address={address}"]
        super().__init__(name, argv, folder / f"{name}.log")

    def ready(self, timeout: float = 90.0) -> None:
        """Wait for the shell."""
        self.expect(r"SHELL-UP [\d.]+\n", timeout)

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command; its output. PeerError if it fails."""
        self.commands += 1
        begin = self.mark = len(self.output())
        # The quotes keep the shell's echo of the command from looking like the end.
        self.write(f'{command}\necho "END"{self.commands}":$?"\n')
        found = self.expect(rf"END{self.commands}:(\d+)\n", timeout)
        text = self.output()[begin : found.start()].strip()
        if found.group(1) != "0":
            raise self.error(f"{command!r} ended with {found.group(1)}")
        return text

    def ping(self, address: str, count: int, timeout: float = 60.0) -> int:
        """The number of replies to `count` echo requests, one every 20 ms."""
        text = self.run(f"ping -q -c {count} -i 0.02 -W 5 {address} || true", timeout)
        found = re.search(r"(\d+) packets transmitted, (\d+) packets received", text)
        if found is None:
            raise self.error(f"ping said {text!r}")
        return int(found.group(2))

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
