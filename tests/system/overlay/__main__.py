# SPDX-License-Identifier: Apache-2.0
"""The test bed by hand: started by `scripts/overlay-bed`, gone when its input ends.

Prints what is there and how to get in, checks that everybody is reached and no network meets the
other, and waits for a line (or, with ``--check``, for nothing). The exit status is 0 where all is
well, 1 where a station does not answer or answers across networks, 2 where there is no bed.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.system.overlay.bed import NAMES, Bed, Source
from tests.system.overlay.stations import VirtualMachine
from tests.system.peers.process import PeerError


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="overlay-bed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", choices=[one.value for one in Source], default="static",
                        help="where hosts know each other from")
    parser.add_argument("--hosts", type=int, choices=range(1, 1 + len(NAMES)), default=len(NAMES))
    parser.add_argument("--mtu", type=int, default=1500, help="of the underlay")
    parser.add_argument("--ipv6", action="store_true", help="as the underlay's protocol")
    parser.add_argument("--uplink", choices=["af-packet", "af-xdp"], default="",
                        help="switches speak to the underlay by such a port; static hosts only")
    parser.add_argument("--check", action="store_true", help="check, and end")
    return parser.parse_args()


def inventory(bed: Bed) -> str:
    """What is there, as lines of text."""
    lines = ["hosts (byway commands take --api):"]
    for node in bed.nodes.values():
        lines.append(f"  {node.name}  {node.address:<14} {node.folder}/api.sock"
                     f"  nsenter --net=/run/netns/{node.namespace.name}")
    lines.append("stations:")
    for member in bed.members.values():
        what = "machine" if isinstance(member, VirtualMachine) else "container"
        lines.append(f"  {member.name:<7} {what:<10} on {member.host}  {member.seat.ipv4:<11}"
                     f" {member.seat.ipv6:<9} nsenter --net=/run/netns/{member.namespace.name}")
    lines.append(f"underlay: nsenter --net=/run/netns/{bed.underlay.wire.name}")
    return "\n".join(lines)


def check(bed: Bed) -> bool:
    """Who knows too little, who does not answer, who does and must not; whether all is well."""
    try:
        print(f"all hosts agree after {bed.wait_agreed():.2f} s")
    except PeerError as error:
        print(error)
    missing, leaks = bed.missing(), bed.leaks()
    for name, addresses in missing.items():
        print(f"{name} does not reach {', '.join(sorted(addresses))}")
    for name, addresses in leaks.items():
        print(f"{name} reaches another network: {', '.join(sorted(addresses))}")
    if not missing and not leaks:
        print("every station reaches all of its network, and none of the other")
    return not missing and not leaks


def main() -> int:
    """Make the bed; its exit status."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # whatever ends it, nothing is left
    with tempfile.TemporaryDirectory(prefix="byway-") as folder:
        try:
            bed = Bed(Path(folder), Source(given.source), NAMES[: given.hosts], mtu=given.mtu,
                      family=6 if given.ipv6 else 4, uplink=given.uplink)
        except PeerError as error:
            print(f"overlay-bed: {error}", file=sys.stderr)
            return 2
        with bed:
            print(inventory(bed), flush=True)
            well = check(bed)
            if not given.check:
                print("press Enter to end", flush=True)
                sys.stdin.readline()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
