# SPDX-License-Identifier: Apache-2.0
"""Network functions at work: translated, compiled, with parameters and state in memory.

Used by control (which has them built and puts them into chains) and by the commands that check and
measure functions. Uses nf (the author's page), machine, packet and switch.
"""
