# SPDX-License-Identifier: Apache-2.0
"""From what stands on stdin to what goes to stdout: the verb is found and run, errors are caught.

Used by main. Uses the modules of the verbs, each when it is asked for.
"""

import json
import os
from typing import IO, Any

from byway.ipam import IpamError
from byway_cni.attachments import Attachments
from byway_cni.call import LATEST, MAX_INPUT, VERSIONS, Call, read_call, read_config
from byway_cni.problem import CniError, Code
from byway_cni.settings import OWN_IPAM, Settings, read_settings
from byway_cni.switch import Switch

ABOUT = (f"byway-cni: containers on a Byway network. A container runtime starts it; it speaks the"
         f" CNI protocol {', '.join(VERSIONS)}.\n")


def answer_to(stdin: IO[bytes]) -> tuple[int, str]:
    """-> the exit status, and the text for stdout."""
    version = LATEST
    try:
        config = read_config(stdin.read(MAX_INPUT + 1))
        if config.get("cniVersion") in VERSIONS:
            version = config["cniVersion"]
        answer = serve(config)
        return 0, "" if answer is None else json.dumps(answer) + "\n"
    except CniError as error:
        refusal = error
    except IpamError as error:
        refusal = CniError(Code.INPUT_OUTPUT, error.problem, error.fix)
    except Exception as error:
        import traceback

        traceback.print_exc()
        refusal = CniError(Code.INTERNAL, f"{type(error).__name__}: {error}",
                           "this is a defect of byway-cni: please report it")
    return 1, json.dumps(refusal.answer(version)) + "\n"


def serve(config: dict[str, Any]) -> dict[str, Any] | None:
    """Do what is asked; -> what goes to stdout. CniError, IpamError."""
    if os.environ["CNI_COMMAND"] == "VERSION":
        version = config.get("cniVersion")
        return {"cniVersion": version if version in VERSIONS else LATEST,
                "supportedVersions": list(VERSIONS)}
    call = read_call(os.environ, config)
    settings = read_settings(call)
    kept = _open(call, settings)
    try:
        if config.get("type") not in OWN_IPAM and settings.own_ipam:
            from byway_cni import ipam_plugin

            return ipam_plugin.run(call, settings, kept)
        switch = Switch(settings.api)
        try:
            return _run(call, settings, kept, switch)
        finally:
            switch.close()
    finally:
        kept.close()


def _open(call: Call, settings: Settings) -> Attachments:
    try:
        return Attachments(settings.state)
    except IpamError as error:
        code = Code.NOT_AVAILABLE if call.verb == "STATUS" else Code.INPUT_OUTPUT
        raise CniError(code, error.problem, error.fix) from None


def _run(call: Call, settings: Settings, kept: Attachments, switch: Switch,
         ) -> dict[str, Any] | None:
    if call.verb == "ADD":
        from byway_cni import attach

        return attach.add(call, settings, kept, switch)
    if call.verb in ("DEL", "GC"):
        from byway_cni import detach

        (detach.delete if call.verb == "DEL" else detach.collect)(call, settings, kept, switch)
    else:
        from byway_cni import check

        (check.check if call.verb == "CHECK" else check.status)(call, settings, kept, switch)
    return None
