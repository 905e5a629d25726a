# SPDX-License-Identifier: Apache-2.0
"""What every part of the wanted state is: frozen, and refusing keys that it does not know.

Used by the other modules of model. Uses pydantic and problem.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from byway.control.problem import half_character, shown, wrong


class Model(BaseModel):
    """A table of the configuration. Equal where all its values are; hashable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, table: Any) -> Any:
        # JSON can have them, files of UTF-8, the API's answers and the kernel's names cannot.
        if half := half_character(table):
            raise wrong(f"{shown(half)} has half of a surrogate pair in it, which is no character",
                        "write it in whole characters")
        return table
