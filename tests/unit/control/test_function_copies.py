# SPDX-License-Identifier: Apache-2.0
"""What network functions send somewhere themselves arrives as that port's frames do."""

from contextlib import ExitStack
from pathlib import Path

from byway.control.model import Config, NetworkConfig
from byway.testing.builders import tcp
from tests.running import RunningSwitch, mac
from tests.unit.control.test_functions import Lab

TURN = '''
from byway import nf


@nf.function
class Turn:
    """Everything goes back."""

    def process(self, frame: nf.Frame) -> nf.Verdict:
        return nf.REPLY
'''
TAG = b"\x81\0\0\x0a"


def test_a_reply_to_a_trunk_has_the_tag_of_its_network(tmp_path: Path) -> None:
    """Without it the frame would be one of the trunk's native network."""
    file = tmp_path / "turn.py"
    file.write_text(TURN)
    with RunningSwitch(tmp_path, stepped=True) as switch, ExitStack() as stack:
        lab = Lab(switch, tmp_path, stack)
        switch.call(lab.wanted.change, Config(
            networks=(NetworkConfig(name="blue"), NetworkConfig(name="green")),
            ports=(lab.port("trunk", network="green", vlans={"10": "blue"}, mac=mac(1)),
                   lab.port("vm", network="blue", mac=mac(2), chain_tx=(f"{file}:Turn",)))))
        lab.wait(switch.engine.functions.settled())
        guests = {name: stack.enter_context(switch.guest(name, k))
                  for k, name in enumerate(("trunk", "vm"), 1)}
        frame = tcp("10.0.0.1", eth_src=mac(1), eth_dst=mac(2))
        guests["trunk"].send([frame[:12] + TAG + frame[12:]])
        switch.settle()
        back = frame[6:12] + frame[:6] + TAG + frame[12:]
        assert [bytes(one) for one in guests["trunk"].receive()] == [back]
        assert list(guests["vm"].receive()) == []


def test_a_function_that_only_replies_has_its_frames_back(tmp_path: Path) -> None:
    file = tmp_path / "turn.py"
    file.write_text(TURN)
    with RunningSwitch(tmp_path, stepped=True) as switch, ExitStack() as stack:
        lab = Lab(switch, tmp_path, stack)
        switch.call(lab.wanted.change, Config(
            networks=(NetworkConfig(name="blue"),),
            ports=(lab.port("vm", network="blue", mac=mac(1), chain=(f"{file}:Turn",)),)))
        lab.wait(switch.engine.functions.settled())
        guest = stack.enter_context(switch.guest("vm", 1))
        frame = tcp("10.0.0.1", eth_src=mac(1), eth_dst=mac(2))
        guest.send([frame])
        switch.settle()
        assert [bytes(one) for one in guest.receive()] == [frame[6:12] + frame[:6] + frame[12:]]
        assert switch.drops() == {}
