"""Budget to words: the one sentence for each thing that a budget can hold. Reading it gives the same budget back."""

from router.budget import Budget, Limit


def canonical(budget: Budget, language: str = "en", *, explicit: bool = False) -> str:
    """The canonical text of `budget` in `language` ("en" or "ja").

    `explicit` names time zones and first days of the week also where they are UTC and Monday, so that the text reads
    the same under any settings.
    """
    if language == "ja":
        from router.language.japanese import canonical as japanese

        return "".join(japanese.sentences(budget, explicit))
    from router.language.english import canonical as english

    return " ".join(english.sentences(budget, explicit))


def describe_limit(limit: Limit, language: str = "en") -> str:
    """The canonical words of one limit, without the full stop."""
    if language == "ja":
        from router.language.japanese import canonical as japanese

        return japanese.limit(limit)
    from router.language.english import canonical as english

    return english.limit(limit)
