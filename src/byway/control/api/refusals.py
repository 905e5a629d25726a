# SPDX-License-Identifier: Apache-2.0
"""How the API says no: every refusal is JSON with error, problem and fix.

Used by the other modules of api. Uses problem.
"""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from byway.control.problem import (
    ConfigError,
    EngineError,
    NotThere,
    NotValid,
    Problem,
    shown,
)

_ENGINE: dict[type[EngineError], tuple[int, str]] = {
    NotThere: (404, "not-found"), NotValid: (422, "invalid"), EngineError: (409, "refused")}


class ApiError(Exception):
    """A call that is refused: HTTP status, a word for programs, problem and fix for people."""

    def __init__(self, status: int, error: str, problem: str, fix: str) -> None:
        self.status = status
        self.body = {"error": error, "problem": problem, "fix": fix}
        super().__init__(f"{problem}; {fix}")


def add_error_handlers(app: FastAPI) -> None:
    """Every refusal is JSON with error, problem and fix."""

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return JSONResponse(error.body, error.status)
        if isinstance(error, ConfigError):
            first = error.problems[0]
            return JSONResponse({
                "error": "invalid",
                "problem": f"{first.key}: {first.problem}" if first.key else first.problem,
                "fix": first.fix,
                "problems": [str(problem) for problem in error.problems],
            }, 422)
        if isinstance(error, EngineError):
            status, word = next((said for kind, said in _ENGINE.items() if isinstance(error, kind)))
            body = {"error": word, "problem": error.problem, "fix": error.fix}
            return JSONResponse(
                {**body, "problems": [str(error)]} if status == 422 else body, status)
        if isinstance(error, RequestValidationError):  # of the query: bodies have parsers
            found = [Problem(str(one["loc"][-1]), f"is {shown(one['input'])}", one["msg"])
                     for one in error.errors()]
            return JSONResponse({
                "error": "invalid", "problem": f"{found[0].key}: {found[0].problem}",
                "fix": found[0].fix, "problems": [str(problem) for problem in found]}, 422)
        if isinstance(error, HTTPException):
            word = {404: "not-found", 405: "method"}.get(error.status_code, "bad-request")
            return JSONResponse(
                {"error": word, "problem": f"{request.method} {request.url.path}: {error.detail}",
                 "fix": "see /openapi.json"}, error.status_code, error.headers)
        return JSONResponse(
            {"error": "fault", "problem": f"a fault in the switch: {error!r}",
             "fix": "see the switch's messages and report it"}, 500)

    for kind in (ApiError, ConfigError, EngineError, RequestValidationError, HTTPException,
                 Exception):
        app.add_exception_handler(kind, refused)
