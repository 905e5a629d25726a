# SPDX-License-Identifier: Apache-2.0
"""What users write for an overlay: good files, and what is said about bad ones."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from byway.control.cluster.layout import MAX_IPS, MAX_VALUE, entry_value, packed
from byway.control.config import parse
from byway.control.model import Config
from byway.control.problem import ConfigError
from byway.control.tables import parse_port
from byway.switch.routing import Gateway, check

NULL = {"name": "p", "network": "blue", "kind": "null"}
ROOT = Path(__file__).parents[3]
GOOD = """
[underlay]
address = "192.0.2.1"
mtu = 1550
[[network]]
name = "blue"
vni = 100
subnets = ["10.0.0.0/24"]
gateway = ["10.0.0.1/24"]
gateway_mac = "02:00:00:00:00:fe"
[[network]]
name = "red"
gateway = ["10.1.0.1/24", "fd01::1/64"]
[[host]]
name = "h2"
address = "192.0.2.2"
networks = ["blue"]
[[entry]]
network = "blue"
mac = "02:00:00:00:00:02"
ips = ["10.0.0.2", "fe80::2"]
host = "h2"
[[router]]
name = "r1"
networks = ["blue", "red"]
routes = [{ to = "10.9.0.0/16", via = "10.1.0.9" }, { to = "default", via = "fd01::9" }]
[[security_group]]
name = "web"
rules = [{ direction = "ingress", protocol = "tcp", ports = "80" }]
[[port]]
name = "c1"
network = "blue"
kind = "null"
mac = "02:00:00:00:00:01"
ips = ["10.0.0.3"]
port_security = true
security_groups = ["web"]
vlans = { "10" = "red" }
mirror = { to = "c2" }
[[port]]
name = "c2"
network = "red"
kind = "null"
"""
# What is changed in the file above: a line for another one; and what is then said.
BAD = {
    "no underlay": ('[underlay]\naddress = "192.0.2.1"\nmtu = 1550', "", [
        'host[1] "h2": there is no [underlay] that its tunnel could take;'
        " add [underlay] with the address of this host"]),
    "own address": ('address = "192.0.2.2"', 'address = "192.0.2.1"', [
        'host[1] "h2": address: "192.0.2.1" is also that of underlay: address;'
        " each host has one of its own; name other hosts only"]),
    "another family": ('address = "192.0.2.2"', 'address = "fd00::2"', [
        'host[1] "h2": address: "fd00::2" is not of the family of the underlay\'s address,'
        ' "192.0.2.1"; write both as IPv4 addresses or both as IPv6 addresses']),
    "mtu": ("vni = 100", "vni = 100\nmtu = 1501", [
        'network[1] "blue": mtu: is 1501, but the underlay\'s is 1550 and a tunnel takes 50 of it'
        " (Ethernet 14, VXLAN 8, UDP 8, IPv4 20); write 1500 or less, or leave mtu out"]),
    "no vni": ("vni = 100", "", [
        'host[1] "h2": networks: network "blue" has no vni, so it ends at this host;'
        " give the network a vni, the same on every host",
        'entry[1] "blue/02:00:00:00:00:02": network: network "blue" has no vni, so it ends at this'
        " host; give the network a vni, the same on every host"]),
    "host's network": ('networks = ["blue"]', 'networks = ["blu"]', [
        'host[1] "h2": networks: there is no network "blu"; did you mean "blue"?']),
    "entry's host": ('host = "h2"', 'host = "x"', [
        'entry[1] "blue/02:00:00:00:00:02": host: there is no host "x"; the hosts are: h2']),
    "entry's network": ('network = "blue"\nmac = "02:00:00:00:00:02"',
                        'network = "x"\nmac = "02:00:00:00:00:02"', [
        'entry[1] "x/02:00:00:00:00:02": network: there is no network "x";'
        " the networks are: blue, red"]),
    "entry's address": ('"10.0.0.2", "fe80::2"', '"10.0.1.2"', [
        'entry[1] "blue/02:00:00:00:00:02": ips: "10.0.1.2" is in none of the subnets of network'
        ' "blue" (10.0.0.0/24); take an address of them, or add a subnet']),
    "entry is the gateway": ('mac = "02:00:00:00:00:02"', 'mac = "02:00:00:00:00:fe"', [
        'entry[1] "blue/02:00:00:00:00:fe": mac: is that of the network\'s gateway, which every'
        " host has; leave the entry out"]),
    "entry has the gateway's ip": ('"10.0.0.2", "fe80::2"', '"10.0.0.1"', [
        'entry[1] "blue/02:00:00:00:00:02": ips: "10.0.0.1" is also that of network[1] "blue":'
        " gateway; give each its own address"]),
    "port has the gateway's ip": ('ips = ["10.0.0.3"]', 'ips = ["10.0.0.1"]', [
        'port[1] "c1": ips: "10.0.0.1" is also that of network[1] "blue": gateway;'
        " give each its own address"]),
    "gateway elsewhere": ('gateway = ["10.0.0.1/24"]', 'gateway = ["10.0.1.1/24"]', [
        'network[1] "blue": gateway: "10.0.1.1/24" is in the subnet 10.0.1.0/24, which is not among'
        " subnets (10.0.0.0/24); give it an address and prefix length of one of them"]),
    "gateway's end": ('gateway = ["10.0.0.1/24"]', 'gateway = ["10.0.0.255/24"]', [
        'network[1] "blue": gateway[1]: "10.0.0.255/24" is the broadcast address of its subnet;'
        " take an address between the first and the last one"]),
    "gateway_mac alone": ('gateway = ["10.0.0.1/24"]\n', "", [
        'network[1] "blue": gateway_mac is there, but no gateway;'
        ' add gateway = ["10.0.0.1/24"]']),
    "host bits": ('subnets = ["10.0.0.0/24"]', 'subnets = ["10.0.0.1/24"]', [
        'network[1] "blue": subnets[1]: "10.0.0.1/24" has bits set behind its prefix length;'
        ' write "10.0.0.0/24"']),
    "subnets overlap": ('subnets = ["10.0.0.0/24"]', 'subnets = ["10.0.0.0/24", "10.0.0.0/16"]', [
        'network[1] "blue": subnets: "10.0.0.0/24" and "10.0.0.0/16" overlap;'
        " leave one of them out"]),
    "router's networks overlap": ('gateway = ["10.1.0.1/24"', 'gateway = ["10.0.0.129/25"', [
        'router[1] "r1": networks: their subnets overlap: 10.0.0.0/24 of blue, 10.0.0.128/25 of'
        " red; give each network subnets of its own, or join them by different routers",
        'router[1] "r1": routes[1].via: "10.1.0.9" is in none of the subnets of the router\'s'
        " gateways (10.0.0.0/24, 10.0.0.128/25, fd01::/64); name a machine in one of them"]),
    "router's networks are equal": ('gateway = ["10.1.0.1/24"', 'gateway = ["10.0.0.9/24"', [
        'router[1] "r1": networks: two of them have the subnet 10.0.0.0/24; give each network'
        " subnets of its own, or join them by different routers",
        'router[1] "r1": routes[1].via: "10.1.0.9" is in none of the subnets of the router\'s'
        " gateways (10.0.0.0/24, fd01::/64); name a machine in one of them"]),
    "no gateway": ('gateway = ["10.1.0.1/24", "fd01::1/64"]', "", [
        'router[1] "r1": networks: network "red" has no gateway; give it the router\'s address'
        ' there: gateway = ["10.0.0.1/24"]',
        'router[1] "r1": routes[1].via: "10.1.0.9" is in none of the subnets of the router\'s'
        " gateways (10.0.0.0/24); name a machine in one of them",
        'router[1] "r1": routes[2].via: "fd01::9" is in none of the subnets of the router\'s'
        " gateways (10.0.0.0/24); name a machine in one of them"]),
    "route by itself": ('via = "10.1.0.9"', 'via = "10.1.0.1"', [
        'router[1] "r1": routes[1].via: "10.1.0.1" is the router itself; name another machine']),
    "two routers": ('[[security_group]]', '[[router]]\nname = "r2"\nnetworks = ["red"]\n'
                    "[[security_group]]", [
        'router[2] "r2": networks: "red" is also that of router[1] "r1": networks;'
        " a network has one router"]),
    "two routes": ('to = "10.9.0.0/16", via = "10.1.0.9" }', 'to = "10.9.0.0/16", via = "10.1.0.9"'
                   ' }, { to = "10.9.0.0/16", via = "10.1.0.8" }', [
        'router[1] "r1": routes: there are two to "10.9.0.0/16"; leave one of them out']),
    "two default routes": ('to = "10.9.0.0/16", via = "10.1.0.9" }',
                           'to = "0.0.0.0/0", via = "10.1.0.9" }, { to = "default",'
                           ' via = "10.1.0.8" }', [
        'router[1] "r1": routes: there are two to "default" (0.0.0.0/0);'
        " leave one of them out"]),
    "two default routes of IPv6": ('to = "10.9.0.0/16", via = "10.1.0.9" }',
                                   'to = "::/0", via = "fd01::8" }', [
        'router[1] "r1": routes: there are two to "default" (::/0); leave one of them out']),
    "a mapped route": ('to = "10.9.0.0/16", via = "10.1.0.9"',
                       'to = "::ffff:10.9.0.0/112", via = "fd01::8"', [
        'router[1] "r1": routes[1]: to: is an IPv4 network in the form of an IPv6 one;'
        ' write "10.9.0.0/16"']),
    "a mapped next hop": ('to = "10.9.0.0/16", via = "10.1.0.9"',
                          'to = "fd09::/16", via = "::ffff:10.1.0.9"', [
        'router[1] "r1": routes[1].via: "::ffff:10.1.0.9" is an IPv4 address in the form of an'
        ' IPv6 one; write "10.1.0.9"']),
    "a next hop where no gateway is": ('via = "10.1.0.9"', 'via = "10.7.0.9"', [
        'router[1] "r1": routes[1].via: "10.7.0.9" is in none of the subnets of the router\'s'
        " gateways (10.0.0.0/24, 10.1.0.0/24, fd01::/64); name a machine in one of them"]),
    "a mapped gateway": ('gateway = ["10.0.0.1/24"]', 'gateway = ["::ffff:10.2.0.1/120"]', [
        'network[1] "blue": gateway[1]: "::ffff:10.2.0.1" is an IPv4 address in the form of an'
        ' IPv6 one; write "10.2.0.1"']),
    "gateways overlap": ('subnets = ["10.0.0.0/24"]\ngateway = ["10.0.0.1/24"]',
                         'gateway = ["10.0.0.1/24", "10.0.0.2/16"]', [
        'network[1] "blue": gateway: the subnets 10.0.0.0/24 and 10.0.0.0/16 of two addresses'
        " overlap; give both the same prefix length, or leave one of them out"]),
    "no such group": ('security_groups = ["web"]', 'security_groups = ["wep"]', [
        'port[1] "c1": security_groups: there is no security group "wep"; did you mean "web"?']),
    "no such remote group": ('ports = "80" }', 'remote_group = "x" }', [
        'security_group[1] "web": rules[1].remote_group: there is no security group "x";'
        " the security groups are: web"]),
    "no such rule key": ('ports = "80" }', 'prots = "80" }', [
        'security_group[1] "web": rules[1].prots: rules[1] has no such key;'
        ' did you mean "ports"?']),
    "ports of what": ('protocol = "tcp", ports = "80" }', 'ports = "80" }', [
        'security_group[1] "web": rules[1]: ports is there, but the protocol has none;'
        ' write protocol = "tcp" or "udp", or leave ports out']),
    "ports backwards": ('ports = "80"', 'ports = "81-80"', [
        'security_group[1] "web": rules[1].ports: "81-80" is no range of ports;'
        " write the lower one first; the highest is 65535"]),
    "protocol": ('protocol = "tcp"', 'protocol = "tpc"', [
        'security_group[1] "web": rules[1].protocol: "tpc" is no protocol;'
        ' write "tcp", "udp", "icmp", "icmpv6", or a number from 0 to 255']),
    "two remotes": ('ports = "80" }', 'remote = "10.0.0.0/8", remote_group = "web" }', [
        'security_group[1] "web": rules[1]: remote and remote_group are both there;'
        " make two rules of it"]),
    "icmp": ('protocol = "tcp", ports = "80" }', 'protocol = "icmp", remote = "fd00::/8" }', [
        'security_group[1] "web": rules[1]: protocol "icmp" is not of the family of remote'
        ' "fd00::/8"; write protocol = "icmpv6"']),
    "ethertype": ('ports = "80" }', 'ethertype = "ipv6", remote = "10.0.0.0/8" }', [
        'security_group[1] "web": rules[1]: remote "10.0.0.0/8" is not of ethertype "ipv6";'
        " write a network of the same family"]),
    "too many pairs": ('port_security = true', "allowed_address_pairs = [" + ", ".join(
        f'{{ ip = "10.9.0.{k}" }}' for k in range(101)) + "]", [
        'port[1] "c1": allowed_address_pairs: has 101 address pairs;'
        " name 100 at most; networks hold many"]),
    "too many addresses": ('ips = ["10.0.0.3"]', "ips = [" + ", ".join(
        f'"10.0.0.{k + 2}"' for k in range(65)) + "]", [
        'port[1] "c1": ips: has 65 addresses;'
        " name 64 at most; others can be networks in allowed_address_pairs"]),
    "too many addresses of an interface": (
        'name = "c2"\nnetwork = "red"\nkind = "null"',
        'name = "c2"\nnetwork = "red"\nkind = "tap"\nifname = "t0"\naddress = [' + ", ".join(
            f'"10.1.0.{k + 2}/24"' for k in range(65)) + "]", [
        'port[2] "c2": address: has 65 addresses; name 64 at most']),
    "mac of two": ('name = "c2"\nnetwork = "red"', 'name = "c2"\nnetwork = "blue"\n'
                   'mac = "02:00:00:00:00:01"', [
        'port[2] "c2": mac: "02:00:00:00:00:01" is also that of port[1] "c1": mac;'
        " give each port of a network a mac of its own"]),
    "ip of two": ('name = "c2"\nnetwork = "red"', 'name = "c2"\nnetwork = "blue"\n'
                  'ips = ["10.0.0.3"]', [
        'port[2] "c2": ips: "10.0.0.3" is also that of port[1] "c1": ips;'
        " give each its own address"]),
    "ip elsewhere": ('ips = ["10.0.0.3"]', 'ips = ["10.3.0.3"]', [
        'port[1] "c1": ips: "10.3.0.3" is in none of the subnets of network "blue" (10.0.0.0/24);'
        " take an address of them, or add a subnet"]),
    "security without a mac": ('mac = "02:00:00:00:00:01"\n', "", [
        'port[1] "c1": port_security is true, but the port has no mac;'
        " add the mac that the guest is to have"]),
    "tag twice": ('"10" = "red"', '"10" = "red", "010" = "x"', [
        'port[1] "c1": vlans: tag 10 is there twice; give each tag one network']),
    "network twice": ('"10" = "red"', '"10" = "red", "11" = "red"', [
        'port[1] "c1": vlans: network "red" has two tags; give each network one tag']),
    "native twice": ('"10" = "red"', '"10" = "blue"', [
        'port[1] "c1": vlans: "blue" is the native network already;'
        " give each network one tag, or none"]),
    "tag": ('"10" = "red"', '"4095" = "red"', [
        'port[1] "c1": vlans: "4095" is no VLAN tag; write a number from 1 to 4094']),
    "vlan's network": ('"10" = "red"', '"10" = "green"', [
        'port[1] "c1": vlans.10: there is no network "green"; the networks are: blue, red']),
    "mirror": ('mirror = { to = "c2" }', 'mirror = { to = "c1" }', [
        'port[1] "c1": mirror: to is the port itself; name another port']),
    "mirror to nobody": ('mirror = { to = "c2" }', 'mirror = { to = "c9" }', [
        'port[1] "c1": mirror.to: there is no port "c9"; the ports are: c1, c2']),
    "uplink": ('mtu = 1550', 'uplink = "c1"', [
        'underlay: uplink: port "c1" is in network "blue", which has a vni: its tunnels would go'
        " through themselves; give the uplink a network of its own, without a vni"]),
    "gateway without an uplink": ('mtu = 1550', 'gateway = "192.0.2.9"', [
        "underlay: gateway is there, but no uplink: the kernel has routes of its own;"
        " name the port of the uplink, or leave gateway out"]),
    "vni of two": ('gateway = ["10.1.0.1/24"', 'vni = 100\ngateway = ["10.1.0.1/24"', [
        'network[2] "red": vni: 100 is also that of network[1] "blue": vni; give it another vni']),
    "entry twice": ("[[router]]", '[[entry]]\nnetwork = "blue"\nmac = "02:00:00:00:00:02"\n'
                    'host = "h2"\n[[router]]', [
        'entry[2] "blue/02:00:00:00:00:02": mac: entry[1] "blue/02:00:00:00:00:02" is of the same'
        " guest; leave one of them out"]),
    "cluster": ('[underlay]\naddress = "192.0.2.1"\nmtu = 1550',
                '[cluster]\netcd = ["10.0.0.9"]\ncert = "/x"', [
        'cluster: etcd[1]: "10.0.0.9" is no address of an etcd;'
        ' write it as in "10.0.0.9:2379" or "https://etcd1:2379"',
        'host[1] "h2": there is no [underlay] that its tunnel could take;'
        " add [underlay] with the address of this host"]),
    "cluster without underlay": (GOOD, '[cluster]\netcd = ["10.0.0.9:2379"]\n', [
        "cluster: there is no [underlay] that tunnels could take;"
        " add [underlay] with the address of this host"]),
    "cluster's pairs": (GOOD, '[cluster]\netcd = ["10.0.0.9:2379"]\ncert = "/x"\n', [
        "cluster: cert is there, but no key; add key, or leave out cert"]),
    "what is not there at all": (GOOD, '[[host]]\nname = "h"\n[[entry]]\nhost = "h"\n', [
        'host[1] "h": address: is missing; add one, such as address = "192.0.2.1"',
        "entry[1]: network: is missing; name the network that it belongs to",
        'entry[1]: mac: is missing; add one, such as mac = "02:00:00:00:00:01"']),
    "one bad part has one problem": ('name = "blue"\nvni = 100', 'name = "blue"\nvni = "x"', [
        'network[1] "blue": vni: is "x" (a string); write a whole number']),
}


def good(text: str) -> Config:
    return parse(tomllib.loads(text))


def test_a_good_file() -> None:
    config = good(GOOD)
    assert config.underlay is not None
    assert (config.underlay.family, config.underlay.overhead, config.underlay.port) == (4, 50, 4789)
    blue, red = config.networks
    assert (blue.reach, red.reach) == (("10.0.0.0/24",), ("10.1.0.0/24", "fd01::/64"))
    assert (blue.responds, blue.learns(False), blue.learns(True)) == (True, True, False)
    assert config.ports[0].vlans == ((10, "red"),)
    assert config.ports[0].networks == ("blue", "red")


def test_gateways_may_share_a_subnet_and_links_are_no_subnets() -> None:
    text = GOOD.replace('"fd01::1/64"]', '"10.1.0.2/24", "fd01::1/64", "fe80::1/64", "fe80::2/10"]')
    red = good(text).networks[1]
    assert red.routed == ("10.1.0.0/24", "fd01::/64")
    check([Gateway(1, 70, 0x020000000001, red.gateway)])  # the tables take them


def test_a_port_may_have_as_many_addresses_as_hosts_tell_each_other() -> None:
    ips = [f"10.0.0.{k + 1}" for k in range(MAX_IPS)]
    made = parse_port({**NULL, "ips": ips}, "p")
    assert list(made.ips) == ips
    assert len(entry_value(tuple(map(packed, made.ips)), 1)) < MAX_VALUE


@pytest.mark.parametrize("table", [
    {"ips": ["\ud800"]}, {"\ud800": 1}, {"vlans": {"1": "\udfff"}}, {"limit": {"\udc80": 1}},
    {"kind": "af-packet", "ifname": "e\udc80"}, {"kind": "vhost-user", "socket": "/tmp/\ud800"},
    {"kind": "af-packet", "ifname": "e", "netns": "\ud800"}, {"kind": "pcap", "read": "\ud800"}])
def test_half_a_character_is_refused_in_words_that_can_be_said(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="half of a surrogate pair in it, which is no") as caught:
        parse_port({**NULL, **table}, "p")
    str(caught.value).encode()


def test_a_whole_pair_is_a_character() -> None:
    assert parse_port({**NULL, "kind": "pcap", "read": "/tmp/\U0001f600"}, "p").kind == "pcap"


@pytest.mark.parametrize(("subnet", "gateway", "via"), [
    ("10.7.0.0/24", "10.1.0.2/24", "10.7.0.9"), ("fe80::/64", "fe80::1/64", "fe80::9"),
    ("fe00::/8", "fe00::1/8", "fe80::9")])
def test_a_next_hop_is_where_a_gateway_routes(subnet: str, gateway: str, via: str) -> None:
    """The network has its subnet, but the router has no address in it that it routes from."""
    subnets = f'"10.1.0.0/24", "fd01::/64", "{subnet}"'
    to = "fd09::/16" if ":" in via else "10.9.0.0/16"
    text = GOOD.replace('name = "red"', f'name = "red"\nsubnets = [{subnets}]').replace(
        'to = "10.9.0.0/16", via = "10.1.0.9"', f'to = "{to}", via = "{via}"').replace(
        '"fd01::1/64"]', f'"fd01::1/64", "{gateway}"]')
    with pytest.raises(ConfigError, match=rf'"{via}" is in none of the subnets of the router.s'):
        good(text)


@pytest.mark.parametrize(("line", "other", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_explained(line: str, other: str, said: list[str]) -> None:
    assert GOOD.count(line) >= 1
    with pytest.raises(ConfigError) as caught:
        good(GOOD.replace(line, other, 1))
    assert [str(problem) for problem in caught.value.problems] == said


def test_every_file_of_the_reference_is_good() -> None:
    text = (ROOT / "docs/reference/config.md").read_text()
    files = re.findall(r'```toml title="[^"]+"\n(.*?)```', text, re.DOTALL)
    assert len(files) >= 14
    for file in files:
        good(file)


@pytest.mark.parametrize("mtu", [576, 1500])
def test_an_mtu_that_is_left_out_always_fits(mtu: int) -> None:
    assert good(GOOD.replace("mtu = 1550", f"mtu = {mtu}")).underlay is not None


def test_a_rule_says_what_it_is_for() -> None:
    written = [
        'direction = "egress"', 'direction = "egress", protocol = "icmp"',
        'direction = "egress", protocol = "icmpv6", icmp_type = 128',
        'direction = "egress", protocol = 17, ports = "53-60", remote = "fd00::/8"',
        'direction = "egress", ethertype = "ipv4", protocol = "udp", ports = "53"']
    rules = good(f'[[security_group]]\nname = "x"\nrules = [{{ {" }, { ".join(written)} }}]'
                 ).groups[0].rules
    assert [rule.families for rule in rules] == [(4, 6), (4,), (6,), (6,), (4,)]
    assert [rule.port_range for rule in rules] == [None, None, None, (53, 60), (53, 53)]


def test_groups_may_speak_of_themselves_and_each_other() -> None:
    text = "".join(
        f'[[security_group]]\nname = "{name}"\n'
        f'rules = [{{ direction = "ingress", remote_group = "{other}" }}]\n'
        for name, other in (("a", "a"), ("b", "c"), ("c", "b")))
    assert len(good(text).groups) == 3


def test_the_addresses_of_a_tap_are_its_own() -> None:
    (tap, other) = good(
        '[[network]]\nname = "blue"\n[[port]]\nname = "t"\nkind = "tap"\nnetwork = "blue"\n'
        'ifname = "t"\naddress = ["10.0.0.2/24"]\n[[port]]\nname = "u"\nkind = "tap"\n'
        'network = "blue"\nifname = "u"\naddress = ["10.0.0.3/24"]\nips = ["10.0.0.4"]\n').ports
    assert (tap.known_ips, other.known_ips) == (("10.0.0.2",), ("10.0.0.4",))
