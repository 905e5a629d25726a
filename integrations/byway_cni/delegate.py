# SPDX-License-Identifier: Apache-2.0
"""Other IPAM plugins, run for their part of a call.

Used by the verbs. Source: CNI specification 1.1.0, "Section 4: Plugin Delegation": the program is
searched in CNI_PATH, gets the environment and the whole configuration of its caller.
"""

import json
import os
from typing import Any

from byway_cni.call import Call
from byway_cni.problem import CniError, Code

TIMEOUT = 120.0  # seconds: a DHCP server may take its time


def run(call: Call, kind: str, verb: str) -> dict[str, Any]:
    """Run the IPAM plugin `kind`; -> its result ({} for verbs without one). CniError as its own."""
    import subprocess  # not before: it takes longer to load than the rest of the plugin

    program = find(call, kind)
    try:
        done = subprocess.run(
            [program], input=json.dumps(call.config).encode(), capture_output=True, check=False,
            timeout=TIMEOUT, env={**os.environ, "CNI_COMMAND": verb})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(Code.INPUT_OUTPUT, f"the IPAM plugin {kind} cannot be run: {error}",
                       f"see what {program} is") from None
    try:
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise CniError(Code.DECODE, f"the IPAM plugin {kind} answers no JSON object",
                       f"see what {program} is", done.stdout[:200].decode(errors="replace"))
    if done.returncode:
        code = answer.get("code")
        raise CniError(code if isinstance(code, int) and code > 0 else Code.INTERNAL,
                       f"the IPAM plugin {kind} failed: {answer.get('msg') or 'without a word'}",
                       "see its configuration in the key ipam",
                       str(answer.get("details") or done.stderr[-500:].decode(errors="replace")))
    return answer if verb == "ADD" else {}


def find(call: Call, kind: str) -> str:
    """The program of a plugin."""
    if not kind or "/" in kind or kind in (".", ".."):
        raise CniError(Code.CONFIGURATION, f"ipam.type is {kind[:60]!r}",
                       'write "byway", or the file name of an IPAM plugin')
    for folder in call.path:
        program = os.path.join(folder, kind)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    places = ":".join(call.path) or "CNI_PATH, which is empty"
    raise CniError(Code.CONFIGURATION, f"there is no IPAM plugin {kind} in {places}",
                   'install it there, or write "byway" for ipam.type')
