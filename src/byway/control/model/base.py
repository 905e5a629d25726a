# SPDX-License-Identifier: Apache-2.0
"""What every part of the wanted state is: frozen, and refusing keys that it does not know.

Used by the other modules of model. Uses pydantic.
"""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A table of the configuration. Equal where all its values are; hashable."""

    model_config = ConfigDict(frozen=True, extra="forbid")
