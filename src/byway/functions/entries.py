# SPDX-License-Identifier: Apache-2.0
"""All that control calls of network functions, as machine code.

Used by build.py, whose process compiles it, and by control, which then finds it in the cache.
"""

from typing import Any

from byway.functions import apply, event_kernels, map_control

ENTRIES: tuple[Any, ...] = (apply.add_word, event_kernels.take_slots, *map_control.ENTRIES)
