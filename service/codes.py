"""The stable codes of all problems. Clients import this, so it needs no web framework."""

from __future__ import annotations

from http import HTTPStatus

TITLES: dict[str, tuple[HTTPStatus, str]] = {
    "invalid_request_id": (HTTPStatus.BAD_REQUEST, "X-Request-Id cannot be used"),
    "malformed_json": (HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    "bad_request": (HTTPStatus.BAD_REQUEST, "The request cannot be read"),
    "invalid_idempotency_key": (HTTPStatus.BAD_REQUEST, "Idempotency-Key cannot be used"),
    "unauthenticated": (HTTPStatus.UNAUTHORIZED, "There is no API key, or it is not known"),
    "not_local": (HTTPStatus.FORBIDDEN, "Callers from other machines are refused"),
    "not_found": (HTTPStatus.NOT_FOUND, "There is nothing at this path"),
    "unknown_model": (HTTPStatus.NOT_FOUND, "There is no such model"),
    "unknown_job": (HTTPStatus.NOT_FOUND, "There is no such job"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "This path takes other methods"),
    "slow_reader": (HTTPStatus.REQUEST_TIMEOUT, "The reader of a stream fell behind"),
    "idempotency_conflict": (HTTPStatus.CONFLICT, "Idempotency-Key belongs to another request"),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    "unsupported_media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON"),
    "invalid_request": (HTTPStatus.UNPROCESSABLE_ENTITY, "A field is missing, unknown or wrong"),
    "invalid_grid": (HTTPStatus.UNPROCESSABLE_ENTITY, "The grid cannot be solved"),
    "invalid_budget": (HTTPStatus.UNPROCESSABLE_ENTITY, "The budget is outside its limits"),
    "unsuitable_model": (HTTPStatus.UNPROCESSABLE_ENTITY, "No model fits the grid"),
    "queue_full": (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests are waiting"),
    "rate_limited": (HTTPStatus.TOO_MANY_REQUESTS, "The API key's rate is used up"),
    "quota_exceeded": (HTTPStatus.TOO_MANY_REQUESTS, "The API key's NFE of today are used up"),
    "not_ready": (HTTPStatus.SERVICE_UNAVAILABLE, "The service is not ready"),
    "draining": (HTTPStatus.SERVICE_UNAVAILABLE, "The service is shutting down"),
    "store_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The store does not answer"),
    "deadline_exceeded": (HTTPStatus.GATEWAY_TIMEOUT, "No answer before the deadline"),
    "internal_error": (HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed"),
}
"""Status and title of every code; nothing else in the service names a status."""
