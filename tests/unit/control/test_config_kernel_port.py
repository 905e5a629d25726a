# SPDX-License-Identifier: Apache-2.0
"""The configuration of vhost-kernel ports: interface names, namespaces, addresses."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from byway.control import thishost
from byway.control.fitting import cross_check
from byway.control.model import Config, NetworkConfig, VhostKernelPort
from byway.control.thishost import check_port


def kernel_port(**keys: object) -> VhostKernelPort:
    return VhostKernelPort.model_validate(
        {"name": "k", "network": "blue", "kind": "vhost-kernel", "ifname": "by0", **keys})


def test_a_vhost_kernel_port() -> None:
    plain = kernel_port()
    assert (plain.ifname, plain.netns, plain.address, plain.queues) == ("by0", None, (), 1)
    full = kernel_port(netns="red", address=["10.0.0.2/24", "fd00::0:1/64"], queues=32,
                       ifname="fifteen_bytes15", features={"off": ["packed"]},
                       mac="02:00:00:00:00:01")
    assert full.address == ("10.0.0.2/24", "fd00::1/64")
    assert full.features_off == ("ring_packed",)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        *(({"ifname": bad}, "is no interface name; leave out white space, '/', ':' and '%'")
          for bad in ("a b", "a/b", "a:b", "tap%d", "a\0", "a\u2003b", ".", "..")),
        *(({"ifname": bad}, "is no interface name; write 1 to 15 bytes")
          for bad in ("", "x" * 16, "\u00e4" * 8)),
        *(({"netns": bad}, "is no name of a network namespace; write a name that"
                           " `ip netns list` shows") for bad in ("", "a/b", "..", "\0")),
        *(({"address": [bad]}, 'is no address with a prefix length; write it as in "10.0.0.2/24"')
          for bad in ("10.0.0.2", "10.0.0.2/33", "10.0.0/24", "fd00::1/129", "", "x/24")),
        ({"address": ["10.0.0.2/24", "10.0.0.2/24"]}, "names 10.0.0.2/24 twice; name it once"),
        ({"queues": 33}, "less than or equal to 32"),
    ],
)
def test_a_vhost_kernel_port_that_is_wrong(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kernel_port(**keys)
    assert message in str(caught.value)


def test_two_ports_want_one_interface() -> None:
    blue = NetworkConfig(name="blue")
    ports = (kernel_port(), kernel_port(name="l", netns="red"), kernel_port(name="m", netns="red"))
    assert [str(p) for p in cross_check(Config(networks=(blue,), ports=ports))] == [
        'port "m": ifname: "by0 in netns red" is also that of port "l": ifname;'
        " give it another name"]


def test_the_namespace_of_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thishost, "NETNS_FOLDER", str(tmp_path))
    port = kernel_port(netns="red")
    assert [str(p) for p in check_port(port, "port")] == [
        'port: netns: there is no network namespace "red"; create it: ip netns add red']
    (tmp_path / "red").touch()
    assert check_port(port, "port") == check_port(kernel_port(), "port") == []
