# SPDX-License-Identifier: Apache-2.0
"""Hosts of a cluster with a real etcd: they find each other, and survive what etcd does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.control.cluster.etcd import OPERATIONS, PAGE, Etcd, delete, put
from byway.control.cluster.layout import HostValue, Layout, entry_value
from byway.control.problem import ConfigError, EngineError
from tests.system.cluster_host import TTL, Host, until
from tests.system.etcd_server import EtcdServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MAC = 0x020000000001
IP = b"\0" * 10 + b"\xff\xff\x0a\0\0\1"
LAYOUT = Layout("/byway")
BLUE = {"name": "blue", "vni": "auto", "subnets": ["10.0.0.0/24", "fd00::/64"],
        "gateway": ["10.0.0.1/24"]}


def port(name: str, **more: Any) -> dict[str, Any]:
    """A port's table, of a kind that opens nothing."""
    return {"name": name, "network": "blue", "kind": "null", **more}


@pytest.fixture
def etcd(own_folder: Path) -> Iterator[EtcdServer]:
    with EtcdServer(own_folder) as server:
        yield server


@pytest.fixture
def client(etcd: EtcdServer) -> Iterator[Etcd]:
    made = Etcd(etcd.access())
    yield made
    made.close()


@contextlib.asynccontextmanager
async def two_hosts(etcd: EtcdServer) -> AsyncIterator[tuple[Host, Host]]:
    """Hosts a and b with a port each in the network blue, and an address at a."""
    async with Host("a", etcd.url, 1) as a, Host("b", etcd.url, 2) as b:
        await a.cluster.put_network(dict(BLUE))
        for host in (a, b):
            await host.cluster.put_port(host.cluster.host, port(f"p-{host.cluster.host}"))
        a.population.put_local("blue", MAC, [IP])
        await until(lambda: b.where(MAC) == "a" and ("blue", "a") in b.overlay.floods
                    and ("blue", "b") in a.overlay.floods)
        yield a, b


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's own loop."""
    asyncio.run(test())


