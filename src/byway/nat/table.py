# SPDX-License-Identifier: Apache-2.0
"""One table of address translation: what an owner asks of it, and `nft` that does it.

Used by whoever lets frames leave the host. Uses rules, forwarding, flows, the program nft(8), and
nsenter(1) where it is to be done in another network namespace.

Every call is one transaction of the kernel: all of it is so, or nothing changed. Every call may be
repeated. Calls of several threads and processes may meet: they change elements, never the whole.
A call takes some milliseconds and blocks. What is not in the table is never touched, with the
exception of the kernel's settings that `forwarding` lists.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from byway.machine.netns import path_of
from byway.nat import flows, forwarding
from byway.nat.publication import NatError, Publication
from byway.nat.rules import (
    addition,
    deletion,
    parse_subnets,
    publication_elements,
    removal,
    skeleton,
    subnet_elements,
    within_elements,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")
_SECONDS = 30  # far more than any transaction takes
_SBIN = ":/usr/sbin:/sbin"


@dataclass(frozen=True)
class Content:
    """What is in a table: subnets whose frames leave behind the host's address, and ports."""

    subnets: frozenset[str]
    publications: frozenset[Publication]


class Table:
    """The table ``name`` of the family inet in a network namespace (a name of ip-netns(8), an
    absolute path, or None: that of this process). Nothing is done before it is asked."""

    def __init__(self, name: str, namespace: str | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise NatError(f'"{name}" is no name of a table',
                           "take letters, digits, '_', '.' and '-', beginning with a letter")
        self.name = name
        self.namespace = namespace and path_of(namespace)

    def masquerade(self, subnets: Iterable[str], gateway: str | None = None) -> list[str]:
        """What leaves these subnets (of one network) for elsewhere gets the address of the host.

        ``gateway``: the host's interface in that network. Forwarding is switched on for the
        families that there are; -> sentences on the settings of the kernel that were changed.
        Raises NatError; then the table is as it was.
        """
        parsed = parse_subnets(subnets)
        self._run(skeleton(self.name) + addition(self.name, subnet_elements(parsed)))
        return self._forward({subnet.version for subnet in parsed}, gateway)

    def publish(self, publications: Iterable[Publication], gateway: str | None = None,
                subnets: Iterable[str] = ()) -> list[str]:
        """Ports of the host lead to containers, from outside, from the host, from containers.

        ``gateway``: the host's interface by which the containers are reached; without it 127.0.0.1
        of the host is left out. ``subnets``: those of the containers' network, where they are not
        masqueraded: without them its own containers do not get there. -> and raises as
        ``masquerade`` does; NatError also where a port leads elsewhere already.
        """
        wanted = list(publications)
        within = within_elements(parse_subnets(subnets))
        self._run(skeleton(self.name) + addition(self.name, within)
                  + addition(self.name, publication_elements(wanted)))
        said = self._forward({p.container_address.version for p in wanted}, gateway)
        return said + list(filter(None, [flows.forget(self.namespace, wanted, withdrawn=False)]))

    def withdraw(self, subnets: Iterable[str] = (),
                 publications: Iterable[Publication] = ()) -> None:
        """These are no longer there, whether they were or not; what leads elsewhere stays.

        ``subnets``: those of one network, whether it was masqueraded or only published.
        """
        ports = list(publications)
        elements = subnet_elements(parse_subnets(subnets)) | publication_elements(ports)
        try:
            self._delete(elements)
        except _LeadsElsewhere:
            for place, texts in elements.items():
                for text in texts:
                    self._delete_if_ours(place, text)
        flows.forget(self.namespace, ports, withdrawn=True)

    def replace(self, networks: Iterable[Iterable[str]],
                publications: Iterable[Publication]) -> list[str]:
        """Exactly this is in the table: the subnets of each network, and these ports.

        Other elements are gone in the same moment. -> and raises as ``masquerade`` does.
        """
        parsed = [parse_subnets(subnets) for subnets in networks]
        wanted = list(publications)
        text = removal(self.name) + skeleton(self.name)
        text += "".join(addition(self.name, subnet_elements(subnets)) for subnets in parsed)
        self._run(text + addition(self.name, publication_elements(wanted)))
        versions = {subnet.version for subnets in parsed for subnet in subnets}
        return self._forward(versions | {p.container_address.version for p in wanted}, None)

    def remove(self) -> None:
        """The table is gone, whether it was there or not."""
        self._run(removal(self.name))

    def content(self) -> Content:
        """What is in the table; nothing where there is no table. Raises NatError."""
        try:
            listed = json.loads(self._nft(["-j", "list", "table", "inet", self.name]))
        except _NotThere:
            listed = {"nftables": []}
        subnets: set[str] = set()
        publications: set[Publication] = set()
        for entry in listed["nftables"]:
            found = entry.get("set") or entry.get("map") or {}
            for element in found.get("elem", []):
                if found["name"].startswith("subnets"):
                    subnets.add(_subnet_of(element))
                elif found["name"].startswith(("ports", "bound")):
                    publications.add(_publication_of(*element))
        return Content(frozenset(subnets), frozenset(publications))

    # ------------------------------------------------------------ how
    def _forward(self, versions: set[int], gateway: str | None) -> list[str]:
        return forwarding.switch_on(self.namespace, versions, gateway)

    def _delete(self, elements: dict[str, list[str]]) -> None:
        try:
            self._run(deletion(self.name, elements))
        except _NotThere:
            return  # no table: nothing is in it

    def _delete_if_ours(self, place: str, text: str) -> None:
        try:
            self._delete({place: [text]})
        except _LeadsElsewhere:
            return  # it is somebody else's by now

    def _run(self, text: str) -> None:
        if text:
            self._nft(["-f", "-"], text)

    def _nft(self, arguments: Sequence[str], text: str = "") -> str:
        program = shutil.which("nft", path=os.environ.get("PATH", os.defpath) + _SBIN)
        if program is None:
            raise NatError("the program nft is not installed", "apt-get install nftables")
        enter = ["nsenter", f"--net={self.namespace}", "--"] if self.namespace else []
        try:
            done = subprocess.run([*enter, program, *arguments], input=text, text=True,
                                  capture_output=True, check=False, timeout=_SECONDS,
                                  env={**os.environ, "LC_ALL": "C"})
        except subprocess.TimeoutExpired:
            raise NatError(f"nft has not ended after {_SECONDS} s", "see what holds it") from None
        if done.returncode:
            raise _refusal(done.stderr.strip(), self.namespace)
        return done.stdout


class _NotThere(NatError):
    """The table, or something in it, does not exist."""


class _LeadsElsewhere(NatError):
    """An element is there with another meaning."""


def _refusal(message: str, namespace: str | None) -> NatError:
    """What nft, or nsenter before it, says."""
    first = message.splitlines()[0] if message else "nft failed without a word"
    if "not permitted" in message or "Permission denied" in message:
        return NatError("address translation may not be changed here", "give byway CAP_NET_ADMIN"
                        + (" and CAP_SYS_ADMIN" if namespace else ""))
    if namespace and message.startswith("nsenter"):
        return NatError(f"the network namespace {namespace} cannot be entered ({first})",
                        "create it, or give its name as `ip netns list` shows it")
    if "overlaps" in message:
        return NatError(f"a subnet overlaps with one that is there already ({_quoted(message)})",
                        "give each network a range of its own")
    if "File exists" in message:
        return _LeadsElsewhere(f"a port is published already, and leads elsewhere"
                               f" ({_quoted(message)})", "choose another port of the host")
    if "No such file or directory" in message and "Could not process rule" not in message:
        return _NotThere(f"nft: {first}", "make the table first")
    if "Could not process rule" in message:
        return NatError(f"the kernel refuses address translation ({first})",
                        "it needs nf_tables with nft_nat, nft_masq, nft_fib_inet and nf_conntrack")
    return NatError(f"nft: {first}", "see nft(8)")


def _quoted(message: str) -> str:
    """The part of the text that nft has underlined with ^."""
    lines = message.splitlines()
    for line, marks in pairwise(lines):
        if marks.strip() and set(marks.strip()) == {"^"}:
            start = marks.index("^")
            return line[start:start + marks.count("^")]
    return lines[0]


def _subnet_of(element: Any) -> str:
    if isinstance(element, str):
        return f"{element}/{128 if ':' in element else 32}"
    return f"{element['prefix']['addr']}/{element['prefix']['len']}"


def _publication_of(key: Any, value: Any) -> Publication:
    *host, protocol, port = key["concat"]
    container, container_port = value["concat"]
    return Publication(protocol, port, container, container_port, host[0] if host else None)
