# SPDX-License-Identifier: Apache-2.0
"""What leaves the switch about its traffic, in the formats that other programs read.

Used by the listeners of built-in functions, and free for those of authors. Pure Python: listeners
are processes of their own.
"""
