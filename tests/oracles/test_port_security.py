# SPDX-License-Identifier: Apache-2.0
"""Port security against plain Python that reads frames from front to back."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from byway.machine.jit import INTERPRETED
from byway.switch.port_security import PortSecurity
from byway.testing.guarding_kernels import secure
from tests.oracles.guest_frames import NUMBERS, PAIRS, frames
from tests.oracles.plain_port_security import Naive, Pairs
from tests.staging import Place

EXAMPLES = 150 if INTERPRETED else 1500


@settings(max_examples=EXAMPLES, deadline=None)
@given(made=st.lists(frames(), min_size=1, max_size=12), pairs=st.sampled_from(PAIRS),
       trusted=st.sampled_from([(), ("dhcp",), ("ra",), ("dhcp", "ra")]))
@example(made=[b"\xff" * 14], pairs=PAIRS[0], trusted=())
def test_verdicts(made: list[bytes], pairs: Pairs, trusted: tuple[str, ...]) -> None:
    place, naive = Place(), Naive(pairs, trusted)
    outcomes = place.run(secure, PortSecurity(pairs, trusted), made)
    place.close()
    assert [o.reason for o in outcomes] == [naive.verdict(frame) for frame in made]
    assert [o.frame for o in outcomes] == made


@settings(max_examples=EXAMPLES // 5, deadline=None)
@given(made=st.lists(st.binary(max_size=160), min_size=1, max_size=12))
def test_noise_of_an_allowed_sender(made: list[bytes]) -> None:
    place, naive = Place(), Naive(PAIRS[0], ())
    source = bytes(6) + NUMBERS[0].to_bytes(6, "big")
    kinds = [b"\x08\0\x45", b"\x86\xdd\x60", b"\x08\x06", b"\x81\0"]
    noisy = [source + kinds[k % 4] + noise for k, noise in enumerate(made)]
    outcomes = place.run(secure, PortSecurity(PAIRS[0]), noisy)
    place.close()
    assert [o.reason for o in outcomes] == [naive.verdict(frame) for frame in noisy]
