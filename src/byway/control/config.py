# SPDX-License-Identifier: Apache-2.0
"""From a TOML file to the passive model; and every problem on the way.

Used by the daemon. Uses tables, fitting and problem.

Three questions are kept apart. Is each table right by itself? The model's validators say so
(tables.py). Do the tables fit together? fitting.py says so. Does this machine have what they name?
thishost.py says so, and it alone looks at the machine.

Entries of a list are counted from 1 in messages: `port[1]` is the first [[port]] of the file.
"""

import os
import tomllib
from collections.abc import Mapping
from typing import Any

from byway.control.chains import based
from byway.control.fitting import Labelled, together
from byway.control.model import Config, SwitchConfig, entry_name
from byway.control.parts import SECTIONS, UNDERLAY, Key, Kind
from byway.control.problem import ConfigError, Problem, kind_of_value, nearest, shown
from byway.control.tables import PARSERS, parse_cluster, parse_switch, parse_underlay

_TABLES = ("switch", "cluster", "underlay")
# Sections of which there may be many tables, and the field of Config that they make.
_LISTS: dict[Kind, str] = {"network": "networks", "host": "hosts", "entry": "entries",
                           "router": "routers", "group": "groups", "function": "functions",
                           "service": "services", "port": "ports"}
_SECTIONS = {**{name: f"[{name}]" for name in _TABLES},
             **{SECTIONS[kind]: f"[[{SECTIONS[kind]}]]" for kind in _LISTS}}


def load(path: str, cluster: str | None = None) -> Config:
    """Read a configuration file; raises ConfigError with every problem found in it. ``cluster``:
    "etcd://host:port,host:port/prefix", in place of what the file says of these."""
    data = _read(path)
    if cluster is not None:
        written = data.get("cluster", {})
        data["cluster"] = {**(written if isinstance(written, dict) else {}), **_members(cluster)}
    _base(data, os.path.dirname(os.path.abspath(path)))
    return parse(data, path)


def _base(data: Mapping[str, Any], directory: str) -> None:
    """Files of network functions are named as seen from the configuration file."""
    for section, keys in (("function", ("use",)), ("network", ("chain",)),
                          ("port", ("chain", "chain_tx"))):
        tables = data.get(section)
        for table in tables if isinstance(tables, list) else ():
            for key in keys if isinstance(table, dict) else ():
                value = table.get(key)
                if isinstance(value, list):
                    table[key] = [based(written, directory) for written in value]
                elif value is not None:
                    table[key] = based(value, directory)


def _members(url: str) -> dict[str, Any]:
    scheme, mark, rest = url.partition("://")
    members, slash, prefix = rest.partition("/")
    if scheme != "etcd" or not mark or not members:
        raise ConfigError([Problem("--cluster", f"{shown(url)} is no address of an etcd",
                                   "write it as in etcd://10.0.0.9:2379")])
    return {"etcd": members.split(","), **({"prefix": f"/{prefix}"} if slash and prefix else {})}


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
    switch = _collect(parse_switch, data.get("switch", {}), "switch", problems) or SwitchConfig()
    cluster = underlay = None
    if "cluster" in data:
        cluster = _collect(parse_cluster, data["cluster"], "cluster", problems)
    if "underlay" in data:
        underlay = _collect(parse_underlay, data["underlay"], "underlay", problems)
    every = [Labelled("underlay", UNDERLAY, underlay)] if underlay else []
    known = {UNDERLAY} if "underlay" in data else set()
    for kind in _LISTS:
        for label, table in _tables(data, SECTIONS[kind], problems):
            part = _collect(PARSERS[kind], table, label, problems)
            if part:
                every.append(Labelled(label, Key(kind, part.name), part))
            elif isinstance(table, dict):
                # What has a problem of its own still exists for those that speak of it.
                known.add(Key(kind, str(table.get("name"))))
    problems += together(switch, cluster, every, known)
    if problems:
        raise ConfigError(problems, file)
    found: dict[str, Any] = {field: tuple(part for _, key, part in every if key.kind == kind)
                             for kind, field in _LISTS.items()}
    return Config(switch=switch, cluster=cluster, underlay=underlay, **found)


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
    if not isinstance(entry, dict):
        return where
    name = entry.get("name")
    if not isinstance(name, str) and isinstance(entry.get("mac"), str):  # an [[entry]]
        name = entry_name(str(entry.get("network", "")), entry["mac"])
    return f"{where} {shown(name)}" if isinstance(name, str) else where


def _collect(parser: Any, table: object, label: str, problems: list[Problem]) -> Any:
    try:
        return parser(table, label)
    except ConfigError as error:
        problems += error.problems
        return None
