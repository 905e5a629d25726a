# SPDX-License-Identifier: Apache-2.0
"""What the author's commands are asked about: FILE, FILE:CLASS, byway.NAME, with parameters or not.

Used by nf_check and nf_bench. Uses control.chains, which knows how functions are written in a
chain. A file is read here, and not run.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from byway.control.chains import based, file_of, parse_step, short_name


@dataclass(frozen=True)
class Use:
    """One function. ``use``: as a chain names it, absolute; ``shown``: what it is called."""

    use: str
    shown: str
    parameters: dict[str, Any] = field(default_factory=dict)


class UseError(ValueError):
    """No function is named; ``problems`` says why, ``status`` what the command ends with."""

    def __init__(self, problems: list[str], status: int = 2) -> None:
        super().__init__("; ".join(problems))
        self.problems, self.status = problems, status


def captured(paths: Sequence[str]) -> list[bytes]:
    """The frames of captures. UseError: one cannot be read."""
    from byway.packet.pcapfile import PcapError
    from byway.testing.builders import from_pcap

    try:
        return [frame for path in paths for frame in from_pcap(path)]
    except PcapError as error:
        raise UseError([f"--pcap: {error}"]) from None
    except OSError as error:
        raise UseError([f"--pcap: {error.filename}: {error.strerror}"]) from None


def uses(written: str) -> list[Use]:
    """The function that is named, or all of the file that is. UseError: there is none."""
    if written.endswith(".py"):
        names = _functions_in(written)
        return [_one(f"{written}:{name}") for name in names]
    return [_one(written)]


def _one(written: str) -> Use:
    try:
        step = parse_step(str(based(written, str(Path.cwd()))))
    except PydanticCustomError as error:
        raise UseError([error.message()]) from None
    if not step.use:
        raise UseError([f"{written} names no function's code; write guard.py, guard.py:RateGuard,"
                        " or byway.nat44"])
    file = file_of(step.use)
    if file and not Path(file).is_file():
        raise UseError([f"{file_of(written) or file}: there is no such file"])
    return Use(step.use, short_name(step.use), step.parameters)


def _functions_in(path: str) -> list[str]:
    """The names of a file's network functions: classes below @nf.function."""
    try:
        tree = ast.parse(Path(path).read_bytes(), path)
    except OSError as error:
        raise UseError([f"{path}: {error.strerror}"]) from None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 0) or 0
        message = getattr(error, "msg", str(error))
        raise UseError([f"{path}:{line}: {message}; Python itself cannot read this"], 1) from None
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef)
             and any(_is_mark(mark) for mark in node.decorator_list)]
    if not found:
        raise UseError([f"{path}: there is no network function in it; write @nf.function above a"
                        " class"], 1)
    return found


def _is_mark(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return bool(name == "function")
