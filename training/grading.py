"""Grading a response against the answer known to be right. Pure functions: response and reference in, 0.0 or 1.0 out.

`numeric` looks at the last number of a response, because a model that works step by step writes its result last.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

# A sign counts only where no digit, word or closing bracket stands before it, so that "12-5" ends in 5, not in -5;
# a comma or an apostrophe belongs to the number only where it sets off thousands.
_NUMBER: Final = re.compile(r"(?<![\w.)\]])[-−]?\d[\d,']*(?:\.\d+)?|\d[\d,']*(?:\.\d+)?|(?<!\d)\.\d+")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:[,']\d{3})+(?:\.\d+)?")


def last_number(text: str) -> Decimal | None:
    """The last number written in `text` (full-width digits and thousands separators too), or None where there is none.

    >>> last_number("3 * 4 = 12. The answer is 1,024.50 dollars.")
    Decimal('1024.50')
    """
    found = _NUMBER.findall(text)
    if not found:
        return None
    return _value(found[-1])


def numeric(response: str, reference: str) -> float:
    """1.0 where the last number of `response` equals that of `reference` as a number (29 = 29.0), else 0.0.

    Raises ValueError where the reference holds no number: nothing could then be right, and that is the table's fault.
    """
    expected = last_number(reference)
    if expected is None:
        raise ValueError(f"reference {reference!r} holds no number; grade this table with 'exact' or 'judge'")
    return float(last_number(response) == expected)


def exact(response: str, reference: str) -> float:
    """1.0 where both are the same text but for case, spacing and one closing full stop, else 0.0."""
    return float(_plain(response) == _plain(reference))


def _plain(text: str) -> str:
    folded = " ".join(text.split()).casefold()
    return folded.removesuffix(".").removesuffix("。").rstrip()


def _value(written: str) -> Decimal | None:
    sign = "-" if written[0] in "-−" else ""
    digits = written.lstrip("-−")
    if not _THOUSANDS.fullmatch(digits):
        # "3,4" is a list, not a number: what stands after the last comma is the last number.
        tail = re.split(r"[,']", digits.rstrip(",'"))
        sign, digits = (sign if len(tail) == 1 else ""), tail[-1]
    try:
        return Decimal(sign + digits.replace(",", "").replace("'", ""))
    except InvalidOperation:  # pragma: no cover - the pattern lets only numbers through
        return None
