# SPDX-License-Identifier: Apache-2.0
"""What doctor says of machines that have everything, nothing, or not even /proc."""

from pathlib import Path

import pytest

from byway.machine import cachedir, jit
from byway.machine.cachedir import sources_digest
from byway.machine.cpulist import format_cpu_list, parse_cpu_list
from byway.machine.facts import Fact, machine_facts

FILES = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Test CPU\n"
                    "flags\t\t: fpu avx512bw constant_tsc nonstop_tsc\n\nprocessor\t: 1\n",
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "sys/devices/system/cpu/online": "0-3,8\n",
    "sys/devices/system/cpu/isolated": "2-3\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "500\n",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled": "always [within_size] never\n",
    "dev/net/tun": "",
    "dev/vhost-net": "",
    "dev/kvm": "",
    "proc/self/status": "Name:\tbyway\nCapEff:\t000001ffffffffff\n",
}


def machine(root: Path, **changed: str) -> dict[str, Fact]:
    """The facts, by name, of a machine with FILES, some of them changed."""
    for name, content in {**FILES, **changed}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {fact.name: fact for fact in machine_facts(root)}


def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    facts = machine(tmp_path)
    assert facts["CPUs"].found.startswith("5 on line (0-3,8)")
    assert facts["processor"].found == "Test CPU"
    assert facts["huge pages"].found == "512 of 2 MiB, 500 free"
    assert facts["kernel"].found == "Linux 6.1.0"
    for name in ("isolated CPUs", "AVX-512", "time stamp counter", "kernel", "memfd", "eventfd",
                 "huge pages", "transparent huge pages", "/dev/net/tun", "/dev/vhost-net",
                 "/dev/kvm", "software"):
        assert facts[name].state == "ok", name
    assert facts["AF_XDP"].state in ("ok", "missing"), "as this kernel has it"


def test_what_af_xdp_lacks(tmp_path: Path) -> None:
    def capabilities(*numbers: int) -> Fact:
        held = sum(1 << number for number in numbers)
        return machine(tmp_path, **{"proc/self/status": f"CapEff:\t{held:016x}\n"})["AF_XDP"]

    none = capabilities()
    if none.found.startswith("not in this kernel"):
        assert none.state == "missing"
        return
    assert none.found == "there, but without CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF"
    assert capabilities(12, 13, 39).found == "there, but without CAP_SYS_ADMIN"
    assert capabilities(12, 13, 21).state == "ok", "CAP_SYS_ADMIN includes CAP_BPF"


def test_a_machine_that_lacks_much(tmp_path: Path) -> None:
    facts = machine(tmp_path, **{
        "proc/cpuinfo": "flags\t: fpu\n",
        "sys/devices/system/cpu/isolated": "\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "sys/kernel/mm/transparent_hugepage/shmem_enabled": "always [never]\n",
    })
    for name in ("isolated CPUs", "AVX-512", "time stamp counter", "huge pages",
                 "transparent huge pages"):
        assert facts[name].state == "missing", name
        assert facts[name].gives, name


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    facts = {fact.name: fact for fact in machine_facts(tmp_path)}
    assert facts["/dev/net/tun"] == Fact(
        "/dev/net/tun", "missing", "not there", facts["/dev/net/tun"].gives, "modprobe tun")


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    (fact,) = [fact for fact in machine_facts(tmp_path) if fact.name == "cpus"]
    assert fact.state == "info"
    assert fact.found.startswith("unknown: ")


def test_the_cache_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYWAY_CACHE", str(tmp_path / "cache"))
    assert machine(tmp_path)["machine code"].found.endswith("0.0 MiB, empty")
    current = tmp_path / "cache" / sources_digest()
    current.mkdir(parents=True)
    (current / "loop.nbc").write_bytes(bytes(1 << 20))
    fact = machine(tmp_path)["machine code"]
    assert (fact.state, fact.found) == ("ok", f"{tmp_path}/cache, 1.0 MiB, up to date")
    (current / "loop.nbc").rename(current / "loop.old")
    assert machine(tmp_path)["machine code"].found.endswith("1.0 MiB, of other sources")


def test_doctor_and_compiler_look_in_one_place() -> None:
    assert jit.cache_root() == cachedir.cache_root()
    assert jit.sources_digest() == cachedir.sources_digest()


@pytest.mark.parametrize(
    ("text", "cpus"), [("", []), ("0\n", [0]), ("0-3,8", [0, 1, 2, 3, 8]), ("1,3", [1, 3])])
def test_cpu_lists(text: str, cpus: list[int]) -> None:
    assert parse_cpu_list(text) == cpus
    assert format_cpu_list(cpus) == text.strip()
