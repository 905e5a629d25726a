# SPDX-License-Identifier: Apache-2.0
"""Deciding where frames go: the forwarding database, networks, and the stages of a decision.

Used by worker (kernels) and control (tables); uses packet and machine. Knows ports as numbers.
"""
