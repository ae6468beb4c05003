"""Clients of the service, over REST and gRPC. Needs the extra ``client``: no Ray, no torch.

>>> from service.client import EqrClient
>>> with EqrClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     print(client.solve("1.....3..4.....2").text)
"""

from service.client.asynchronous import AsyncEqrClient
from service.client.blocking import EqrClient
from service.client.errors import (
    AccessDenied,
    AnswerUnreadable,
    ClientError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    FellBehind,
    InvalidInput,
    NotFound,
    RequestUnsendable,
    ServiceError,
    ServiceFault,
    StreamBroken,
    TimedOut,
    TooManyRequests,
    Unavailable,
)
from service.client.retries import NO_RETRIES, Retries

__all__ = [
    "NO_RETRIES",
    "AccessDenied",
    "AnswerUnreadable",
    "AsyncEqrClient",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "EqrClient",
    "FellBehind",
    "InvalidInput",
    "NotFound",
    "RequestUnsendable",
    "Retries",
    "ServiceError",
    "ServiceFault",
    "StreamBroken",
    "TimedOut",
    "TooManyRequests",
    "Unavailable",
]
