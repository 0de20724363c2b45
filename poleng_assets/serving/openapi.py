"""The content of ``/openapi.json``: every question with its codes, every response and every error."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from poleng_assets.core.ingestion.contract import MAX_ID
from poleng_assets.study.schema import Feature, Study


class Problem(BaseModel):
    """An error: what is wrong and what to do, without any part of the request."""

    detail: str


class BrokenAnswer(BaseModel):
    """One invalid answer: the row (from 1), the question and the reason."""

    row: int
    field: str
    reason: str


class BrokenRequest(Problem):
    """No one was scored, because some answers break the contract of the study."""

    errors: list[BrokenAnswer]


class Health(BaseModel):
    """Whether people can be scored, by which version, and current problems."""

    alive: bool
    ready: bool
    model_version: int | None = None
    loaded_at: str | None = None
    seconds_since_loaded: float | None = None
    trained_at: str | None = None
    not_as_it_should_be: list[str]
    looked_at: str | None


class Live(BaseModel):
    """Whether the process works."""

    alive: bool


_DESCRIPTIONS = {
    400: "The request is not HTTP, not JSON, or has the wrong structure.",
    401: "The token is missing or wrong.",
    403: "The request comes from another web page, or has an unknown host name.",
    405: "The path does not support this method.",
    408: "Headers or body were not received in time.",
    413: "The request has too many people or too many bytes.",
    415: "The content type is not application/json.",
    431: "The headers are too large.",
    500: "Internal error. The log has its location, and no part of the request.",
    503: "No model serves yet, or there are too many requests: try again after Retry-After.",
}
# Not only spaces, and no control character, as in the contract of files.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_ID = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
_OF_ALL = (400, 405, 408, 431, 500)
_BEARER = "bearer"


def errors(*statuses: int, token: bool) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the errors of a route: those of all routes, and its own.

    Args:
        statuses: HTTP statuses of this route only.
        token: whether a token is required; without one, requests of other web pages are refused.
    """
    listed = sorted({*_OF_ALL, 401 if token else 403, *statuses})
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in listed}


def broken_request() -> dict[int | str, dict[str, Any]]:
    """Return the description of the refusal of answers."""
    description = "Some answers break the contract of the study; no one was scored."
    return {422: {"model": BrokenRequest, "description": description}}


def health_answers() -> dict[int | str, dict[str, Any]]:
    """Return the description of both responses of ``/health``, which have the same form."""
    return {
        200: {"model": Health, "description": "People can be scored."},
        503: {"model": Health, "description": "No one can be scored; the response says why."},
    }


def live_answers() -> dict[int | str, dict[str, Any]]:
    """Return the description of both responses of ``/health/live``."""
    return {
        200: {"model": Live, "description": "The process works."},
        503: {"model": Live, "description": "The process must be restarted."},
    }


def json_answer(description: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the description of a successful response."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}


def text_answer(description: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a successful response as text."""
    return {200: {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}}


def finish(app: FastAPI, guarded: tuple[str, ...]) -> None:
    """Mark the routes that require a token; ``guarded`` is empty if none does."""
    described = app.openapi()
    if guarded:
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[_BEARER] = {"type": "http", "scheme": "bearer"}
    for path in guarded:
        for operation in described["paths"].get(path, {}).values():
            operation["security"] = [{_BEARER: []}]


def request_body(study: Study, max_rows: int) -> dict[str, Any]:
    """Return the schema of requests to ``/predict``: every question, with the labels of its codes."""
    person: dict[str, Any] = {
        study.id: {
            "description": "Returned with the score; optional.",
            "anyOf": [
                {"type": "integer"},
                {"type": "string", "maxLength": MAX_ID, "pattern": _ID},
                {"type": "null"},
            ],
        },
        **{feature.name: _question(feature) for feature in study.features},
    }
    respondent = {"type": "object", "properties": person, "required": study.feature_names}
    # No maxItems: more respondents are refused with 413, not with 422.
    several = {"type": "array", "items": respondent, "minItems": 1, "description": f"At most {max_rows:,}."}
    content = {
        "type": "object",
        "properties": {
            "respondents": {"anyOf": [respondent, several]},
            "reasons": {
                "type": "boolean",
                "default": False,
                "description": "Return the answers that raise each score most (SHAP); slower.",
            },
        },
        "required": ["respondents"],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": content}}}}


def predictions(study: Study) -> dict[str, Any]:
    """Return the schema of the scores."""
    prediction = {
        "type": "object",
        "properties": {
            "row": {"type": "integer", "minimum": 1},
            study.id: {"type": ["string", "null"]},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "contact": {"type": "boolean"},
            "reasons": {"type": "string"},
            "unknown_answers": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["row", "score", "contact", "unknown_answers"],
    }
    rule = {
        "type": "object",
        "properties": {
            "threshold": {"type": "number"},
            "capacity_of_a_batch": {"type": ["integer", "null"]},
            "words": {"type": "string"},
        },
        "required": ["threshold", "words"],
    }
    return {
        "type": "object",
        "properties": {
            "model_version": {"type": "integer", "minimum": 1},
            "contact_rule": rule,
            "predictions": {"type": "array", "items": prediction},
        },
        "required": ["model_version", "contact_rule", "predictions"],
    }


def _question(feature: Feature) -> dict[str, Any]:
    labels = "; ".join(f"{code}: {label}" for code, label in sorted(feature.codes.items()))
    others = " Other codes are accepted, as answers unknown to the model." * (feature.closed_codes is None)
    if feature.closed_codes is None:
        numbers: dict[str, Any] = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
        digits, truths = "[+-]?0*[0-9]{1,9}", [False, True]
    else:
        codes = sorted(feature.closed_codes)
        numbers = {"enum": codes}
        digits = "|".join(f"{'-' if code < 0 else '[+]?'}0*{abs(code)}" for code in codes)
        truths = [truth for truth in (False, True) if int(truth) in codes]
    # Spaces around a code, leading zeros and an empty text are read as in a file.
    truth_pattern = "|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]" if feature.is_yes_or_no else ""
    texts = {"type": "string", "pattern": rf"^\s*(({digits})(\.0+)?{truth_pattern})?\s*$"}
    return {
        "anyOf": [numbers, texts, {"type": "null"}, *([{"enum": truths}] if truths else [])],
        "description": f"{feature.title} ({feature.question}). {labels}. null: no answer.{others}",
    }
