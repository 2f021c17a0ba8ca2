"""Budgets that the grammar cannot read, said again by a model in words that it can.

The model never makes a budget: it writes a sentence, the grammar reads it, and a person looks at what was understood
and says yes. So the worst that a wrong answer can do is to be refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from router.language import Parsed, Unreadable, parse
from server.commands.gateway_client import GatewayClient

MOST_TOKENS = 400
_INSTRUCTIONS = """\
You rewrite what an operator wants of a teacher budget into plain sentences of a fixed style. A gateway answers \
requests with a small student model and sometimes calls a large teacher model; the budget says how often.

Sentences of that style:
- Aim for 20% of requests to the teacher.
- At most 15% of requests to the teacher.
- At most 200 teacher calls per API key per calendar day.
- At most 50 teacher calls in any 10 minutes.
- At most 2 million teacher tokens per calendar week.
- At most $0.003 per request on average.
- At most 4 concurrent teacher calls.
- At most 30 teacher calls per hour on weekdays from 9:00 to 18:00 Asia/Tokyo.
- Requests about legal questions always ask the teacher.
- Requests that contain code never ask the teacher.
- When the budget is exhausted the student answers. (or: requests are refused; or: requests wait up to 10 seconds)

Keep every number, period and condition of the operator's words, and add none. Write in the operator's language \
(English or Japanese). If something in the words is no budget, or too vague to put a number to, leave it out and set \
"complete" to false.
Answer with JSON: {"budget": "the sentences", "complete": true or false}."""
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "budget",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"budget": {"type": "string"}, "complete": {"type": "boolean"}},
            "required": ["budget", "complete"],
            "additionalProperties": False,
        },
    },
}


class NotReworded(Exception):
    """The model was reached and its answer is of no use; the message says why."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a model made of the words. Nothing is in force before a person has seen `parsed.canonical`."""

    asked: str
    parsed: Parsed
    complete: bool
    """The model says that nothing was left out."""


def reword(
    text: str, problem: Unreadable, url: str, *, model: str, key: str | None, timezone: str, rates: Mapping[str, float]
) -> Proposal:
    """Asks the model at an OpenAI-compatible `url`. Raises NotReworded, and what GatewayClient raises."""
    client = GatewayClient(url, key, what="model server")
    body = {
        "model": model,
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "response_format": _SCHEMA,
        "messages": [
            {"role": "system", "content": _INSTRUCTIONS},
            {"role": "user", "content": f"{text}\n\n(Not understood: {problem.message})"},
        ],
    }
    path = "/chat/completions" if urlsplit(url).path.rstrip("/").endswith("/v1") else "/v1/chat/completions"
    sentence, complete = _read(client.request("POST", path, body))
    try:
        return Proposal(text, parse(sentence, timezone=timezone, rates=rates), complete)
    except Unreadable as error:
        raise NotReworded(
            f"the model said it as {sentence[:300]!r}, which cannot be read either: {error.message}"
        ) from None


def _read(answer: dict[str, Any]) -> tuple[str, bool]:
    try:
        content = str(answer["choices"][0]["message"]["content"]).strip()
    except (LookupError, TypeError):
        raise NotReworded("the model's answer holds no message") from None
    try:
        said = json.loads(content.removeprefix("```json").removesuffix("```"))
        sentence, complete = said["budget"], said.get("complete") is not False
    except (ValueError, LookupError, TypeError):
        # A server without structured output answers in plain text; whether all of it was kept is then unknown.
        sentence, complete = content, False
    if not isinstance(sentence, str) or not sentence.strip():
        raise NotReworded("the model found nothing in these words that is a budget")
    return sentence.strip(), complete
