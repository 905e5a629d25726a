# SPDX-License-Identifier: Apache-2.0
"""The process of `byway run` over a fake engine: start, refusals, signals, its clean end."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from byway.client import Client

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from byway.control.daemon import main
from tests.unit.control.fake_engine import FakeEngine

class Engine(FakeEngine):
    def __init__(self, switch, loop):
        super().__init__(switch, loop)
        self.refuse.add("refused")

    def close(self):
        super().close()
        print("engine closed", file=sys.stderr, flush=True)

sys.exit(main(sys.argv[1], lambda: Engine))
"""
SURPRISED = PROGRAM.replace("    def close", """
        def surprise(names=()):
            del self.functions.reload
            raise ValueError("a surprise")

        self.functions.reload = surprise

    def close""")
BUILDING = PROGRAM.replace("    def close", """
        async def settled():
            print("building", file=sys.stderr, flush=True)
            await asyncio.Event().wait()

        self.functions.settled = settled

    def close""").replace("import sys", "import asyncio, sys", 1)
CYCLES = PROGRAM.replace("    def close", """
    def apply(self, actions):  # what ports are: in cycles
        super().apply(actions)
        self.made = Made()
        self.made.itself = self.made

    def close""").replace(
    "super().close()", """super().close()
        made = weakref.ref(self.made)
        del self.made
        gc.collect()
        print("kept" if made() else "given back", file=sys.stderr)""").replace(
    "import sys", "import gc, sys, weakref", 1).replace("class Engine", """class Made:
    pass

class Engine""")
LAB = '[switch]\nname = "lab"\n[[network]]\nname = "blue"\n'
PORT = '[[port]]\nname = "{}"\nnetwork = "blue"\nkind = "null"\n'
# Compiling takes as long as it takes to be interrupted.
COMPILING = """
import signal, sys, time
from byway.control.daemon import main

def compile_for_ever():
    print("byway: compiling", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.05)

# Whoever starts the tests in the background has it ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1], compile_for_ever))
"""
# The signal comes where an exception is told of, and goes no further.
LOSING = PROGRAM.replace("sys.exit(main(sys.argv[1], lambda: Engine))", """
class Fading:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def data_path():
    Fading()
    return Engine

sys.exit(main(sys.argv[1], data_path))
""").replace("import sys", "import signal, sys", 1)
WATCHING = PROGRAM.replace("    def close", """
        async def watch(*_):
            print("watching", file=sys.stderr, flush=True)
            try:
                await asyncio.Event().wait()
            finally:
                print("tidied up", file=sys.stderr, flush=True)

        self.functions.watch = watch

    def close""").replace("import sys", "import asyncio, sys", 1)
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds lab.toml (one network, one port `a`) and the API's socket byway/lab.sock."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.toml").write_text(LAB + PORT.format("a"))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts the daemon on lab.toml."""
    started: list[subprocess.Popen[str]] = []

    def one(program: str = PROGRAM) -> subprocess.Popen[str]:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(folder),
               "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        process = subprocess.Popen(
            [sys.executable, "-c", program, "lab.toml"], stderr=subprocess.PIPE, text=True,
            env=env)
        started.append(process)
        return process

    yield one
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of its messages."""
    assert process.stderr is not None
    return process.stderr.readline().rstrip("\n")


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str]:
    """Its exit status and last messages after a signal."""
    process.send_signal(number)
    _, messages = process.communicate(timeout=30)
    return process.returncode, messages


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_from_start_to_a_clean_end(folder: Path, start: Start, number: int) -> None:
    process = start()
    api = folder / "byway" / "lab.sock"
    assert line(process) == f"byway: switch 'lab' is up: 1 port, 1 network, api {api}"
    assert stat.S_IMODE(api.stat().st_mode) == 0o600
    assert stat.S_IMODE(api.parent.stat().st_mode) == 0o700
    with Client(str(api)) as client:
        assert client.switch()["pid"] == process.pid
        assert end(process, number) == (0, "engine closed\n")
    assert not api.exists()


def test_what_the_start_makes_is_given_back(start: Start) -> None:
    process = start(CYCLES)
    line(process)
    assert end(process) == (0, "given back\nengine closed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_kernels_compile(folder: Path, start: Start, number: int) -> None:
    process = start(COMPILING)
    assert line(process) == "byway: compiling"
    assert end(process, number) == (0, "")
    assert not (folder / "byway" / "lab.sock").exists()


def test_a_signal_at_the_start_is_not_lost(start: Start) -> None:
    process = start(LOSING)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Exception ignored" in said
    assert said.endswith("engine closed\n")


def test_requests_tidy_up_before_the_engine_ends(folder: Path, start: Start) -> None:
    process = start(WATCHING)
    line(process)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(folder / "byway" / "lab.sock"))
        asking.sendall(b"GET /v1/ports/a/chain/frames HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert line(process) == "watching"
        status, said = end(process)
    assert status == 0
    assert "Traceback" not in said
    assert said.endswith("tidied up\nengine closed\n")


def test_a_second_instance_is_refused_and_a_killed_one_replaced(
    folder: Path, start: Start
) -> None:
    first = start()
    line(first)
    second = start()
    second.wait(30)
    api = folder / "byway" / "lab.sock"
    assert (second.returncode, line(second)) == (
        2, f"lab.toml: switch: api: {api} is in use by another process (pid {first.pid});"
           " stop that process or change the path")
    first.kill()
    first.wait(30)
    assert api.exists()
    third = start()
    assert line(third).startswith("byway: switch 'lab' is up")


def test_hangup_reads_the_file_again(folder: Path, start: Start) -> None:
    process = start()
    line(process)
    with Client(str(folder / "byway" / "lab.sock")) as client:
        client.add_port({"name": "x", "network": "blue", "kind": "null"})
        changed = LAB.replace("lab", "other") + PORT.format("b") + PORT.format("c")
        (folder / "lab.toml").write_text(changed)
        process.send_signal(signal.SIGHUP)
        assert line(process) == "byway: lab.toml was read again: 3 changes"
        assert line(process) == "byway: switch.name: taken up at the next start only"
        assert {port["name"] for port in client.ports()} == {"b", "c", "x"}

        (folder / "lab.toml").write_text("[switch")
        process.send_signal(signal.SIGHUP)
        assert line(process) == "byway: nothing was changed:"
        assert line(process).startswith("lab.toml: is not valid TOML")
        (folder / "lab.toml").write_text(LAB + PORT.format("refused"))
        process.send_signal(signal.SIGHUP)
        assert line(process) == "byway: nothing was changed:"
        assert line(process) == 'port "refused": cannot be opened; try another'
        assert {port["name"] for port in client.ports()} == {"b", "c", "x"}
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (LAB + PORT.format("refused"),
         'lab.toml: port "refused": cannot be opened; try another\nengine closed\n'),
        ("port = 3",
         "lab.toml: port: is a whole number, not a list of tables;"
         " begin each port with a line [[port]]\n"),
        ('[switch]\napi = "lab.toml"\n',
         "lab.toml: switch: api: lab.toml exists and is no socket;"
         " remove it or choose another path\n"),
    ],
)
def test_what_cannot_be_used_ends_with_status_2(
    folder: Path, start: Start, text: str, messages: str
) -> None:
    (folder / "lab.toml").write_text(text)
    process = start()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, messages)
    assert not (folder / "byway" / "lab.sock").exists()


def test_a_directory_that_cannot_be_made(folder: Path, start: Start) -> None:
    (folder / "byway").write_text("in the way")
    process = start()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said == (f"lab.toml: switch: api: {folder / 'byway'} cannot be created (File exists);"
                    " set api to a path where you may write, or set XDG_RUNTIME_DIR\n")


def test_what_came_through_the_api_outlives_a_kill(folder: Path, start: Start) -> None:
    (folder / "lab.toml").write_text(LAB.replace("[[n", 'state = "lab.db"\n[[n') + PORT.format("a"))
    api = str(folder / "byway" / "lab.sock")
    for number in range(2):
        process = start()
        assert line(process).startswith(f"byway: switch 'lab' is up: {1 + number} port")
        with Client(api) as client:
            client.add_port({"name": f"x{number}", "network": "blue", "kind": "null"})
        process.kill()
        process.wait(30)
    process = start()
    assert line(process).startswith("byway: switch 'lab' is up: 3 ports")
    with Client(api) as client:
        client.remove_port("x0")
        (folder / "lab.toml").write_text(
            (folder / "lab.toml").read_text() + PORT.format("x1") + 'mac = "02:00:00:00:00:01"\n')
        process.send_signal(signal.SIGHUP)
        assert line(process) == "byway: lab.toml was read again: 2 changes"
        assert line(process) == ('byway: port "x1" stands in the file now: what came through the'
                                 " API is forgotten")
        assert [port["name"] for port in client.ports()] == ["a", "x1"]


def test_a_state_file_has_one_switch(folder: Path, start: Start) -> None:
    text = LAB.replace("[[n", 'state = "lab.db"\n[[n')
    (folder / "lab.toml").write_text(text)
    line(start())
    (folder / "lab.toml").write_text(text.replace("lab\"", "other\""))
    second = start()
    second.wait(30)
    assert (second.returncode, line(second)) == (
        2, "lab.toml: switch: state: the state file lab.db is in use by another switch;"
           " stop that one, or give each a file of its own")


def test_a_broken_state_file_ends_the_start_and_stays(folder: Path, start: Start) -> None:
    (folder / "lab.toml").write_text(LAB.replace("[[n", 'state = "lab.db"\n[[n'))
    (folder / "lab.db").write_text("no database " * 100)
    process = start()
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (
        2, "lab.toml: switch: state: the state file lab.db is broken, or none (file is not a"
           " database); restore it from a backup, or move it away and start without what is in"
           " it\n")
    assert (folder / "lab.db").read_text() == "no database " * 100


IN_CLUSTER = PROGRAM.replace('''sys.exit(main(sys.argv[1], lambda: Engine))''', '''
from tests.unit.control.fake_membership import FakeMembership

class Membership(FakeMembership):
    def __init__(self, wanted):
        super().__init__()
        assert wanted.engine.in_cluster
        print("member of", *wanted.has.cluster.etcd, file=sys.stderr, flush=True)

    def publish(self):
        print("published", file=sys.stderr, flush=True)

    async def close(self):
        print("left the cluster", file=sys.stderr, flush=True)

sys.exit(main(sys.argv[1], lambda: Engine, "etcd://h1:1,h2:2", Membership))
''')


def test_in_a_cluster(folder: Path, start: Start) -> None:
    (folder / "lab.toml").write_text(
        LAB + '[underlay]\naddress = "192.0.2.1"\nmtu = 1500\n[cluster]\netcd = ["other:1"]\n')
    process = start(IN_CLUSTER)
    assert line(process) == "member of h1:1 h2:2"
    assert line(process).startswith("byway: switch 'lab' is up")
    with Client(str(folder / "byway" / "lab.sock")) as client:
        assert client.switch()["cluster"] is True
        assert client.cluster()["connected"] is True
        assert client.add_cluster_network({"name": "red", "vni": "auto"})["vni"] == 1
        client.add_port({"name": "x", "network": "blue", "kind": "null"})
        assert line(process) == "published"
    assert end(process) == (0, "left the cluster\nengine closed\n")


def test_a_reload_that_fails_is_not_the_last(folder: Path, start: Start) -> None:
    """Whatever went wrong with it."""
    process = start(SURPRISED)
    line(process)
    process.send_signal(signal.SIGHUP)
    assert line(process) == "byway: lab.toml was read again: 0 changes"
    assert line(process) == "lab.toml could not be read again"
    while line(process) != "ValueError: a surprise":
        assert process.poll() is None
    (folder / "lab.toml").write_text(LAB + PORT.format("b") + PORT.format("c"))
    process.send_signal(signal.SIGHUP)
    assert line(process) == "byway: lab.toml was read again: 3 changes"


def test_the_end_does_not_wait_for_functions(folder: Path, start: Start) -> None:
    process = start(BUILDING)
    assert line(process) == "building"
    assert end(process)[0] == 0


def test_the_api_does_not_wait_for_functions_for_long(folder: Path, start: Start) -> None:
    process = start(BUILDING.replace("class Engine", "\nfrom byway.control import daemon\n"
                                     "daemon.BUILDING_SECONDS = 0.01\n\nclass Engine"))
    assert line(process) == "building"
    assert line(process).startswith("byway: switch 'lab' is up")
    assert end(process)[0] == 0
