"""Restrictions in plain words: how much of the text the student may ask for, as a sentence before the prompt."""

import random
import re
from dataclasses import dataclass

from training.distill.errors import CannotDistill

TRAINED = (
    "Ask for at most {share} of the tokens.",
    "You may ask for up to {share} of the words.",
    "At most {share} of the text may come from the teacher.",
    "Let the teacher write no more than {share}.",
    "Help budget: {share}.",
    "Use help for {share} of the answer at most.",
    "Never ask for more than {share} of the words.",
    "Keep help under {share}.",
    "The teacher may write {share} of the tokens, not more.",
)
HELD_OUT = (
    "Do not ask the teacher for more than {share} of the tokens.",
    "No more than {share} of the answer may be asked for.",
    "Limit help to {share}.",
)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:%|percent\b|per cent\b)")


@dataclass(frozen=True, slots=True)
class Restriction:
    """`share` of the tokens in one of the `phrasings`."""

    share: float
    phrasing: str

    @property
    def sentence(self) -> str:
        return self.phrasing.replace("{share}", percent(self.share))


def percent(share: float) -> str:
    return f"{100 * share:g}%"


def read_restriction(sentence: str) -> float:
    """The share that a sentence allows. Raises CannotDistill, with the sentence, where there is not exactly one."""
    found = _SHARE.findall(sentence)
    if len(found) != 1 or not 0 <= float(found[0]) <= 100:
        said = "no share" if not found else f"{len(found)} shares" if len(found) > 1 else "a share above 100%"
        raise CannotDistill(
            f"{sentence!r}: has {said}; a restriction says one, in per cent, as in 'Ask for at most 20% of the tokens.'"
        )
    return float(found[0]) / 100


def check_phrasing(phrasing: str) -> str:
    """Raises ValueError where `{share}` is not there exactly once, or the filled sentence cannot be read."""
    if phrasing.count("{share}") != 1:
        raise ValueError(f"{phrasing!r}: needs {{share}} exactly once, where the percentage goes")
    try:
        read_restriction(phrasing.replace("{share}", "20%"))
    except CannotDistill as error:
        raise ValueError(str(error)) from None
    return phrasing


def sampled(levels: tuple[float, ...], phrasings: tuple[str, ...], draw: random.Random) -> Restriction:
    return Restriction(draw.choice(levels), draw.choice(phrasings))
