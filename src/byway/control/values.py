# SPDX-License-Identifier: Apache-2.0
"""The values of a configuration, each by itself: names, paths, addresses, numbers.

Used by model, whose keys are of these types. Uses pydantic and problem: a value that is wrong is
told with what is wrong about it, and what to write instead.
"""

import ipaddress
import os
import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, StrictInt, StrictStr

from byway.control.problem import nearest, shown, wrong
from byway.machine.endpoint import split_endpoint
from byway.machine.unixsocket import MAX_PATH
from byway.virtio.negotiation import BY_NAME

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAC_EXAMPLE = 'write six bytes in hexadecimal, such as "02:00:00:00:00:01"'
MAX_IFNAME = 15  # bytes, linux/if.h: IFNAMSIZ with its NUL
MAX_QUEUE_PAIRS = 32


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise wrong(
            f"{shown(value)} is no valid name",
            "use 1 to 63 letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
    return value


def _path(value: str) -> str:
    if not value:
        raise wrong("is empty", "write the path of a file")
    if "\0" in value:
        raise wrong("contains a NUL byte", "write the path of a file")
    return value


def _socket(value: str) -> str:
    length = len(os.fsencode(_path(value)))
    if length > MAX_PATH:
        raise wrong(
            f"is {length} bytes long, but the path of a Unix socket"
            f" has at most {MAX_PATH}",
            "choose a shorter path",
        )
    return value


def _mac(value: str) -> str:
    mac = value.lower()
    if not _MAC.fullmatch(mac):
        raise wrong(f"{shown(value)} is no MAC address", _MAC_EXAMPLE)
    if int(mac[:2], 16) & 1:
        raise wrong(
            f"{shown(value)} is a group address", "take a unicast one: its first byte is even"
        )
    if mac == "00:00:00:00:00:00":
        raise wrong(f"{shown(value)} is the zero address", _MAC_EXAMPLE)
    return mac


def _workers(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value:
        raise wrong("is empty", "name at least one CPU, or leave the key out for one worker")
    for cpu in value:
        if value.count(cpu) > 1:
            raise wrong(f"names CPU {cpu} twice", "give each worker a CPU of its own")
    return value


def _one_queue(value: int) -> int:
    if value != 1:
        raise wrong(f"is {value}", "write 1: this kind of port has one queue pair")
    return value


def _power_of_two(value: int) -> int:
    if value & value - 1:
        raise wrong(f"is {value}, which is no power of two", "write 256, 512, 1024, ...")
    return value


def _features(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in BY_NAME:
            fix = nearest(name.lower(), BY_NAME) or 'take names such as "mrg_rxbuf" and "packed"'
            raise wrong(f"{shown(name)} is no virtio feature", fix)
    return tuple(dict.fromkeys(BY_NAME[name].name.lower() for name in value))


def _ifname(value: str) -> str:
    # What Linux accepts (net/core/dev.c, dev_valid_name), without "%": it makes a pattern of it.
    if not 1 <= len(os.fsencode(value)) <= MAX_IFNAME:
        raise wrong(f"{shown(value)} is no interface name", f"write 1 to {MAX_IFNAME} bytes")
    if value in (".", "..") or re.search(r"[/:%\s\0]", value):
        raise wrong(f"{shown(value)} is no interface name",
                    "leave out white space, '/', ':' and '%'")
    return value


def _netns(value: str) -> str:
    if not value or value in (".", "..") or "/" in value or "\0" in value:
        raise wrong(f"{shown(value)} is no name of a network namespace",
                    "write a name that `ip netns list` shows")
    return value


def _netns_or_path(value: str) -> str:
    return _path(value) if value.startswith("/") else _netns(value)


def _destination(value: str) -> str:
    try:
        return value if value == "default" else str(ipaddress.ip_network(value))
    except ValueError:
        raise wrong(f"{shown(value)} is no destination of a route",
                    'write a network as in "10.1.0.0/16", or "default"') from None


def _gateway(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise wrong(f"{shown(value)} is no address of a gateway",
                    'write it as in "10.0.0.1"') from None


def _endpoint(value: str) -> str:
    try:
        host, port = split_endpoint(value)
    except ValueError:
        raise wrong(f"{shown(value)} is no address with a port number",
                    'write it as in "192.0.2.1:4000" or "[2001:db8::1]:4000"') from None
    if ipaddress.ip_address(host).is_unspecified or ipaddress.ip_address(host).is_multicast:
        raise wrong(f"{shown(value)} is not the address of one machine",
                    "write an address that a machine has")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    made = []
    for text in value:
        try:
            if "/" not in text:
                raise ValueError(text)
            made.append(str(ipaddress.ip_interface(text)))
        except ValueError:
            raise wrong(f"{shown(text)} is no address with a prefix length",
                        'write it as in "10.0.0.2/24"') from None
        if made.count(made[-1]) > 1:
            raise wrong(f"names {text} twice", "name it once")
    return tuple(made)


Name: TypeAlias = Annotated[StrictStr, AfterValidator(_name)]
SocketPath: TypeAlias = Annotated[StrictStr, AfterValidator(_socket)]
FilePath: TypeAlias = Annotated[StrictStr, AfterValidator(_path)]
Mac: TypeAlias = Annotated[StrictStr, AfterValidator(_mac)]
Cpu: TypeAlias = Annotated[StrictInt, Field(ge=0)]
OneQueue: TypeAlias = Annotated[StrictInt, AfterValidator(_one_queue)]
QueuePairs: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_QUEUE_PAIRS)]
Cpus: TypeAlias = Annotated[tuple[Cpu, ...], AfterValidator(_workers)]
FeatureNames: TypeAlias = Annotated[tuple[StrictStr, ...], AfterValidator(_features)]
IfName: TypeAlias = Annotated[StrictStr, AfterValidator(_ifname)]
Netns: TypeAlias = Annotated[StrictStr, AfterValidator(_netns)]
NetnsOrPath: TypeAlias = Annotated[StrictStr, AfterValidator(_netns_or_path)]
Addresses: TypeAlias = Annotated[tuple[StrictStr, ...], AfterValidator(_addresses)]
Destination: TypeAlias = Annotated[StrictStr, AfterValidator(_destination)]
Gateway: TypeAlias = Annotated[StrictStr, AfterValidator(_gateway)]
Endpoint: TypeAlias = Annotated[StrictStr, AfterValidator(_endpoint)]
RingSize: TypeAlias = Annotated[
    StrictInt, Field(ge=64, le=16384), AfterValidator(_power_of_two)]
