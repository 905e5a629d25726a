# SPDX-License-Identifier: Apache-2.0
"""A test bed of several hosts on one machine, and the tests of the overlay between them.

bed.py is the bed; scripts/overlay-bed starts it by hand.
"""
