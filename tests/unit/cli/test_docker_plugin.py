# SPDX-License-Identifier: Apache-2.0
"""`byway docker-plugin` as a process: it starts without a switch, ends cleanly, and says what is
wrong with its call. Its namespace is one that does not exist, so that it changes nothing here."""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byway.machine import unixsocket

BYWAY = str(Path(sys.executable).with_name("byway"))


class Started:
    """A plugin's process that says that it is up."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen([BYWAY, "docker-plugin", *words],
                                        stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "is up" in line:
                return
        raise AssertionError(f"it ended with {self.process.wait()}")

    def end(self) -> int:
        """SIGTERM; its status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            assert self.process.stderr is not None
            self.process.stderr.close()


def activate(path: str) -> object:
    """What a plugin says that it is."""
    connection = http.client.HTTPConnection("plugin")
    connection.sock = unixsocket.connect(path)
    connection.request("POST", "/Plugin.Activate")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """The options of a plugin of this test's own."""
    return ["--socket", f"{tmp_path}/p.sock", "--api", f"{tmp_path}/none.sock",
            "--state", f"{tmp_path}/state/docker.db", "--netns", f"{tmp_path}/no-namespace"]


def test_it_starts_without_a_switch_and_ends_cleanly(tmp_path: Path, words: list[str]) -> None:
    started = Started(*words)
    assert activate(f"{tmp_path}/p.sock") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    second = subprocess.run([BYWAY, "docker-plugin", *words], capture_output=True, text=True,
                            timeout=60)
    assert (second.returncode, "in use by another process" in second.stderr) == (2, True)
    words[1] = f"{tmp_path}/q.sock"
    third = subprocess.run([BYWAY, "docker-plugin", *words], capture_output=True, text=True,
                           timeout=60)
    assert (third.returncode, "another docker-plugin" in third.stderr) == (2, True)
    assert started.end() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]


def test_systemd_may_hold_the_socket(tmp_path: Path, words: list[str]) -> None:
    listener = unixsocket.listen(f"{tmp_path}/held.sock")
    # sd_listen_fds(3): the first file is number 3, and LISTEN_PID is the process itself.
    script = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", BYWAY, "docker-plugin", *words],
        stderr=subprocess.PIPE, text=True, pass_fds=[listener.fileno()])
    try:
        assert activate(f"{tmp_path}/held.sock") == {
            "Implements": ["NetworkDriver", "IpamDriver"]}
        assert not os.path.exists(f"{tmp_path}/p.sock")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert os.path.exists(f"{tmp_path}/held.sock")  # it is systemd's
    finally:
        process.kill()
        process.communicate()
        unixsocket.close(listener)


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--netns", "red", "write /run/netns/red"),
    ("--socket", "/nonexistent/p.sock", "/nonexistent"),
    ("--state", "/proc/docker.db", "cannot be used"),
])
def test_a_wrong_call_ends_with_2(words: list[str], option: str, value: str, said: str) -> None:
    words[words.index(option) + 1] = value
    done = subprocess.run([BYWAY, "docker-plugin", *words], capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
