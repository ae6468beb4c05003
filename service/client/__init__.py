"""Clients of the service's REST interface.

>>> from service.client import EqrClient
>>> with EqrClient("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     print(client.solve("1...4...2..3....").text)
"""

from service.client.errors import (
    AnswerUnreadable,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    RequestUnsendable,
    ServiceError,
    ServiceFault,
    TooManyRequests,
    Unavailable,
)
from service.client.rest import AsyncEqrClient, EqrClient

__all__ = [
    "AnswerUnreadable",
    "AsyncEqrClient",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "EqrClient",
    "InvalidInput",
    "NotFound",
    "RequestUnsendable",
    "ServiceError",
    "ServiceFault",
    "TooManyRequests",
    "Unavailable",
]
