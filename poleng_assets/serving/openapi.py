"""What ``/openapi.json`` tells: every question with its codes, every answer, and every error."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from poleng_assets.core.ingestion.contract import MAX_ID
from poleng_assets.study.schema import Feature, Study


class Problem(BaseModel):
    """Every error: what is wrong and what to do, in words that repeat nothing of the request."""

    detail: str


class BrokenAnswer(BaseModel):
    """One answer that cannot be taken: whose (counted from 1), to which question, and why."""

    row: int
    field: str
    reason: str


class BrokenRequest(Problem):
    """Nobody of a request was scored, because some answers break the contract of the study."""

    errors: list[BrokenAnswer]


class Health(BaseModel):
    """Whether people can be scored, by which version, and what is not as it should be."""

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


_WORDS = {
    400: "It is no HTTP request, no JSON, or has another shape.",
    401: "The token is missing or wrong.",
    403: "Another web page asks, or the server was asked for under another name than its own.",
    405: "The address has no such method.",
    408: "Headers or body did not come in time.",
    413: "More people or more bytes than one request may hold.",
    415: "Another content type than application/json.",
    431: "The headers are too large.",
    500: "A fault of the server. Its log tells where; nothing of the request is kept.",
    503: "No model serves yet, or too many ask at once: Retry-After says when to ask again.",
}
# Not of blanks alone, and no control character, as the door has it.
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_ID = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
_OF_ALL = (400, 405, 408, 431, 500)
_BEARER = "bearer"


def errors(*statuses: int, token: bool) -> dict[int | str, dict[str, Any]]:
    """Return how a route describes the errors that all routes have, and some more.

    Args:
        statuses: HTTP statuses that only this route has.
        token: whether a token must be shown; without one, only pages of the server itself may ask.
    """
    listed = sorted({*_OF_ALL, 401 if token else 403, *statuses})
    return {status: {"model": Problem, "description": _WORDS[status]} for status in listed}


def broken_request() -> dict[int | str, dict[str, Any]]:
    """Return how the refusal of answers is described."""
    words = "Some answers break the contract of the study; nobody was scored."
    return {422: {"model": BrokenRequest, "description": words}}


def health_answers() -> dict[int | str, dict[str, Any]]:
    """Return how both answers of ``/health`` are described: they have one form."""
    return {
        200: {"model": Health, "description": "People can be scored."},
        503: {"model": Health, "description": "Nobody can be scored; it says why."},
    }


def live_answers() -> dict[int | str, dict[str, Any]]:
    """Return how both answers of ``/health/live`` are described."""
    return {
        200: {"model": Live, "description": "The process works."},
        503: {"model": Live, "description": "The process has to be started again."},
    }


def json_answer(words: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return how a successful answer is described."""
    return {200: {"description": words, "content": {"application/json": {"schema": schema}}}}


def text_answer(words: str) -> dict[int | str, dict[str, Any]]:
    """Return how a successful answer in text is described."""
    return {200: {"description": words, "content": {"text/plain": {"schema": {"type": "string"}}}}}


def finish(app: FastAPI, guarded: tuple[str, ...]) -> None:
    """Say in the description which routes want a token; ``guarded`` is empty when none does."""
    described = app.openapi()
    if guarded:
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[_BEARER] = {"type": "http", "scheme": "bearer"}
    for path in guarded:
        for operation in described["paths"].get(path, {}).values():
            operation["security"] = [{_BEARER: []}]


def request_body(study: Study, max_rows: int) -> dict[str, Any]:
    """Return what may be asked of ``/predict``: every question, with its codes in words."""
    person: dict[str, Any] = {
        study.id: {
            "description": "Given back with the score; may be left out.",
            "anyOf": [
                {"type": "integer"},
                {"type": "string", "maxLength": MAX_ID, "pattern": _ID},
                {"type": "null"},
            ],
        },
        **{feature.name: _question(feature) for feature in study.features},
    }
    one = {"type": "object", "properties": person, "required": study.feature_names}
    # How many there may be is no matter of form: more of them are answered by 413, not by 422.
    some = {"type": "array", "items": one, "minItems": 1, "description": f"At most {max_rows:,}."}
    content = {
        "type": "object",
        "properties": {
            "respondents": {"anyOf": [one, some]},
            "reasons": {
                "type": "boolean",
                "default": False,
                "description": "Name the answers that raise each score most; takes longer.",
            },
        },
        "required": ["respondents"],
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": content}}}}


def predictions(study: Study) -> dict[str, Any]:
    """Return the schema of the scores."""
    one = {
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
            "predictions": {"type": "array", "items": one},
        },
        "required": ["model_version", "contact_rule", "predictions"],
    }


def _question(feature: Feature) -> dict[str, Any]:
    words = "; ".join(f"{code}: {label}" for code, label in sorted(feature.codes.items()))
    others = " Other codes are taken, as answers that the model does not know." * (
        feature.closed_codes is None
    )
    if feature.closed_codes is None:
        numbers: dict[str, Any] = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
        digits, truths = "[+-]?0*[0-9]{1,9}", [False, True]
    else:
        codes = sorted(feature.closed_codes)
        numbers = {"enum": codes}
        digits = "|".join(f"{'-' if code < 0 else '[+]?'}0*{abs(code)}" for code in codes)
        truths = [truth for truth in (False, True) if int(truth) in codes]
    # Blanks around a code, zeros before it and an empty text are read as the door reads them in a file.
    words_too = "|[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]" if feature.is_yes_or_no else ""
    texts = {"type": "string", "pattern": rf"^\s*(({digits})(\.0+)?{words_too})?\s*$"}
    return {
        "anyOf": [numbers, texts, {"type": "null"}, *([{"enum": truths}] if truths else [])],
        "description": f"{feature.title} ({feature.question}). {words}. null: no answer.{others}",
    }
