"""Numbers written so that reading them gives the very same float back."""

from decimal import Decimal
from fractions import Fraction


def exact(value: float) -> str:
    """The shortest plain decimal (no exponent) of `value`."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def thousands(value: float) -> str:
    """`exact`, with commas between thousands."""
    whole, dot, rest = exact(value).partition(".")
    return f"{int(whole):,}{dot}{rest}"


def money(value: float) -> str:
    """`thousands` with cents where there are any."""
    text = thousands(value)
    _, dot, cents = text.partition(".")
    return f"{text}0" if dot and len(cents) == 1 else text


def share(value: float, over: str = "{above}/{below}") -> str:
    """A share as "20%", or as a fraction, written like `over`, where the percentage would not end."""
    percent = exact_percent(value)
    if len(percent) > 7:
        for below in range(2, 13):
            above = round(value * below)
            if 0 < above < below and above / below == value:
                return over.format(above=above, below=below)
    return f"{percent}%"


def exact_percent(value: float) -> str:
    """100 x `value` as the shortest plain decimal that divides back to `value`."""
    text = format(Decimal(repr(float(value))) * 100, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    assert float(Fraction(text) / 100) == float(value)
    return text
