# SPDX-License-Identifier: Apache-2.0
"""`byway-cni`: one call of a container runtime. The entry point of the package.

Environment and stdin in; on stdout the result, or an error as a JSON object and exit status 1; on
stderr what an administrator may want to read in the runtime's log.

The process lives for milliseconds, most of which Python spends on loading modules. So each verb
loads what it needs, and nothing is ever collected as garbage.

Source: CNI specification 1.1.0, "Section 2: Execution Protocol".
"""

import gc
import os
import sys


def main() -> int:
    """Serve the call that environment and stdin describe; -> the exit status."""
    gc.disable()
    from byway_cni.serve import ABOUT, answer_to

    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(ABOUT)
        return 0
    status, text = answer_to(sys.stdin.buffer)
    sys.stdout.write(text)
    sys.stdout.flush()
    return status
