# SPDX-License-Identifier: Apache-2.0
"""What this machine offers to a switch: each fact with what it gives, and how to get it.

Used by `byway doctor`. Reads /proc, /sys and /dev and tries a few system calls; changes nothing.
Imports neither the compiler nor the data path.
"""

import fcntl
import os
import platform
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from byway.machine.cachedir import cache_root, sources_digest
from byway.machine.cpulist import format_cpu_list, parse_cpu_list
from byway.machine.rundir import run_directories

_NEEDED_FDS = 4096
_FDS_OF_A_PORT = 8  # socket, connection, memory, kicks and calls
_AF_XDP = 44
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
_LIBRARIES = ("numba", "llvmlite", "numpy", "pydantic", "fastapi", "uvicorn")


@dataclass(frozen=True)
class Fact:
    """One thing that a machine has or lacks.

    `state`: "ok", "missing" (works without, `gives` says what it would be good for), "broken"
    (Byway does not work without) or "info". `fix` is empty where there is nothing to do.
    """

    name: str
    state: str
    found: str
    gives: str = ""
    fix: str = ""


def machine_facts(root: Path = Path("/")) -> list[Fact]:
    """All facts, in the order of their weight; `root` stands for / (tests bring their own)."""
    look: list[Callable[[Path], Fact]] = [
        _cpus, _isolated, _processor, _avx512, _tsc, _kernel, _sealing, _eventfd, _huge_pages,
        _shmem_huge_pages, _tun, _vhost_net, _xdp, _kvm, _memlock, _files, _cache, _run_directory,
        _software,
    ]
    return [_safe(one, root) for one in look]


