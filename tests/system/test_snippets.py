# SPDX-License-Identifier: Apache-2.0
"""The QEMU command that `byway port show --snippet qemu` prints starts a guest that has network.

Here QEMU has no KVM: three words are exchanged, and what makes the test's guest (kernel, serial
line) is added. Everything about the card and the memory is as printed.
"""

import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.peers.process import Process
from tests.system.peers.qemu import Vm
from tests.system.peers.switch import BYWAY, Port, Switch

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
EMULATED = {"-enable-kvm": ["-accel", "tcg,thread=multi"], "host": ["max"]}
PINGS = 20


class PastedVm(Vm):
    """The guest of a snippet."""

    def __init__(self, name: str, folder: Path, system: tuple[Path, Path], snippet: str,
                 address: str) -> None:
        self.commands = 0
        kernel, initramfs = system
        argv: list[str] = []
        for word in shlex.split(snippet.replace("\\\n", " "), comments=True):
            # QEMU 7.2 crashes under emulation when a vhost-user driver starts with MSI-X.
            word += ",vectors=0,romfile=" if word.startswith("virtio-net-pci") else ""
            argv += EMULATED.get(word, [word])
        argv += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
        argv += ["-kernel", str(kernel), "-initrd", str(initramfs)]
        argv += ["-append", f"console=ttyS0 quiet address={address}"]
        Process.__init__(self, name, argv, folder / f"{name}.log",
                         errors=folder / f"{name}-qemu.log")


def test_guests_of_pasted_commands_ping_each_other(
    own_folder: Path, guest_system: tuple[Path, Path]
) -> None:
    ports = [Port("vm1", own_folder / "vm1.sock"), Port("vm2", own_folder / "vm2.sock", queues=2)]
    with ExitStack() as stack:
        switch = stack.enter_context(Switch(own_folder, ports, mtus={"blue": 2000}))
        vms = []
        for number, port in enumerate(ports, 1):
            words = [str(BYWAY), "port", "show", port.name, "--snippet", "qemu",
                     "--api", str(switch.api)]
            snippet = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            vms.append(stack.enter_context(
                PastedVm(port.name, own_folder, guest_system, snippet, f"10.0.0.{number}/24")))
        for vm in vms:
            vm.ready()
        switch.wait_up()
        assert vms[0].ping("10.0.0.2", PINGS, options="-s 1900") == PINGS
        for name, port_seen in switch.ports().items():
            assert port_seen["features"]["acked"].count("ring_packed") == 1, name
            assert {ring["format"] for ring in port_seen["rings"]} == {"packed"}, name
        assert switch.ports()["vm2"]["queues_enabled"] == 2
