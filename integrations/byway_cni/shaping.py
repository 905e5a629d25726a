# SPDX-License-Identifier: Apache-2.0
"""Capability bandwidth: the rate of a container's interface is limited, by the kernel's tc(8).

Used by attach, check and detach, where a rate is asked for. Uses ip(8) and tc(8), run in the
container's namespace.

What the container sends is held back by a token bucket (tbf) at its interface. What it receives
cannot be queued there: it is led through an intermediate functional block (ifb), a second interface
in the namespace, and held back at that one. Both live in the container's namespace: they outlive
the switch, and a container that may administer its own network may remove them.
"""

import json
from collections.abc import Mapping, Sequence

from byway_cni import namespace
from byway_cni.call import Call
from byway_cni.problem import CniError, Code

LATENCY = "50ms"  # a frame that would wait longer is dropped
_MIN_BURST = 2 * 65536 * 8  # bits: two of the largest frames that the kernel hands over at once
_SECONDS = 30
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def apply(call: Call, rates: Mapping[str, int]) -> None:
    """Limit an interface that is there; `rates` in bits (a second), as CNI has them."""
    commands: list[list[str]] = []
    if rates.get("egressRate"):
        commands.append(_bucket(call.ifname, rates["egressRate"], rates.get("egressBurst", 0)))
    if rates.get("ingressRate"):
        second = _second(call.ifname)
        commands += [
            ["ip", "link", "add", second, "type", "ifb"],
            ["ip", "link", "set", second, "up"],
            _bucket(second, rates["ingressRate"], rates.get("ingressBurst", 0)),
            ["tc", "qdisc", "add", "dev", call.ifname, "ingress"],
            ["tc", "filter", "add", "dev", call.ifname, "parent", "ffff:", "protocol", "all",
             "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "redirect",
             "dev", second],
        ]
    if commands:
        namespace.inside(call.netns, lambda: [_run(command) for command in commands])


def check(call: Call, rates: Mapping[str, int]) -> None:
    """CniError where a limit is gone."""
    for way, name in (("egressRate", call.ifname), ("ingressRate", _second(call.ifname))):
        if rates.get(way) and not _limited(call.netns, name):
            raise CniError(Code.CHANGED, f"{call.ifname} of container {call.container}: its"
                           f" {way} is not limited any more",
                           "delete the attachment and add it again")


def remove(call: Call, rates: Mapping[str, int]) -> None:
    """Remove what does not go with the interface itself. Idempotent; the namespace may be gone."""
    if not rates.get("ingressRate") or not call.netns:
        return
    second = _second(call.ifname)

    def work() -> None:
        if namespace.exists(second):
            _run(["ip", "link", "del", second])

    try:
        namespace.check(call.netns)
    except CniError:
        return  # with it everything is gone
    namespace.inside(call.netns, work)


def _second(ifname: str) -> str:
    """The name of the interface through which frames to the container go."""
    return f"ifb-{ifname}" if len(ifname.encode()) <= 11 else f"i{ifname[1:]}"


def _bucket(ifname: str, rate: int, burst: int) -> list[str]:
    chosen = max(burst or rate // 100, _MIN_BURST)
    return ["tc", "qdisc", "add", "dev", ifname, "root", "tbf", "rate", f"{rate}bit",
            "burst", str(min(chosen // 8, (1 << 31) - 1)), "latency", LATENCY]


def _limited(netns: str, ifname: str) -> bool:
    def work() -> str:
        if not namespace.exists(ifname):
            return ""
        return _run(["tc", "-j", "qdisc", "show", "dev", ifname])

    found = namespace.inside(netns, work)
    return any(entry.get("kind") == "tbf" for entry in json.loads(found or "[]"))


def _run(command: Sequence[str]) -> str:
    import os
    import subprocess  # not before: most calls need none

    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PATH}"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=_SECONDS, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(Code.REFUSED, f"{command[0]} cannot be run: {error}",
                       "install iproute2") from None
    if done.returncode:
        raise CniError(Code.REFUSED, f"the rate cannot be limited: {done.stderr.strip()}",
                       "the kernel needs ifb, sch_tbf, sch_ingress, cls_u32 and act_mirred",
                       " ".join(command))
    return done.stdout
