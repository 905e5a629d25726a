# SPDX-License-Identifier: Apache-2.0
"""From a TOML file, or the JSON of the API, to the passive model; and every problem on the way.

Used by the daemon and the API. Uses model and problem.

Three questions are kept apart. Is each value right by itself? The model's validators say so. Do
the values fit together (names, sockets, networks)? cross_check() says so. Does this machine have
what they name (directories, CPUs)? check_machine() says so, and it alone looks at the machine.

Entries of a list are counted from 1 in messages: `port[1]` is the first [[port]] of the file.
"""

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from byway.control.claims import network_claims, port_claims, switch_claims, twice
from byway.control.model import (
    KINDS,
    Config,
    NetworkConfig,
    PcapPort,
    PortConfig,
    SwitchConfig,
    TapPort,
    VhostKernelPort,
    VhostUserPort,
    VirtioUserPort,
)
from byway.control.problem import (
    ConfigError,
    Problem,
    from_validation,
    kind_of_value,
    nearest,
    no_network,
    shown,
)
from byway.machine.cpulist import format_cpu_list, online_cpus
from byway.machine.rundir import default_socket
from byway.machine.unixsocket import MAX_PATH

# Kinds that the design knows and that come later: worth another message than a typing error.
_LATER_KINDS = ("vhost", "physical")
NETNS_FOLDER = "/run/netns"  # where ip-netns(8) keeps names
_SECTIONS = {"switch": "[switch]", "network": "[[network]]", "port": "[[port]]"}

M = TypeVar("M", bound=BaseModel)
Labelled = tuple[str, M]


def load(path: str) -> Config:
    """Read a configuration file; raises ConfigError with every problem found in it."""
    return parse(_read(path), path)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.loads(file.read().decode())
    except UnicodeDecodeError as error:
        problem, fix = f"byte {error.start + 1} is not UTF-8", "save the file as UTF-8 text"
    except tomllib.TOMLDecodeError as error:
        problem, fix = f"is not valid TOML: {error}", "mend that place"
    except FileNotFoundError:
        problem, fix = "there is no such file", "check the path"
    except IsADirectoryError:
        problem, fix = "is a directory", "name a TOML file"
    except OSError as error:
        problem, fix = f"cannot be read ({error.strerror})", "check the file and its mode"
    except (ValueError, RecursionError) as error:
        problem, fix = f"cannot be read ({error})", "check the path and the values"
    raise ConfigError([Problem("", problem, fix)], path)


def parse(data: Mapping[str, Any], file: str = "") -> Config:
    """The tables of a configuration as a model; raises ConfigError with every problem found."""
    problems = [
        Problem(shown(key), "there is no such section",
                nearest(key, _SECTIONS) or f"the sections are: {', '.join(_SECTIONS.values())}")
        for key in data if key not in _SECTIONS
    ]
    switch = _parse_switch(data.get("switch", {}), problems)
    networks: list[Labelled[NetworkConfig]] = []
    for label, table in _tables(data, "network", problems):
        if network := _collect(parse_network, table, label, problems):
            networks.append((label, network))
    ports: list[Labelled[PortConfig]] = []
    for label, table in _tables(data, "port", problems):
        if port := _collect(parse_port, table, label, problems):
            ports.append((label, port))
    # A network that has a problem of its own still exists for the ports that name it.
    named = {t.get("name") for _, t in _tables(data, "network", []) if isinstance(t, dict)}
    problems += _together(switch, networks, ports, {n for n in named if isinstance(n, str)})
    if problems:
        raise ConfigError(problems, file)
    return Config(
        switch=switch,
        networks=tuple(network for _, network in networks),
        ports=tuple(port for _, port in ports),
    )


def _parse_switch(table: object, problems: list[Problem]) -> SwitchConfig:
    try:
        return _validate(SwitchConfig, table, "the switch", "switch")
    except ConfigError as error:
        problems += error.problems
        return SwitchConfig()