def test_hosts_find_each_other_and_what_is_behind_them(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            assert a.overlay.tunnels == {"b": "192.0.2.2"}
            assert b.overlay.entries == {("blue", MAC): ((IP,), "a")}
            a.population.drop_local("blue", MAC)
            await until(lambda: b.overlay.entries == {})
            status = b.status()
            assert status["connected"]
            assert status["synced"]
            assert status["problems"] == []
            assert status["members"] == [
                {"host": "a", "address": "192.0.2.1", "networks": ["blue"]}]
            assert 0 < status["lease"]["left"] <= TTL

    run(test)


def test_another_address_of_a_host_is_announced(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            a.desk.moved_to = "192.0.2.8"
            a.cluster.publish()  # as the daemon does after a reload
            await until(lambda: b.overlay.tunnels == {"a": "192.0.2.8"})
            assert b.where(MAC) == "a"
            assert a.status()["presence"] == "joined"

    run(test)


def test_a_host_that_leaves_is_forgotten_at_once(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with Host("b", etcd.url, 2, ttl=60) as b:
            async with Host("a", etcd.url, 1, ttl=60) as a:
                a.population.put_local("blue", MAC, [IP])
                await until(lambda: b.overlay.tunnels and b.population.counts()["entries"])
            await until(lambda: not b.overlay.tunnels, 5)
            assert b.population.counts()["entries"] == 0

    run(test)


def test_a_host_that_dies_disappears_after_its_lease(etcd: EtcdServer, client: Etcd) -> None:
    async def test() -> None:
        lease = client.grant(TTL)
        client.change([], [
            put(LAYOUT.network("blue"), b'{"name":"blue"}'),
            put(LAYOUT.host("dead"), HostValue("192.0.2.9", ("blue",), "x").encode(), lease),
            put(LAYOUT.entry("blue", "dead", MAC), entry_value((IP,), 1), lease)])
        async with Host("b", etcd.url, 2) as b:
            await until(lambda: b.where(MAC) == "dead")
            await until(lambda: not b.overlay.tunnels)  # the fake overlay checks the order
            assert b.overlay.entries == {}

    run(test)


def test_a_moved_address_is_never_gone(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b), Host("c", etcd.url, 3) as c:
            await until(lambda: c.where(MAC) == "a")
            c.overlay.calls.clear()
            b.population.put_local("blue", MAC, [IP])  # the guest speaks at its new host
            await until(lambda: c.where(MAC) == "b" and a.where(MAC) == "b")
            await until(lambda: c.population.counts()["entries"] == 1)  # a has withdrawn
            assert [call[0] for call in c.overlay.calls] == ["set_entry"]

    run(test)


def test_sigkill_of_etcd_changes_nothing_and_what_happens_meanwhile_is_said_later(
        etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            etcd.kill()
            await until(lambda: not b.status()["connected"])
            calls = len(b.overlay.calls)
            a.population.put_local("blue", MAC + 1, [IP])
            await asyncio.sleep(TTL + 2)  # longer than the lease
            assert len(b.overlay.calls) == calls
            assert any("does not answer" in text for text in b.status()["problems"])
            await asyncio.to_thread(etcd.start)
            await until(lambda: b.where(MAC + 1) == "a")
            await until(lambda: b.status()["connected"])
            assert b.where(MAC) == "a"
            dropped = [call for call in b.overlay.calls[calls:] if "drop" in str(call[0])]
            assert dropped == []

    run(test)


def test_an_etcd_that_hangs_is_left_for_dead_and_taken_up_again(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            etcd.pause(True)
            try:
                await until(lambda: a.status()["presence"] == "lost")
                a.population.put_local("blue", MAC + 1, [IP])
            finally:
                etcd.pause(False)
            await until(lambda: b.where(MAC + 1) == "a" and a.status()["connected"])

    run(test)


def test_data_loss_of_etcd_takes_no_living_host_away(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            calls = len(b.overlay.calls)
            await asyncio.to_thread(etcd.lose_everything)
            await until(lambda: b.status()["connected"] and a.status()["presence"] == "joined")
            await asyncio.sleep(TTL + 2)  # longer than the grace
            dropped = [call for call in b.overlay.calls[calls:]
                       if call[0] in ("drop_entry", "drop_tunnel")]
            assert dropped == []
            assert b.where(MAC) == "a"
            assert any('network "blue" is here, but etcd has lost it' in text
                       for text in b.status()["problems"])
            await a.cluster.put_network({"name": "blue", "vni": 77})
            await until(lambda: b.desk.tables["network", "blue"].get("vni") == 77)
            assert not any("network" in text for text in b.status()["problems"])

    run(test)


def test_after_data_loss_who_died_meanwhile_is_swept(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with Host("b", etcd.url, 2) as b:
            async with Host("a", etcd.url, 1) as a:
                await until(lambda: "a" in b.overlay.tunnels and "b" in a.overlay.tunnels)
                etcd.kill()  # a cannot say good-bye
            await asyncio.to_thread(etcd.lose_everything)
            await until(lambda: not b.overlay.tunnels)

    run(test)


def test_etcd_put_back_to_an_older_state(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            saved = await asyncio.to_thread(etcd.save)
            for number in range(2, 30):
                a.population.put_local("blue", MAC + number, [IP])
                await until(lambda number=number: b.where(MAC + number) == "a")
            a.population.drop_local("blue", MAC)
            await until(lambda: b.where(MAC) == "nowhere")
            await asyncio.to_thread(etcd.put_back, saved)
            await until(lambda: b.status()["connected"] and a.status()["connected"])
            await until(lambda: b.where(MAC) == "nowhere" and len(b.overlay.entries) == 28)

    run(test)


def test_compaction_while_a_host_is_away(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            feed = b.cluster._feeds[0]
            await asyncio.to_thread(feed.stop)
            for number in range(1, 20):
                a.population.put_local("blue", MAC + number, [IP])
            a.population.drop_local("blue", MAC)
            await until(lambda: a.status()["revision"] and a.cluster._presence.state.wrote[0] and (
                not a.cluster._presence._dirty))
            etcd.compact()
            again = type(feed)(feed.name, etcd.access(), LAYOUT, feed._parts, feed._watched,
                               b.cluster._intake.handover.put)
            again.revision, again._marker = feed.revision, feed._marker
            b.cluster._feeds = (again, b.cluster._feeds[1])
            again.start()
            await until(lambda: b.where(MAC) == "nowhere" and len(b.overlay.entries) == 19)

    run(test)


def test_two_hosts_with_one_name(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b), Host("a", etcd.url, 7) as double:
            double.population.put_local("blue", MAC + 1, [IP])
            await until(lambda: double.status()["presence"] == "refused")
            text = 'the host name "a" is taken by the host at 192.0.2.1'
            assert any(text in problem for problem in double.status()["problems"])
            await until(lambda: any(text in said for said in double.said))
            assert b.overlay.tunnels == {"a": "192.0.2.1"}
            assert b.where(MAC + 1) == "nowhere"
            assert a.desk.tables["port", "p-a"]
            assert ("port", "p-a") not in double.desk.tables
            await a.cluster.close()
            await until(lambda: b.overlay.tunnels == {"a": "192.0.2.7"})
            await until(lambda: ("port", "p-a") in double.desk.tables)
            await until(lambda: b.where(MAC + 1) == "a")

    run(test)


def test_a_host_that_was_killed_comes_back_before_its_lease_ends(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with Host("b", etcd.url, 2, ttl=60) as b, Host("a", etcd.url, 1, ttl=60) as a:
            await until(lambda: "a" in b.overlay.tunnels)
            a.cluster._presence._leave = lambda: None  # type: ignore[method-assign]
            await a.cluster.close()  # its presence stays, as after a SIGKILL
            async with Host("a", etcd.url, 1, ttl=60) as again:
                again.population.put_local("blue", MAC, [IP])
                await until(lambda: b.population.counts()["entries"] == 1, 10)
                assert [call[0] for call in b.overlay.calls].count("set_tunnel") == 1

    run(test)


def test_a_second_process_of_one_name_and_address_takes_over_and_the_first_stands_back(
        etcd: EtcdServer) -> None:
    async def test() -> None:
        async with Host("b", etcd.url, 2) as b, Host("a", etcd.url, 1) as first:
            first.population.put_local("blue", MAC, [IP])
            await until(lambda: b.population.counts()["entries"] == 1)
            async with Host("a", etcd.url, 1) as second:
                second.population.put_local("blue", MAC + 1, [IP])
                await until(lambda: second.status()["presence"] == "joined")
                first.population.put_local("blue", MAC + 2, [IP])  # it finds out now
                await until(lambda: first.status()["presence"] == "refused")
                assert any("has taken over" in text for text in first.status()["problems"])
                await until(lambda: b.population.counts()["entries"] == 1)
                await asyncio.sleep(TTL + 2)  # nobody fights
                assert second.status()["presence"] == "joined"
            await until(lambda: first.status()["presence"] == "joined")
            await until(lambda: b.population.counts()["entries"] == 2)

    run(test)


def test_a_lease_that_was_lost_is_taken_anew(etcd: EtcdServer, client: Etcd) -> None:
    """As after a machine that was suspended for longer than its lease."""
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            calls = len(b.overlay.calls)
            client.revoke(a.cluster._presence.state.lease)
            await until(lambda: ("drop_entry", "blue", MAC) in b.overlay.calls[calls:])
            await until(lambda: b.where(MAC) == "a" and ("blue", "a") in b.overlay.floods)
            assert a.status()["presence"] == "joined"
            assert any("takes part in the cluster again" in said for said in a.said)

    run(test)


def test_a_sync_of_several_pages(etcd: EtcdServer, client: Etcd) -> None:
    async def test() -> None:
        count = 2 * PAGE + 1
        operations = [put(LAYOUT.entry("blue", "far", MAC + number), entry_value((IP,), 1))
                      for number in range(count)]
        for at in range(0, count, OPERATIONS):
            client.change([], operations[at : at + OPERATIONS])
        async with Host("b", etcd.url, 2) as b:
            await until(lambda: b.status()["synced"])
            assert b.population.counts()["entries"] == count

    run(test)


def test_values_that_are_no_valid_model_are_ignored_and_told(
        etcd: EtcdServer, client: Etcd) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (_, b):
            bad = {LAYOUT.entry("blue", "a", MAC): b'{"generation":1,"ips":["10.0.0.300"]}',
                   LAYOUT.entry("blue", "a", MAC + 1): b'{"ips":[]}',
                   LAYOUT.host("c"): b'{"address":"0.0.0.0","networks":[],"instance":"x"}',
                   LAYOUT.network("blue"): b'{"name":"green"}', LAYOUT.hosts + "a/b": b"",
                   LAYOUT.port("b", "x"): b"[]"}
            client.change([], [put(key, value) for key, value in bad.items()])
            await until(lambda: len(b.status()["problems"]) == len(bad))
            assert b.overlay.entries == {("blue", MAC): ((IP,), "a")}
            assert set(b.overlay.tunnels) == {"a"}
            await until(lambda: all(any(key in said for said in b.said) for key in bad))
            client.change([], [put(LAYOUT.network("blue"), b'{"name":"blue","vni":5000}')])
            client.change([], [delete(key) for key in bad if key != LAYOUT.network("blue")])
            await until(lambda: b.status()["problems"] == [])
            await until(lambda: b.desk.tables["network", "blue"]["vni"] == 5000)

    run(test)


def test_ports_for_another_host_and_what_it_refuses(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with two_hosts(etcd) as (a, b):
            b.desk.refuses.add("bad")
            made = await a.cluster.put_port("b", port("vm1", ips="auto"))
            assert made["ips"][0].startswith("10.0.0.")
            assert made["ips"][1].startswith("fd00::")
            assert await a.cluster.put_port("b", port("vm1", ips="auto")) == made
            await until(lambda: b.desk.tables.get(("port", "vm1")) == made)
            await a.cluster.put_port("b", port("bad"))
            await until(lambda: any("bad is refused" in one for one in b.status()["problems"]))
            with pytest.raises(EngineError, match="is the address of b/vm1"):
                await b.cluster.put_port("a", port("vm2", ips=[made["ips"][0]]))
            with pytest.raises(EngineError, match="needed by a/p-a, b/bad, b/p-b, b/vm1"):
                await b.cluster.delete_network("blue")
            with pytest.raises(EngineError, match='no network "red"'):
                await b.cluster.put_port("a", port("vm2", network="red"))
            with pytest.raises(ConfigError, match="kind"):
                await b.cluster.put_port("a", {**port("vm2"), "kind": "no such"})
            for host, name in (("b", "vm1"), ("b", "bad"), ("b", "p-b"), ("a", "p-a")):
                with pytest.raises(EngineError, match="is needed by"):
                    await a.cluster.delete_network("blue")
                await a.cluster.delete_port(host, name)
            await until(lambda: ("port", "vm1") not in b.desk.tables)
            assert a.cluster._registry.addresses.holders("blue") == {}
            await a.cluster.delete_network("blue")  # at once: hosts say soon that they left it
            await until(lambda: not b.status()["problems"])
            await until(lambda: ("network", "blue") not in b.desk.tables)

    run(test)


def test_a_network_gets_the_vni_that_nobody_has(etcd: EtcdServer) -> None:
    async def test() -> None:
        async with Host("a", etcd.url, 1) as a, Host("b", etcd.url, 2) as b:
            made = await asyncio.gather(*(
                host.cluster.put_network({"name": f"n{number}", "vni": "auto"})
                for number in range(20) for host in (a, b)))
            assert len({table["vni"] for table in made}) == 20
            assert len({(table["name"], table["vni"]) for table in made}) == 20
            with pytest.raises(EngineError, match='is that of the network "n0"'):
                await a.cluster.put_network({"name": "other", "vni": next(
                    table["vni"] for table in made if table["name"] == "n0")})
            last = max(made, key=lambda table: table["vni"])
            await a.cluster.delete_network(last["name"])
            new = await b.cluster.put_network({"name": "new", "vni": "auto"})
            assert new["vni"] == last["vni"] + 1  # not the one that was just freed

    run(test)
