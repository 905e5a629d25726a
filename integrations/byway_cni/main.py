# SPDX-License-Identifier: Apache-2.0
"""`byway-cni`: one call of a container runtime. The entry point of the package.

Environment and stdin in; on stdout the result, or an error as a JSON object and exit status 1; on
stderr what an administrator may want to read in the runtime's log.

Source: CNI specification 1.1.0, "Section 2: Execution Protocol".
"""

import json
import os
import sys
from typing import Any

from byway.ipam import IpamError
from byway_cni import attach, check, detach, ipam_plugin
from byway_cni.attachments import Attachments
from byway_cni.call import LATEST, MAX_INPUT, VERSIONS, Call, read_call, read_config
from byway_cni.problem import CniError, Code
from byway_cni.settings import OWN_IPAM, Settings, read_settings
from byway_cni.switch import Switch

_ABOUT = (f"byway-cni: containers on a Byway network. A container runtime starts it; it speaks the"
          f" CNI protocol {', '.join(VERSIONS)}.\n")


def main() -> int:
    """Serve the call that environment and stdin describe; -> the exit status."""
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(_ABOUT)
        return 0
    version = LATEST
    try:
        config = read_config(sys.stdin.buffer.read(MAX_INPUT + 1))
        if config.get("cniVersion") in VERSIONS:
            version = config["cniVersion"]
        answer = serve(config)
    except CniError as error:
        answer = error.answer(version)
    except IpamError as error:
        answer = CniError(Code.INPUT_OUTPUT, error.problem, error.fix).answer(version)
    except Exception as error:
        import traceback  # needed never, it is hoped

        traceback.print_exc()
        answer = CniError(Code.INTERNAL, f"{type(error).__name__}: {error}",
                          "this is a defect of byway-cni: please report it").answer(version)
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 1 if answer is not None and "code" in answer else 0


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
        return attach.add(call, settings, kept, switch)
    {"DEL": detach.delete, "GC": detach.collect, "CHECK": check.check,
     "STATUS": check.status}[call.verb](call, settings, kept, switch)
    return None
