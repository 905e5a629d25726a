# SPDX-License-Identifier: Apache-2.0
"""The author's page: all that a network function is written with.

    from byway import nf

    @nf.function
    class RateGuard:
        ...

Used by authors, and by byway.functions, which compiles what they wrote. Pure Python: a function
runs as it stands, slowly, which is how it is debugged and what its compiled form is held against.
"""

from byway.nf.verdicts import CLONE, DROP, MIRROR, PASS, REDIRECT, REPLY, Verdict

__all__ = ["CLONE", "DROP", "MIRROR", "PASS", "REDIRECT", "REPLY", "Verdict"]
