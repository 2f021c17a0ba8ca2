"""The JSON of a budget, key by key as `tw budget parse --json` promises it."""

from typing import Any

from router.budget import Budget, During, Limit, Rule, Window


def as_dict(budget: Budget) -> dict[str, Any]:
    """limits, rules, when_exhausted; `queue_s` and `explore` only where the budget says them."""
    shape: dict[str, Any] = {
        "limits": [limit_as_dict(limit) for limit in budget.limits],
        "rules": [rule_as_dict(rule) for rule in budget.rules],
        "when_exhausted": budget.when_exhausted,
    }
    if budget.when_exhausted == "queue":
        shape["queue_s"] = plain(budget.queue_s)
    if budget.explore is not None:
        shape["explore"] = budget.explore
    return shape


def limit_as_dict(limit: Limit) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "kind": limit.kind,
        "measure": limit.measure,
        "at_most": limit.at_most if limit.measure in ("share", "token_share") else plain(limit.at_most),
        "per": None if limit.per is None else window_as_dict(limit.per),
        "scope": limit.scope,
        "during": None if limit.during is None else during_as_dict(limit.during),
    }
    if limit.measure == "latency_s":
        shape["quantile"] = limit.quantile
    return shape


def window_as_dict(window: Window) -> dict[str, Any]:
    """`rolling`, `tz` and `week_start` only where they are not the usual: calendar, UTC, Monday."""
    shape: dict[str, Any] = {"n": window.n, "unit": window.unit}
    if window.rolling:
        shape["rolling"] = True
    if window.tz != "UTC":
        shape["tz"] = window.tz
    if window.week_start:
        shape["week_start"] = window.week_start
    return shape


def during_as_dict(during: During) -> dict[str, Any]:
    shape: dict[str, Any] = {"days": list(during.days), "from": during.start, "to": during.end, "tz": during.tz}
    if during.otherwise:
        shape["otherwise"] = True
    return shape


def rule_as_dict(rule: Rule) -> dict[str, Any]:
    when = rule.when
    said: dict[str, Any] = {
        "topic": when.topic,
        "contains": when.contains,
        "longer_than_tokens": when.longer_than_tokens,
        "shorter_than_tokens": when.shorter_than_tokens,
        "tag": when.tag,
        "header": None if when.header is None else {"name": when.header[0], "value": when.header[1]},
        "key_group": when.key_group,
        "language": when.language,
    }
    return {"route": rule.route, "when": {name: value for name, value in said.items() if value is not None}}


def plain(value: float) -> int | float:
    """200 rather than 200.0."""
    return int(value) if float(value).is_integer() else value
