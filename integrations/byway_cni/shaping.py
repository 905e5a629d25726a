# SPDX-License-Identifier: Apache-2.0
"""Capability bandwidth: refused, as long as nothing here limits a rate. Used by attach."""

from collections.abc import Mapping

from byway_cni.call import Call
from byway_cni.problem import CniError, Code


def check(rates: Mapping[str, int]) -> None:
    """CniError with code 2 where a limit is asked for."""
    for key, value in rates.items():
        raise CniError(Code.UNSUPPORTED, f"bandwidth.{key} is {value}: rates are not limited",
                       "leave it out, or take the capability off the network's configuration")


def apply(call: Call, rates: Mapping[str, int]) -> None:
    """Nothing is to be done without limits."""
    check(rates)
