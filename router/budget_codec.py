"""A Budget as JSON and back, so that a ledger can keep the running one without reading words again.

Fields at their defaults are written too: what a ledger holds says in full what was promised.
"""

import json
from dataclasses import asdict
from typing import Any

from router.budget import Budget, During, Limit, Rule, When, Window


def encode(budget: Budget) -> str:
    return json.dumps(asdict(budget), ensure_ascii=False, separators=(",", ":"))


def decode(text: str) -> Budget:
    """Raises ValueError where `text` is not what `encode` wrote."""
    try:
        raw = json.loads(text)
        return Budget(
            **{
                **raw,
                "limits": tuple(_limit(each) for each in raw["limits"]),
                "rules": tuple(_rule(each) for each in raw["rules"]),
            }
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a stored budget: {error}") from error


def _limit(raw: dict[str, Any]) -> Limit:
    per = None if raw["per"] is None else Window(**raw["per"])
    during = None if raw["during"] is None else During(**{**raw["during"], "days": tuple(raw["during"]["days"])})
    return Limit(**{**raw, "per": per, "during": during})


def _rule(raw: dict[str, Any]) -> Rule:
    when = dict(raw["when"])
    if when["header"] is not None:
        name, value = when["header"]
        when["header"] = (name, value)
    return Rule(route=raw["route"], when=When(**when))
