"""What becomes of a request that finds the budget exhausted: "when the limit is reached", "reject it with a 429"."""

import re

_EXHAUSTED = re.compile(
    r"(?:(?:the|any|a|no|its|our|your|my) )?(?:teacher )?"
    r"(?:budgets?|limits?|quota|allowance|cap|money|calls|tokens|everything|it|that|all(?: of it)?|nothing) "
    r"(?:(?:(?:is|are|has|have|has been|have been|gets|was|were) )?(?:all )?"
    r"(?:exhausted|used up|gone|reached|hit|depleted|consumed|run out|runs out|ran out|remains)\b"
    r"|(?:is|are|has been|have been|gets|was|were) (?:all )?"
    r"(?:spent|empty|finished|over|out|left|met|exceeded|reached)\b(?! \d))"
    r"|(?:(?:we|it|you|i) )?(?:run|runs|ran|are|is) out of (?:the |our )?(?:budget|money|calls|quota|tokens)\b"
    r"|out of (?:the |our )?(?:budget|money|calls|quota|tokens)\b"
    r"|(?:run|runs) out\b"
    r"|(?:we|you|they) (?:have )?(?:used up|exhausted|spent|reach|reached|hit) (?:the|our|that|a|all the) "
    r"(?:budget|limit|money|calls|quota)\b"
)
_ERROR = (
    r"(?:(?:http )?(?:errors?(?: (?:code|status|message))?(?: 429)?|429(?: errors?)?|status(?: code)? 429"
    r"|rate[- ]limit errors?)(?: too many requests)?)\b"
)
_WHOM = r"(?:(?:it|them|the|further|new|more|other|such|requests?|calls?|clients?|that|back) ?){0,3}"
_REJECT = re.compile(
    rf"(?:return|returns|returned|give|gives|send|raise|raises|answer|answered|reply|respond|get|gets|see|show) {_WHOM}"
    rf"(?:with )?(?:an? )?{_ERROR}"
    rf"|(?:requests? |calls? )?(?:are |is |get |gets |be )?(?:reject|refus|deni|deny|declin|"
    rf"block|fail)(?:s|es|e|ed|ing)?\b"
    rf"(?: {_WHOM})?(?: ?(?:with )?(?:an? )?{_ERROR})?"
    # A bare 429 is an error only where no noun follows it: "429 calls" is an amount.
    rf"|(?:an? )?(?!429(?! error)){_ERROR}|(?:an? )?429(?= ?(?:$|[;!?)\n]|[.,](?!\d)| error))"
)
_QUEUE = re.compile(
    r"(?:let )?(?:(?:the |further |new |more )?requests? |them |it )?(?:put |hold |keep |are |"
    r"is |be )?(?:them |it |requests? )?"
    r"(?:queue[ds]?|queueing|wait|waits|waiting|delay|delayed|in (?:a|the) queue)\b"
    r"(?: (?:them|it|requests?|the requests?|further requests?)\b)?(?: in (?:a|the) queue)?(?: for)?\b"
)
_TRAILING = re.compile(r" +$")


def exhausted(text: str, at: int) -> int | None:
    """The end of words that say the budget is used up."""
    match = _EXHAUSTED.match(text, at)
    return match.end() if match else None


def outcome(text: str, at: int) -> tuple[str, int] | None:
    """REJECT or QUEUE, and where the words for it end."""
    for type_, pattern in (("REJECT", _REJECT), ("QUEUE", _QUEUE)):
        match = pattern.match(text, at)
        if match:
            return type_, at + len(_TRAILING.sub("", match[0]))
    return None
