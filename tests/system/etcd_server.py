# SPDX-License-Identifier: Apache-2.0
"""An etcd to which everything happens that can: it hangs, loses its data, is put back.

Used by the cluster's system tests and bench. Uses peers.etcd."""

import os
import shutil
import signal
from pathlib import Path

from byway.control.cluster.etcd import Access
from tests.system.peers.etcd import Etcd


class EtcdServer(Etcd):
    """A running etcd of this machine."""

    def access(self) -> Access:
        """How to reach it."""
        return Access((self.url,))

    def pause(self, on: bool) -> None:
        """Stop it, or let it go on: it answers nobody, and its connections stay."""
        os.kill(self.process.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def lose_everything(self) -> None:
        """Kill it, and start it empty."""
        self.kill()
        self.forget()
        self.start()

    def save(self) -> Path:
        """Kill it, keep its data aside, and go on."""
        self.kill()
        saved = self.folder / "saved"
        shutil.copytree(self.folder / "data", saved)
        self.start()
        return saved

    def put_back(self, saved: Path) -> None:
        """Kill it, and start it with the data that were saved."""
        self.kill()
        self.forget()
        shutil.copytree(saved, self.folder / "data")
        self.start()