def _tables(
    data: Mapping[str, Any], section: str, problems: list[Problem]
) -> list[tuple[str, object]]:
    """The entries of [[section]], each with its label, such as 'port[1] "vm1"'."""
    entries = data.get(section, [])
    if not isinstance(entries, list):
        problems.append(Problem(
            section, f"is {kind_of_value(entries)}, not a list of tables",
            f"begin each {section} with a line [[{section}]]"))
        return []
    return [(_label(f"{section}[{number}]", entry), entry)
            for number, entry in enumerate(entries, 1)]


def _label(where: str, entry: object) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"{where} {shown(name)}" if isinstance(name, str) else where


def _collect(parser: Any, table: object, label: str, problems: list[Problem]) -> Any:
    try:
        return parser(table, label)
    except ConfigError as error:
        problems += error.problems
        return None


def parse_network(table: object, label: str) -> NetworkConfig:
    """One network; raises ConfigError. `label` names it in messages."""
    return _validate(NetworkConfig, table, "a network", label)


def parse_port(table: object, label: str) -> PortConfig:
    """One port of any kind; raises ConfigError. `label` names it in messages."""
    kinds = ", ".join(KINDS)
    if not isinstance(table, dict):
        raise ConfigError([Problem(label, f"is {kind_of_value(table)}, not a table",
                                   "write its keys under a line [[port]]")])
    kind = table.get("kind")
    if kind is None:
        raise ConfigError([Problem(f"{label}: kind", "is missing", f"add one of: {kinds}")])
    if not isinstance(kind, str) or kind not in KINDS:
        if kind in _LATER_KINDS:
            problem = Problem(label, f"kind '{kind}' is not in this release", f"kinds: {kinds}")
        else:
            near = nearest(kind, KINDS) if isinstance(kind, str) else ""
            problem = Problem(f"{label}: kind", f"{shown(kind)} is no kind of port",
                              f"{near + ' ' if near else ''}kinds: {kinds}")
        raise ConfigError([problem])
    port: PortConfig = _validate(KINDS[kind], table, f"a {kind} port", label)
    if isinstance(port, PcapPort) and port.read is None and port.write is None:
        raise ConfigError([Problem(label, "has neither read nor write",
                                   "name a file in at least one of the two")])
    if isinstance(port, TapPort) and port.masquerade and not port.address:
        raise ConfigError([Problem(f"{label}: masquerade", "says nothing without an address",
                                   'add one of its network, as in address = ["10.0.0.1/24"]')])
    return port


def _validate(model: type[M], table: object, what: str, label: str) -> M:
    if not isinstance(table, dict):
        raise ConfigError([Problem(label, f"is {kind_of_value(table)}, not a table",
                                   f"write the keys of {what} in it")])
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ConfigError(from_validation(error, model, what, label)) from None


def cross_check(config: Config) -> list[Problem]:
    """What does not fit together in a state whose values are right by themselves."""
    return _together(
        config.switch,
        [(f'network "{network.name}"', network) for network in config.networks],
        [(f'port "{port.name}"', port) for port in config.ports],
        {network.name for network in config.networks},
    )


def _together(
    switch: SwitchConfig,
    networks: Sequence[Labelled[NetworkConfig]],
    ports: Sequence[Labelled[PortConfig]],
    known: set[str],
) -> list[Problem]:
    problems = _twice(((f"{label}: name", n.name) for label, n in networks), "give it another name")
    problems += _twice(((f"{label}: name", p.name) for label, p in ports), "give it another name")
    problems += [no_network(label, port.network, known)
                 for label, port in ports if port.network not in known]
    claims = chain(
        switch_claims(switch),
        *(network_claims(network, label) for label, network in networks),
        *(port_claims(port, label) for label, port in ports))
    return problems + twice(claims, {})


def _twice(entries: Iterable[tuple[str, str]], fix: str) -> list[Problem]:
    """A problem for every value that an earlier entry has already."""
    first: dict[str, str] = {}
    problems = []
    for key, value in entries:
        if value in first:
            problems.append(Problem(key, f"{shown(value)} is also that of {first[value]}", fix))
        else:
            first[value] = key
    return problems


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
