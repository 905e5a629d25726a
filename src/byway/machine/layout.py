# SPDX-License-Identifier: Apache-2.0
"""Records: state shared by Python and kernels with no copy.

Used by every module that keeps state. One description gives three things: a NumPy dtype (Python
reads fields by name), ``view(address)`` (typed fields for kernels; interpreted, a proxy on the
same memory) and ``offsets.field`` (for atomics: ``ld64_acq(p + offsets.stop)``).

Fields are int64 unless an external format says otherwise. A field that another thread polls is
read through its offset with an acquire load, never through the view: LLVM may hoist a plain load
out of a loop.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numba import from_dtype

from byway.machine.dual import dual_with_context

CACHE_LINE = 64
Field = str | tuple[str, str] | tuple[str, str, tuple[int, ...]]


def _fields(dtype: np.dtype[Any]) -> dict[str, Any]:
    """The fields of a record type by name: (type, offset)."""
    return dict(dtype.fields or {})


def _accessors(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Properties over raw memory: plain Python ints, stores that wrap as in C.

    np.record would do, were it not that its fields named ``size`` or ``data`` are hidden by the
    array's own attributes, and that NumPy scalars warn when they wrap.
    """
    made: dict[str, Any] = {}
    for name in dtype.names or ():
        kind, offset = _fields(dtype)[name][:2]
        ctype: Any = np.ctypeslib.as_ctypes_type(kind.base)
        for length in reversed(kind.shape):
            ctype = ctype * length

        def get(self: Any, offset: int = offset, ctype: Any = ctype) -> Any:
            cell = ctype.from_address(self._address + offset)
            return getattr(cell, "value", cell)

        def put(self: Any, value: int, offset: int = offset, ctype: Any = ctype) -> None:
            ctype.from_address(self._address + offset).value = int(value)

        made[name] = property(get, put)
    return made


def _proxy(name: str, dtype: np.dtype[Any]) -> type:
    def start(self: Any, address: int) -> None:
        object.__setattr__(self, "_address", int(address))

    return type(name, (), {"__slots__": ("_address",), "__init__": start, **_accessors(dtype)})


def record(name: str, fields: Sequence[Field], size: int = 0) -> tuple[Any, Any, Any]:
    """Define a record; -> (dtype, view, offsets).

    ``fields``: names (int64) or (name, dtype[, shape]). ``size``: bytes a record takes, at least
    its fields; default: rounded up to whole cache lines.
    """
    described = [(f, "<i8") if isinstance(f, str) else f for f in fields]
    packed = np.dtype(described)
    size = size or -(-packed.itemsize // CACHE_LINE) * CACHE_LINE
    if packed.itemsize > size:
        raise ValueError(f"record {name}: fields take {packed.itemsize} bytes, not {size}")
    known = _fields(packed)
    names = list(packed.names or ())
    dtype: Any = np.dtype({
        "names": names,
        "formats": [known[n][0] for n in names],
        "offsets": [known[n][1] for n in names],
        "itemsize": size,
    })
    compiled_type = from_dtype(dtype)

    def emit(context: Any, builder: Any, address: Any) -> Any:
        return builder.inttoptr(address, context.get_value_type(compiled_type))

    view = dual_with_context(name, emit, _proxy(name, dtype), compiled_type)
    # Numba folds the attributes of a module to constants.
    offsets = ModuleType(f"{name}_offsets")
    offsets.__dict__.update({n: int(known[n][1]) for n in names})
    return dtype, view, offsets


def alloc(dtype: Any, n: int, align: int = 4096) -> Any:
    """A zeroed, aligned array of ``n`` records. Whoever holds its address keeps it alive."""
    raw = np.zeros(n * dtype.itemsize + align, np.uint8)
    start = -raw.ctypes.data % align
    return raw[start : start + n * dtype.itemsize].view(dtype)


def address_of(array: Any) -> int:
    """The host address of an array's first element."""
    return int(array.ctypes.data)
