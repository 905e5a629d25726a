# SPDX-License-Identifier: Apache-2.0
"""etcd with certificates and passwords: who may come in, and what the others are told."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byway.control.cluster.etcd import Access, Etcd, EtcdError, EtcdLostError, put
from byway.control.cluster.layout import HostValue, Layout
from tests import peers
from tests.system.cluster_host import Host, until
from tests.system.etcd_server import EtcdServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LAYOUT = Layout("/byway")


class TlsServer(EtcdServer):
    """etcd that speaks TLS only, and to who has a certificate of our authority only."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: str(folder / name) for name in
                      ("ca.pem", "ca.key", "server.pem", "server.key", "host.pem", "host.key")}
        self._make(folder)
        super().__init__(folder, options=(
            "--client-cert-auth", "--trusted-ca-file", self.files["ca.pem"],
            "--cert-file", self.files["server.pem"], "--key-file", self.files["server.key"]))

    def _make(self, folder: Path) -> None:
        openssl = peers.find_program("openssl")

        def run(*words: str) -> None:
            subprocess.run([openssl, *words], check=True, capture_output=True, cwd=folder)

        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        run(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key",
            "-out", "ca.pem")
        for name in ("server", "host"):
            run(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
            (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
            run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def start(self) -> Any:
        """As the plain one, but https; the check of its health needs the certificates, too."""
        self.url = self.url.replace("http://", "https://")
        return super().start()

    def command(self, *words: str, timeout: float = 30.0) -> str:
        """`etcdctl WORDS` with the certificates."""
        return super().command("--cacert", self.files["ca.pem"], "--cert", self.files["host.pem"],
                               "--key", self.files["host.key"], *words, timeout=timeout)

    def access(self) -> Access:
        """With all that is needed."""
        return Access((self.url,), ca=self.files["ca.pem"], cert=self.files["host.pem"],
                      key=self.files["host.key"])


@pytest.fixture
def tls(own_folder: Path) -> Iterator[TlsServer]:
    with TlsServer(own_folder) as server:
        yield server


def test_a_host_with_a_certificate_takes_part(tls: TlsServer) -> None:
    async def test() -> None:
        access = tls.access()
        files = {"ca": access.ca, "cert": access.cert, "key": access.key}
        async with Host("a", tls.url, 1, **files) as a, Host("b", tls.url, 2, **files) as b:
            await until(lambda: "a" in b.overlay.tunnels and "b" in a.overlay.tunnels)

    asyncio.run(test())


def test_who_has_none_is_not_let_in(tls: TlsServer) -> None:
    with (contextlib.closing(Etcd(Access((tls.url,), ca=tls.files["ca.pem"]))) as client,
          pytest.raises(EtcdLostError, match="does not answer")):
        client.get("x")
    with (contextlib.closing(Etcd(Access((tls.url,), ca="/no/such/file"))) as client,
          pytest.raises(EtcdError, match="/no/such/file cannot be read")):
        client.get("x")
    with contextlib.closing(Etcd(Access((tls.url, "http://127.0.0.1:1")))) as client:
        with pytest.raises(EtcdLostError):
            client.get("x")
        with pytest.raises(EtcdLostError, match=r"127\.0\.0\.1:1 does not answer"):
            client.get("x")  # the next member is asked


@pytest.fixture
def guarded(own_folder: Path) -> Iterator[EtcdServer]:
    """etcd that asks for a password; the user byway may use its own keys only."""
    with EtcdServer(own_folder, options=("--auth-token-ttl", "2")) as server:
        for words in (("user", "add", "root:secret"), ("user", "grant-role", "root", "root"),
                      ("user", "add", "byway:s3cret"), ("role", "add", "byway"),
                      ("role", "grant-permission", "byway", "--prefix=true", "readwrite", "/byway"),
                      ("user", "grant-role", "byway", "byway"), ("auth", "enable")):
            server.command(*words)
        yield server


def test_a_host_with_a_password_takes_part_longer_than_its_token_lives(
        guarded: EtcdServer, own_folder: Path) -> None:
    async def test() -> None:
        secret = own_folder / "password"
        secret.write_text("s3cret\n")
        login = {"username": "byway", "password_file": str(secret)}
        async with Host("a", guarded.url, 1, **login) as a, Host("b", guarded.url, 2, **login) as b:
            await until(lambda: "a" in b.overlay.tunnels and "b" in a.overlay.tunnels)
            await asyncio.sleep(5)
            a.population.put_local("blue", 0x020000000001, [bytes(16)])
            await until(lambda: b.population.counts()["entries"] == 1)
            assert "a" in b.overlay.tunnels

    asyncio.run(test())


def test_a_wrong_password_is_said(guarded: EtcdServer, own_folder: Path) -> None:
    async def test() -> None:
        secret = own_folder / "password"
        secret.write_text("wrong")
        login = {"username": "byway", "password_file": str(secret)}
        async with Host("a", guarded.url, 1, **login) as a:
            await until(lambda: any("authentication failed" in one
                                    for one in a.status()["problems"]))
            assert not a.status()["connected"]

    asyncio.run(test())


def test_keys_that_a_user_may_not_read_are_said(guarded: EtcdServer, own_folder: Path) -> None:
    secret = own_folder / "password"
    secret.write_text("s3cret")
    access = Access((guarded.url,), "byway", str(secret))
    with contextlib.closing(Etcd(access)) as client:
        other = Layout("/other")
        with pytest.raises(EtcdError, match="permission denied"):
            client.get(other.marker)
        with pytest.raises(EtcdError, match="permission denied"):
            client.change([], [put(other.host("a"), HostValue("::1", (), "").encode())])
        with pytest.raises(EtcdError, match="permission denied"):
            list(client.watch(other.hosts, b"/p", 1))
