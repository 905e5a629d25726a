# SPDX-License-Identifier: Apache-2.0
"""One call of the plugin: what the environment and the configuration on stdin say.

Used by main. Everything that can be said without looking at the machine is checked here; what is
checked later finds values of the right type.

Source: CNI specification 1.1.0, "Parameters", "Configuration format", CONVENTIONS.md.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from byway_cni.problem import CniError, Code

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]
# The verbs, the version that brought each, and the variables each needs besides CNI_COMMAND.
_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
VERBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("0.3.0", _ATTACHMENT),
    "DEL": ("0.3.0", ("CNI_CONTAINERID", "CNI_IFNAME")),
    "CHECK": ("0.4.0", _ATTACHMENT),
    "GC": ("1.1.0", ()),
    "STATUS": ("1.1.0", ()),
    "VERSION": ("0.3.0", ()),
}
MAX_INPUT = 1 << 22  # bytes; the attachments of a GC call are the longest
MAX_ID = 200  # characters
MAX_IFNAME = 15  # bytes, linux/if.h: IFNAMSIZ with its NUL
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_IFNAME_EVIL = re.compile(r"[/:%\s\0]")


class Call(NamedTuple):
    """What is asked. `container`, `netns` and `ifname` are empty where the verb has none."""

    verb: str
    version: str
    container: str
    netns: str
    ifname: str
    arguments: Mapping[str, str]  # CNI_ARGS
    path: tuple[str, ...]  # CNI_PATH: where other plugins are
    config: dict[str, Any]

    @property
    def network(self) -> str:
        """The name of the CNI network (not of the switch's, which may be shared)."""
        return str(self.config["name"])

    @property
    def owner(self) -> str:
        """Who owns the addresses of this attachment."""
        return f"{self.container}/{self.ifname}"


def read_config(data: bytes) -> dict[str, Any]:
    """The JSON object on stdin."""
    if len(data) > MAX_INPUT:
        raise CniError(Code.DECODE, f"the configuration has more than {MAX_INPUT} bytes",
                       "send less")
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CniError(Code.DECODE, f"the configuration is not JSON: {error}",
                       "send the network's configuration on stdin") from None
    if not isinstance(config, dict):
        raise CniError(Code.DECODE, "the configuration is no JSON object",
                       "send the network's configuration on stdin")
    return config


def read_call(environment: Mapping[str, str], config: dict[str, Any]) -> Call:
    """The call that these variables and this configuration make; CniError where they make none."""
    verb = environment["CNI_COMMAND"]
    if verb not in VERBS:
        raise CniError(Code.ENVIRONMENT, f"CNI_COMMAND is {verb[:40]!r}",
                       f"it is one of {', '.join(VERBS)}")
    since, needed = VERBS[verb]
    version = _check_version(verb, since, config)
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise CniError(Code.ENVIRONMENT, f"{verb} needs {', '.join(missing)}",
                       "set them in the plugin's environment")
    _check_name(config)
    container, netns, ifname = (
        environment.get(name, "") if verb in ("ADD", "DEL", "CHECK") else ""
        for name in _ATTACHMENT)
    if container:
        _check_attachment(container, ifname)
    return Call(verb, version, container, netns, ifname,
                read_arguments(environment.get("CNI_ARGS", "")),
                tuple(filter(None, environment.get("CNI_PATH", "").split(":"))), config)


def _check_version(verb: str, since: str, config: dict[str, Any]) -> str:
    version = config.get("cniVersion")
    supported = ", ".join(VERSIONS)
    if version not in VERSIONS:
        raise CniError(Code.VERSION, f"cniVersion is {version!r}",
                       f"write one that this plugin supports: {supported}")
    if VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(Code.VERSION, f"{verb} came with version {since}, cniVersion is {version}",
                       f"write {since} or newer")
    return str(version)


def _check_name(config: dict[str, Any]) -> None:
    name = config.get("name")
    if not isinstance(name, str) or not _ID.fullmatch(name) or len(name) > MAX_ID:
        raise CniError(Code.CONFIGURATION, f"name is {str(name)[:60]!r}",
                       "write letters, digits, '_', '.' and '-', beginning with a letter or digit")


def _check_attachment(container: str, ifname: str) -> None:
    if not valid_container(container):
        raise CniError(
            Code.ENVIRONMENT, f"CNI_CONTAINERID is {container[:60]!r}",
            f"it has at most {MAX_ID} letters, digits, '_', '.' and '-', and begins with a"
            " letter or digit")
    if not valid_ifname(ifname):
        raise CniError(Code.ENVIRONMENT, f"CNI_IFNAME is {ifname[:60]!r}",
                       f"it has 1 to {MAX_IFNAME} bytes, without white space, '/', ':' and '%'")


def valid_container(name: object) -> bool:
    """Whether this can be a container's id."""
    return isinstance(name, str) and len(name) <= MAX_ID and _ID.fullmatch(name) is not None


def valid_ifname(name: object) -> bool:
    """Whether Linux takes this as an interface's name (net/core/dev.c, dev_valid_name)."""
    return (isinstance(name, str) and 1 <= len(name.encode(errors="replace")) <= MAX_IFNAME
            and name not in (".", "..") and not _IFNAME_EVIL.search(name))


def read_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS, "K=V;K2=V2". Keys of other plugins and of Kubernetes are nobody's business here."""
    found = {}
    for pair in filter(None, text.split(";")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise CniError(Code.ENVIRONMENT, f"CNI_ARGS has {pair[:60]!r}",
                           "write KEY=VALUE, with ';' between pairs")
        found[key] = value
    return found
