# SPDX-License-Identifier: Apache-2.0
"""Feature bits: numbers of the specification, names, words."""

from byway.virtio.features import Feature, has, mask, names


def test_numbers() -> None:
    """VIRTIO 1.2: 5.1.3 and 6; vhost-user: 30."""
    assert {f.name: int(f) for f in Feature if f in (0, 3, 5, 15, 17, 22, 28, 29, 30, 32, 34, 35)} \
        == {"CSUM": 0, "MTU": 3, "MAC": 5, "MRG_RXBUF": 15, "CTRL_VQ": 17, "MQ": 22,
            "INDIRECT_DESC": 28, "EVENT_IDX": 29, "PROTOCOL_FEATURES": 30, "VERSION_1": 32,
            "RING_PACKED": 34, "IN_ORDER": 35}


def test_words() -> None:
    bits = mask(Feature.MRG_RXBUF, Feature.VERSION_1)
    assert bits == 1 << 15 | 1 << 32
    assert has(bits, Feature.VERSION_1)
    assert not has(bits, Feature.EVENT_IDX)
    assert names(bits | 1 << 41) == ["mrg_rxbuf", "version_1", "bit41"]
    assert names(0) == []