def _safe(look: Callable[[Path], Fact], root: Path) -> Fact:
    """The fact, or that it could not be found out."""
    try:
        return look(root)
    except (OSError, ValueError) as error:
        return Fact(look.__name__.strip("_").replace("_", " "), "info", f"unknown: {error}")


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip()


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first CPU's block of /proc/cpuinfo."""
    first = _read(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpus(root: Path) -> Fact:
    online = parse_cpu_list(_read(root / "sys/devices/system/cpu/online"))
    usable = sorted(os.sched_getaffinity(0))
    found = f"{len(online)} on line ({format_cpu_list(online)}), usable: {format_cpu_list(usable)}"
    gives = "a worker on a CPU of its own, next to its guests"
    if len(usable) > 1:
        return Fact("CPUs", "ok", found, gives)
    return Fact("CPUs", "missing", found, gives, "give this process at least two CPUs")


def _isolated(root: Path) -> Fact:
    found = _read(root / "sys/devices/system/cpu/isolated")
    gives = "workers that no other thread interrupts: fewer late frames"
    if found:
        return Fact("isolated CPUs", "ok", found, gives)
    return Fact("isolated CPUs", "missing", "none", gives,
                "boot with isolcpus=LIST and name these CPUs in switch.workers")


def _processor(root: Path) -> Fact:
    info = _cpuinfo(root)
    return Fact("processor", "info", info.get("model name", platform.machine()))


def _flags(root: Path) -> set[str]:
    info = _cpuinfo(root)
    return set(info.get("flags", info.get("Features", "")).split())


def _avx512(root: Path) -> Fact:
    gives = "copies of 64 bytes at once with a masked tail: fewer cycles a frame"
    if "avx512bw" in _flags(root):
        return Fact("AVX-512", "ok", "avx512bw", gives)
    return Fact("AVX-512", "missing", "no avx512bw", gives, "")


def _tsc(root: Path) -> Fact:
    lacking = [flag for flag in ("constant_tsc", "nonstop_tsc") if flag not in _flags(root)]
    gives = "cycles per frame that can be compared"
    if not lacking:
        return Fact("time stamp counter", "ok", "constant, does not stop", gives)
    return Fact("time stamp counter", "missing", f"no {' and no '.join(lacking)}", gives, "")


def _kernel(root: Path) -> Fact:
    release = _read(root / "proc/sys/kernel/osrelease")
    return Fact("kernel", "ok", f"{platform.system()} {release}")


def _sealing(root: Path) -> Fact:
    gives = "memory for guests that nobody can shrink"
    try:
        fd = os.memfd_create("byway-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        return Fact("memfd", "broken", f"no memfd ({error.strerror})", gives,
                    "use a Linux kernel of 3.17 or newer, and allow memfd_create")
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError as error:
        return Fact("memfd", "missing", f"no seals ({error.strerror})", gives, "")
    finally:
        os.close(fd)
    return Fact("memfd", "ok", "with seals", gives)


def _eventfd(root: Path) -> Fact:
    gives = "kicks and calls, and workers that sleep"
    try:
        os.close(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError as error:
        return Fact("eventfd", "broken", error.strerror or "", gives, "allow eventfd2")
    return Fact("eventfd", "ok", "there", gives)


def _huge_pages(root: Path) -> Fact:
    found = []
    gives = "guest memory with fewer TLB misses (not needed)"
    for folder in sorted((root / "sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        total, free = int(_read(folder / "nr_hugepages")), int(_read(folder / "free_hugepages"))
        if total:
            size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) // 1024
            found.append(f"{total} of {size} MiB, {free} free")
    if found:
        return Fact("huge pages", "ok", "; ".join(found), gives)
    return Fact("huge pages", "missing", "none reserved", gives, "sysctl vm.nr_hugepages=512")


def _shmem_huge_pages(root: Path) -> Fact:
    modes = _read(root / "sys/kernel/mm/transparent_hugepage/shmem_enabled")
    chosen = modes.partition("[")[2].partition("]")[0]
    gives = "huge pages under memfd without reserving any"
    if chosen in ("always", "within_size", "advise", "force"):
        return Fact("transparent huge pages", "ok", f"shared memory: {chosen}", gives)
    return Fact("transparent huge pages", "missing", f"shared memory: {chosen}", gives,
                "echo within_size > /sys/kernel/mm/transparent_hugepage/shmem_enabled")


def _tun(root: Path) -> Fact:
    return _device(root / "dev/net/tun", "/dev/net/tun",
                   "taps: the interfaces of ports of the kind vhost-kernel", "modprobe tun")


def _vhost_net(root: Path) -> Fact:
    return _device(root / "dev/vhost-net", "/dev/vhost-net",
                   "ports of the kind vhost-kernel: containers and the host's own network stack",
                   "modprobe vhost_net")


def _xdp(root: Path) -> Fact:
    gives = "ports of the kind af-xdp: frames of an interface before the kernel's stack sees them"
    status = dict(line.split(":\t", 1) for line in _read(root / "proc/self/status").splitlines()
                  if ":\t" in line)
    held = int(status["CapEff"], 16)
    has_all = held >> _CAPABILITIES["CAP_SYS_ADMIN"] & 1  # it includes CAP_BPF
    lacking = [name for name, bit in _CAPABILITIES.items()
               if not held >> bit & 1 and not (has_all and name == "CAP_BPF")]
    try:
        with suppress(PermissionError):  # the capability is named below
            socket.socket(_AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return Fact("AF_XDP", "missing", f"not in this kernel ({error.strerror})", gives,
                    "use a kernel with CONFIG_XDP_SOCKETS")
    if lacking:
        return Fact("AF_XDP", "missing", f"there, but without {', '.join(lacking)}", gives,
                    "give byway these capabilities (CAP_SYS_ADMIN for other namespaces only)")
    return Fact("AF_XDP", "ok", "there", gives)


def _kvm(root: Path) -> Fact:
    return _device(root / "dev/kvm", "/dev/kvm", "virtual machines at full speed",
                   "modprobe kvm_intel or kvm_amd, or allow nested virtualisation")


def _device(path: Path, name: str, gives: str, fix: str) -> Fact:
    if not path.exists():
        return Fact(name, "missing", "not there", gives, fix)
    if not os.access(path, os.R_OK | os.W_OK):
        return Fact(name, "missing", "you may not open it", gives, "join its group, or be root")
    return Fact(name, "ok", "there", gives)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _memlock(root: Path) -> Fact:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found = f"{_limit(soft)} bytes (at most {_limit(hard)})"
    gives = "memory that is never paged out (guests share their own; not needed)"
    if soft == resource.RLIM_INFINITY or os.geteuid() == 0 or soft >= 64 << 20:
        return Fact("memory lock limit", "ok", found, gives)
    return Fact("memory lock limit", "missing", found, gives, "ulimit -l, or LimitMEMLOCK=infinity")


def _files(root: Path) -> Fact:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{_limit(soft)} (at most {_limit(hard)})"
    gives = f"many ports: each takes about {_FDS_OF_A_PORT} files"
    if soft == resource.RLIM_INFINITY or soft >= _NEEDED_FDS:
        return Fact("open files limit", "ok", found, gives)
    return Fact("open files limit", "missing", found, gives,
                f"ulimit -n {_NEEDED_FDS}, or LimitNOFILE={_NEEDED_FDS}")


def _cache(root: Path) -> Fact:
    """Looks at the real cache: it belongs to the user, not to `root`."""
    directory = cache_root()
    current = directory / sources_digest()
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    gives = "a start without compiling (the first run with new sources fills it)"
    if any(current.glob("*.nbc")):
        return Fact("machine code", "ok", f"{directory}, {size:.1f} MiB, up to date", gives)
    state = "of other sources" if files else "empty"
    return Fact("machine code", "missing", f"{directory}, {size:.1f} MiB, {state}", gives,
                "byway demo")


def _run_directory(root: Path) -> Fact:
    directory = run_directories()[0]
    gives = "a place for the API's socket that needs no configuration"
    place = directory if directory.exists() else directory.parent
    if os.access(place, os.W_OK | os.X_OK):
        return Fact("run directory", "ok", str(directory), gives)
    return Fact("run directory", "missing", f"you may not write to {place}", gives,
                "set XDG_RUNTIME_DIR, or switch.api in the configuration")


def _software(root: Path) -> Fact:
    found = [f"Python {platform.python_version()}"]
    lacking = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lacking.append(name)
    if lacking:
        return Fact("software", "broken", f"not installed: {', '.join(lacking)}",
                    fix="pip install byway")
    return Fact("software", "ok", ", ".join(found))
