"""Equations as people and models write them, read and checked.

Idea: look left and right of every `=` through a small window, so that the work stays linear in the text whatever it
holds; a chain such as `3 x $60 + 5` is evaluated with the usual precedence, and what cannot be read is left out.
"""

import re
from dataclasses import dataclass

from policies.prompt_features import to_number

WINDOW = 72
MOST = 48
"""Equals signs looked at in one text."""

_PIECE = re.compile(
    r"(?P<number>[0-9][0-9,]*(?:\.[0-9]+)?)(?P<percent>\s?%)?|(?P<operator>[-+*/×÷x](?![a-z]))|(?P<stop>[=()\n:;?])"
)
_RIGHT = re.compile(r"=?\s*[$£€]?\s*(-?)\s*[$£€]?([0-9][0-9,]*(?:\.([0-9]+))?)(\s?%)?")


@dataclass(frozen=True, slots=True)
class Equations:
    """`seen` could be evaluated; `false` of them do not hold; `results` are their right sides in order."""

    seen: int
    false: int
    last_false: bool
    results: tuple[float, ...]


def _evaluate(terms: list[float], operators: list[str]) -> float | None:
    sums, last = [terms[0]], terms[0]
    for operator, term in zip(operators, terms[1:], strict=True):
        match operator:
            case "*" | "x" | "×":
                last = sums[-1] = last * term
            case "/" | "÷":
                if term == 0:
                    return None
                last = sums[-1] = last / term
            case "-":
                last = -term
                sums.append(last)
            case _:
                last = term
                sums.append(last)
    return sum(sums)


def _left_side(window: str) -> float | None:
    """The value of the chain that ends the window; None without at least one operator."""
    terms: list[float] = []
    operators: list[str] = []
    want_number = True
    for piece in reversed(list(_PIECE.finditer(window))):
        kind = piece.lastgroup
        if kind == "stop":
            if piece["stop"] == ")":
                return None
            break
        if want_number:
            if piece["number"] is None:
                return None
            value = to_number(piece["number"])
            terms.append(value / 100 if piece["percent"] else value)
        elif piece["operator"] is None:
            break
        else:
            operators.append(piece["operator"])
        want_number = not want_number
    if want_number and operators:
        operators.pop()  # a sign before the first number, or a chain that began outside the window
    if not operators or len(terms) != len(operators) + 1:
        return None
    return _evaluate(terms[::-1], operators[::-1])


def read_equations(text: str) -> Equations:
    """Every `left = right` of the text whose left side is a chain of numbers."""
    seen = false = 0
    last_false = False
    results: list[float] = []
    at = text.find("=")
    for _ in range(MOST):
        if at < 0:
            break
        right = _RIGHT.match(text, at)
        if right is not None:
            value = to_number(right[2]) * (-1 if right[1] else 1)
            results.append(value)
            left = _left_side(text[max(0, at - WINDOW) : at])
            if left is not None:
                seen += 1
                rounding = 0.51 * 10.0 ** -min(len(right[3] or ""), 9)
                slack = max(rounding if right[3] else 1e-6, 0.002 * abs(value))
                candidates = (value, value / 100) if right[4] else (value, value * 100, value / 100)
                last_false = all(abs(left - candidate) > slack for candidate in candidates)
                false += last_false
        at = text.find("=", at + 1)
    return Equations(seen, false, last_false, tuple(results))
