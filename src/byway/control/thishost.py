# SPDX-License-Identifier: Apache-2.0
"""What this machine has to say about a configuration: CPUs, directories, files, the underlay's MTU.

Used by the daemon and wanted. Uses the model and machine. Nothing else of the configuration's
checks looks at the machine.
"""

import os
import stat

from byway.control.model import (
    Config,
    PcapPort,
    PortConfig,
    SwitchConfig,
    VhostKernelPort,
    VhostUserPort,
    VirtioUserPort,
)
from byway.control.problem import Problem
from byway.machine.cpulist import format_cpu_list, online_cpus
from byway.machine.rundir import default_socket
from byway.machine.unixsocket import MAX_PATH

NETNS_FOLDER = "/run/netns"  # where ip-netns(8) keeps names


def api_socket(switch: SwitchConfig) -> str:
    """The path of the API socket, the default one where none is given."""
    return switch.api or str(default_socket(switch.name))


def check_machine(config: Config) -> list[Problem]:
    """What this machine has to say against a configuration: CPUs, directories, files."""
    problems = []
    online = online_cpus()
    for place, cpu in enumerate(config.switch.workers or (), 1):
        if cpu not in online:
            problems.append(Problem(f"switch: workers[{place}]", f"CPU {cpu} does not exist",
                                    f"the CPUs on line are: {format_cpu_list(online)}"))
    path = api_socket(config.switch)
    if config.switch.api is not None:
        problems += _check_socket("switch: api", path, listen=True)
    elif len(os.fsencode(path)) > MAX_PATH:
        problems.append(Problem("switch: api", f"the default, {path}, is too long for a socket",
                                "set api to a shorter path"))
    for number, port in enumerate(config.ports, 1):
        problems += check_port(port, f'port[{number}] "{port.name}"')
    return problems


def check_port(port: PortConfig, label: str) -> list[Problem]:
    """What this machine has to say against one port: its directory, file, network namespace."""
    if isinstance(port, VhostUserPort | VirtioUserPort):
        return _check_socket(f"{label}: socket", port.socket, listen=port.mode == "server")
    if isinstance(port, VhostKernelPort):
        return _check_netns(f"{label}: netns", port.netns)
    if not isinstance(port, PcapPort):
        return []
    problems = []
    if port.read is not None:
        key = f"{label}: read"
        if not os.path.exists(port.read):
            problems.append(Problem(key, f"there is no file {port.read}", "check the path"))
        elif os.path.isdir(port.read):
            problems.append(Problem(key, f"{port.read} is a directory", "name a pcap file"))
        elif not os.access(port.read, os.R_OK):
            problems.append(Problem(key, f"{port.read} is not readable", "change its mode"))
    if port.write is not None:
        key = f"{label}: write"
        if os.path.isdir(port.write):
            problems.append(Problem(key, f"{port.write} is a directory", "name a file"))
        else:
            problems += _check_directory(key, port.write, write=True)
    return problems


def _check_netns(key: str, name: str | None) -> list[Problem]:
    if name is None or os.path.exists(os.path.join(NETNS_FOLDER, name)):
        return []
    return [Problem(key, f'there is no network namespace "{name}"',
                    f"create it: ip netns add {name}")]


def _check_socket(key: str, path: str, listen: bool) -> list[Problem]:
    """A socket to listen on or to connect to: its directory, and what stands there now."""
    problems = _check_directory(key, path, write=listen)
    if problems:
        return problems
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Problem(key, f"{path}: {error.strerror}", "choose another path")]
    if not stat.S_ISSOCK(mode):
        return [Problem(key, f"{path} exists and is no socket", "remove it or choose another path")]
    return []


def _check_directory(key: str, path: str, write: bool) -> list[Problem]:
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return [Problem(key, f"there is no directory {directory}",
                        "create it or choose another path")]
    if write and not os.access(directory, os.W_OK | os.X_OK):
        return [Problem(key, f"you may not create files in {directory}",
                        "change its mode or choose another path")]
    return []
