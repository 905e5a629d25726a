# SPDX-License-Identifier: Apache-2.0
"""Pods through containerd's CRI, the way of Kubernetes' kubelet (CRI API, runtime.v1).

Used by the tests of containers. Debian has no client for it, so the few messages are encoded here:
a message is {field number: value}, where a value is text, bytes, a number, another message, or a
list of them (Protocol Buffers, "Encoding").
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union

import grpc

from tests.system.engines import image
from tests.system.engines.containerd import Containerd
from tests.system.engines.station import Station
from tests.system.peers.process import PeerError, wait_until

Value: TypeAlias = Union[str, bytes, int, "Message", Sequence["Value"]]
Message: TypeAlias = Mapping[int, Value]
Decoded: TypeAlias = dict[int, list[int | bytes]]

CPU_SHARES = 1024  # as other engines give; without a word, the kernel's smallest share
VARINT, LENGTH = 0, 2  # the wire types that CRI's messages have


def varint(number: int) -> bytes:
    """A number, seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def encode(message: Message) -> bytes:
    """A message as it goes over the wire."""
    return b"".join(field(number, value) for number, value in message.items())


def field(number: int, value: Value) -> bytes:
    """A field with its tag; one after the other for a list."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    if isinstance(value, Mapping):
        value = encode(value)
    elif isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        return b"".join(field(number, one) for one in value)
    return varint(number << 3 | LENGTH) + varint(len(value)) + value


def decode(data: bytes) -> Decoded:
    """{field number: its values} of a message; inner messages stay bytes."""
    found: Decoded = {}
    at = 0

    def number() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7

    while at < len(data):
        tag = number()
        value: int | bytes = number()
        if tag & 7 == LENGTH:
            length = int(value)
            value = data[at : at + length]
            at += length
        elif tag & 7 != VARINT:
            raise PeerError(f"wire type {tag & 7} in {data!r}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def text(message: Decoded, number: int) -> str:
    """A field's text; empty where the field is missing."""
    value = message.get(number, [b""])[0]
    assert isinstance(value, bytes)
    return value.decode()


def inner(message: Decoded, number: int) -> Decoded:
    """A field's message; an empty one where the field is missing."""
    value = message.get(number, [b""])[0]
    assert isinstance(value, bytes)
    return decode(value)


class Cri:
    """The CRI of a containerd. `close` ends the connection and the pods."""

    def __init__(self, engine: Containerd) -> None:
        self.engine = engine
        self.channel = grpc.insecure_channel(f"unix://{engine.socket}")
        wait_until(self.network_ready, "the CRI's network is ready", 60)

    def call(self, method: str, request: Message, timeout: float = 60.0) -> Decoded:
        """Call a method of RuntimeService; its answer. PeerError where it fails."""
        call = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}", request_serializer=encode,
            response_deserializer=decode,
        )
        try:
            answer: Decoded = call(request, timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise PeerError(f"CRI {method}: {error}") from error
        return answer

    def network_ready(self) -> bool:
        """True where the runtime has found CNI's configuration."""
        status = inner(self.call("Status", {}), 1)
        conditions = [decode(bytes(given)) for given in status.get(1, [])]
        return any(text(one, 1) == "NetworkReady" and 2 in one for one in conditions)

    def pods(self) -> list[str]:
        """The ids of all pods."""
        found = self.call("ListPodSandbox", {}).get(1, [])
        return [text(decode(bytes(one)), 1) for one in found]

    def remove(self, pod: str) -> None:
        """Stop and remove a pod, by its id."""
        self.call("StopPodSandbox", {1: pod})
        self.call("RemovePodSandbox", {1: pod})

    def close(self) -> None:
        """Remove the pods that are left, and end the connection."""
        try:
            for pod in self.pods():
                self.remove(pod)
        finally:
            self.channel.close()


class Pod(Station):
    """A pod with one container in it."""

    def __init__(self, cri: Cri, name: str) -> None:
        self.cri = cri
        self.name = name
        sandbox: Message = {
            1: {1: name, 2: f"uid-{name}", 3: "default"},
            2: name,
            3: f"{cri.engine.folder}/logs",
            8: {1: f"/{cri.engine.group}"},
        }
        self.id = text(cri.call("RunPodSandbox", {1: sandbox}), 1)
        container: Message = {1: {1: "main"}, 2: {1: image.NAME}, 3: image.COMMAND,
                              15: {1: {3: CPU_SHARES}}}
        made = cri.call("CreateContainer", {1: self.id, 2: container, 3: sandbox})
        self.container = text(made, 1)
        cri.call("StartContainer", {1: self.container})

    def run(self, command: str, timeout: float = 60.0) -> str:
        """Run a shell command in it; its output. PeerError where it fails."""
        request: Message = {1: self.container, 2: ["/bin/sh", "-c", command], 3: int(timeout)}
        answer = self.cri.call("ExecSync", request, timeout + 5)
        if answer.get(3, [0])[0]:
            raise PeerError(f"{self.name}: {command!r}: {text(answer, 2)}{text(answer, 1)}")
        return text(answer, 1).strip()

    def status_address(self) -> str:
        """The address that the runtime reports for it."""
        status = inner(self.cri.call("PodSandboxStatus", {1: self.id}), 1)
        return text(inner(status, 5), 1)

    def remove(self) -> None:
        """Stop and remove it."""
        self.cri.remove(self.id)
