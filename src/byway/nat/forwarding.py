# SPDX-License-Identifier: Apache-2.0
"""The settings of the kernel without which nothing is forwarded: switched on where they are off.

Used by table. Uses machine.netns and /proc/sys/net, which shows the namespace of the thread that
opens its files (Documentation/networking/ip-sysctl of the Linux kernel).

* net.ipv4.ip_forward, net.ipv6.conf.all.forwarding: without them the host routes nothing.
* net.ipv6.conf.IF.accept_ra 1 -> 2, before IPv6 is forwarded: an interface that learns its routes
  from its router would otherwise forget them at that moment. The gateway interface is left out:
  a container is no router of ours.
* net.ipv4.conf.GATEWAY.route_localnet: a call to 127.0.0.1 that is led to a container may leave
  by the gateway interface, and its answer come back. The rules' guard keeps everybody else from it.

They are never switched off again: who else has come to need them in the meantime nobody knows.
"""

from pathlib import Path

from byway.machine.netns import NoNamespaceError, inside
from byway.nat.publication import NatError

_SETTINGS = Path("/proc/sys/net")


def switch_on(namespace: str | None, versions: set[int], gateway: str | None) -> list[str]:
    """Have the kernel of a namespace forward IP of these ``versions`` (4, 6).

    ``gateway``: the interface towards the containers. -> a sentence on each setting that was
    changed. NatError where one cannot be.
    """
    def work() -> list[str]:
        said = []
        if 4 in versions:
            said += _set("ipv4/ip_forward", "1")
            said += _set(f"ipv4/conf/{gateway}/route_localnet", "1") if gateway else []
        if 6 in versions and _read("ipv6/conf/all/forwarding") == "0":
            names = {place.name for place in (_SETTINGS / "ipv6/conf").iterdir()}
            for name in sorted(names - {"all", "default", "lo", gateway}):
                if _read(f"ipv6/conf/{name}/accept_ra") == "1":
                    said += _set(f"ipv6/conf/{name}/accept_ra", "2")
            said += _set("ipv6/conf/all/forwarding", "1")
        return said

    try:
        return inside(namespace, work)
    except NoNamespaceError as error:
        raise NatError(f"the network namespace {namespace} cannot be entered ({error.strerror})",
                       "create it, or give its name as `ip netns list` shows it") from None
    except OSError as error:
        raise NatError(f"{error.filename} cannot be changed ({error.strerror})",
                       "run as root with /proc/sys writable, or set it beforehand") from None


def _read(name: str) -> str:
    return (_SETTINGS / name).read_text().strip()


def _set(name: str, value: str) -> list[str]:
    """Change a setting where it differs; -> what there is to say about it."""
    before = _read(name)
    if before == value:
        return []
    (_SETTINGS / name).write_text(value)
    return [f"net.{name.replace('/', '.')} was {before} and is {value} now"]
