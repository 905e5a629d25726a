# SPDX-License-Identifier: Apache-2.0
"""Which features may stand together, and why one is off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byway.virtio.features import Feature, mask, names
from byway.virtio.negotiation import BY_NAME, REQUIRES, closure, explain

F = Feature
WORDS = st.integers(0, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        (F.CSUM, {F.GSO, F.HOST_TSO4, F.HOST_TSO6, F.HOST_ECN, F.HOST_UFO, F.HOST_USO}),
        (F.GUEST_CSUM, {F.GUEST_TSO4, F.GUEST_TSO6, F.GUEST_ECN, F.GUEST_UFO, F.GUEST_USO4,
                        F.GUEST_USO6}),
        (F.HOST_TSO4, set()),  # HOST_ECN stays with HOST_TSO6
        (F.CTRL_VQ, {F.CTRL_GUEST_OFFLOADS, F.CTRL_RX, F.CTRL_VLAN, F.CTRL_RX_EXTRA,
                     F.GUEST_ANNOUNCE, F.MQ, F.CTRL_MAC_ADDR, F.HASH_REPORT, F.RSS}),
        (F.VERSION_1, {F.ACCESS_PLATFORM, F.RING_PACKED, F.IN_ORDER, F.ORDER_PLATFORM,
                       F.NOTIFICATION_DATA, F.RING_RESET}),
        (F.MRG_RXBUF, set()),
    ],
)
def test_what_goes_with_a_feature(missing: Feature, lost: set[Feature]) -> None:
    every = mask(*F)
    assert closure(every) == every
    assert closure(every & ~mask(missing)) == every & ~mask(missing, *lost)


def test_ecn_needs_one_kind_of_segments() -> None:
    assert closure(mask(F.CSUM, F.HOST_ECN, F.HOST_UFO)) == mask(F.CSUM, F.HOST_UFO)
    kept = mask(F.GUEST_CSUM, F.GUEST_ECN, F.GUEST_TSO6)
    assert closure(kept) == kept


@given(WORDS)
def test_closure_is_the_largest_set_that_may_stand(bits: int) -> None:
    kept = closure(bits)
    assert kept & ~bits == 0
    assert closure(kept) == kept
    for feature in F:
        if kept >> feature & 1 and feature in REQUIRES:
            assert any(kept >> needed & 1 for needed in REQUIRES[feature])
    for bit in range(64):  # nothing more could have stayed
        if bits & ~kept & 1 << bit:
            assert closure(kept | 1 << bit) == kept


def test_why_a_feature_is_off() -> None:
    supported = mask(F.CSUM, F.HOST_TSO4, F.HOST_ECN, F.MRG_RXBUF, F.EVENT_IDX, F.VERSION_1,
                     F.RING_PACKED, F.GUEST_CSUM, F.GUEST_TSO4, F.LOG_ALL)
    offered = mask(F.MRG_RXBUF, F.VERSION_1, F.EVENT_IDX, F.GUEST_TSO4, F.LOG_ALL)
    why = explain(supported, mask(F.CSUM, F.MAC), offered, mask(F.VERSION_1, F.EVENT_IDX),
                  unsupported={F.MAC: "not supported over vhost-user: the front end's matter"})
    told = {name: reason for name, reason in why.items() if reason != "not supported"}
    assert told == {
        "csum": "features.off",
        "guest_csum": "not offered by the back end",
        "mac": "not supported over vhost-user: the front end's matter",
        "guest_tso4": "needs guest_csum, which is off",
        "host_tso4": "needs csum, which is off",
        "host_ecn": "needs host_tso4 or host_tso6, which are off",
        "mrg_rxbuf": "the guest did not take it",
        "log_all": "the front end takes it while the guest migrates",
        "ring_packed": "not offered by the back end",
    }
    assert list(why) == [f.name.lower() for f in F if f not in (F.VERSION_1, F.EVENT_IDX)]


def test_before_anything_was_agreed_nobody_refused() -> None:
    bits = mask(F.VERSION_1, F.MRG_RXBUF)
    assert "mrg_rxbuf" not in explain(bits, 0, bits, None)
    assert explain(bits, 0, bits, mask(F.VERSION_1), not_taken="no")["mrg_rxbuf"] == "no"


@given(WORDS, WORDS, WORDS, WORDS)
def test_each_feature_is_on_or_explained(
    supported: int, switched_off: int, offered: int, acked: int
) -> None:
    why = explain(supported, switched_off, offered, acked)
    on = acked & closure(closure(supported & ~switched_off) & offered)
    assert set(why) == {f.name.lower() for f in F if not on >> f & 1}


def test_names_of_a_configuration() -> None:
    assert BY_NAME["packed"] == BY_NAME["ring_packed"] == F.RING_PACKED
    assert set(BY_NAME) - {"packed"} == set(names(mask(*F)))
