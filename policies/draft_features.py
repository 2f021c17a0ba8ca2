"""What a draft shows: how sure its tokens were, whether it came to an end, whether its own sums hold.

Where the upstream gives no log-probabilities the fields of that kind are zero and `has_logprobs` says so.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from policies import compiled
from policies.arithmetic import read_equations
from policies.compiled import native
from policies.observation import Draft
from policies.prompt_features import (
    FEATURES_VERSION,
    Floats,
    Ints,
    PromptView,
    encode,
    hash_tokens,
    shorten,
    to_number,
    tokenise,
)

DRAFT_FEATURES: tuple[str, ...] = (
    "draft_here",
    "has_logprobs",
    "logprob_mean",
    "logprob_min",
    "logprob_first",
    "logprob_last",
    "logprob_sum",
    "logprob_q10",
    "logprob_q25",
    "logprob_q50",
    "logprob_std",
    "logprob_below_half",
    "logprob_below_tenth",
    "logprob_tail_min",
    "has_entropies",
    "entropy_mean",
    "entropy_max",
    "entropy_last",
    "finish_length",
    "finish_stop",
    "incomplete",
    "log_draft_bytes",
    "log_draft_words",
    "log_draft_lines",
    "draft_to_prompt",
    "empty",
    "says_answer",
    "says_final_mark",
    "boxed",
    "answer_marks",
    "number_at_end",
    "closed",
    "final_number",
    "final_log_size",
    "final_integer",
    "final_negative",
    "final_in_question",
    "final_in_results",
    "final_seen_before",
    "final_round",
    "log_equations",
    "false_equations",
    "false_share",
    "last_equation_false",
    "log_draft_numbers",
    "numbers_unused",
    "numbers_new",
    "numbers_used_share",
    "distinct_words_share",
    "repeated_pairs",
    "repeated_line",
    "hedges",
    "refusals",
    "connectives",
    "letter",
    "letter_in_options",
    "letter_place",
    "letters_differ",
    "option_number_agrees",
    "option_number_elsewhere",
    "option_words_in_draft",
    "option_words_margin",
    "option_text_in_draft",
    "options_named",
    "question_marks",
    "latex",
)

_ANSWER_IS = re.compile(r"answer\s+is|answer:|####|final answer", re.IGNORECASE)
_LETTER = re.compile(r"answer(?:\s+is)?:?\s*\**\(?([A-P])\b(?![a-z'])|^\s*\(?([A-P])[).:]?\s*$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])-?[$£€]?[0-9][0-9,]*(?:\.[0-9]+)?")
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|probably|not sure|unsure|i think|might|possibly|approximately|about|assum\w+|unclear"
    r"|cannot be determined|not enough|impossible|seems?|likely|guess)\b",
    re.IGNORECASE,
)
_HEDGE_WORDS = frozenset(
    b"maybe perhaps probably sure unsure think might possibly approximately about unclear determined enough impossible"
    b" seem seems likely guess".split()
)
"""One of these, or a form of `assume`, stands in every hedge, so that most texts need no regular expression."""
_REFUSAL = re.compile(r"\b(?:sorry|i can(?:no|')t|as an ai|unable to|i do not know|i don't know)\b", re.IGNORECASE)
_REFUSAL_WORDS = frozenset(b"sorry can cannot ai unable know".split())
_CONNECTIVES = frozenset(b"so therefore thus hence then because since but however".split())


def _bounded(logprob: float) -> float:
    # Upstreams write -inf, -9999 or NaN for what they would not compute; a comparison with NaN is false.
    return min(logprob, 0.0) if logprob > -30.0 else -30.0


def _logprob_features(logprobs: Sequence[float]) -> list[float]:
    """`has_logprobs` to `logprob_tail_min`."""
    if not logprobs:
        return [0.0] * 13
    # Plain Python: a draft has some dozens of tokens, and for so few numpy's calls cost more than its arithmetic.
    values = [_bounded(value) for value in logprobs]
    ordered = sorted(values)
    count = len(values)
    last = count - 1
    total = math.fsum(values)
    mean = total / count
    return [
        1.0,
        mean,
        ordered[0],
        values[0],
        values[-1],
        max(total, -300.0),
        ordered[int(0.10 * last)],
        ordered[int(0.25 * last)],
        ordered[int(0.50 * last)],
        math.sqrt(max(math.fsum([value * value for value in values]) / count - mean * mean, 0.0)),
        bisect_left(ordered, -0.693) / count,
        bisect_left(ordered, -2.303) / count,
        min(values[-6:]),
    ]


def _entropy_features(entropies: Sequence[float]) -> list[float]:
    """`has_entropies` to `entropy_last`."""
    if not entropies:
        return [0.0, 0.0, 0.0, 0.0]
    spread = np.nan_to_num(np.clip(np.asarray(entropies, dtype=np.float64), 0.0, 30.0), nan=30.0)
    return [1.0, float(spread.mean()), float(spread.max()), float(spread[-1])]


def _content_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z0-9.]+", text.lower()) if len(word) > 2 or word[0].isdigit()}


def _option_features(text: str, view: PromptView) -> list[float]:
    options = view.options
    # A choice stands after the word, or alone on a line as short as `(C).`
    letters = []
    if "answer" in text or min(map(len, map(str.strip, text.split("\n")))) <= 4:
        letters = [first or second for first, second in _LETTER.findall(text)]
    if not options:
        return [float(bool(letters)), *([0.0] * 9)]
    letter = letters[-1] if letters else ""
    chosen = options.get(letter)
    # Whole letters only where they stand as a choice: "(C)" or "C." or "option C".
    named = len({name for name in re.findall(r"\(([A-P])\)|option ([A-P])\b", text) for name in name if name})
    if chosen is None:
        return [float(bool(letters)), 0.0, -1.0, float(len(set(letters)) > 1), 0.0, 0.0, 0.0, 0.0, 0.0, float(named)]
    cut = max(text.lower().rfind("answer"), 0)
    reasoning = text[:cut] if cut > 20 else text
    place = list(options).index(letter) / max(len(options) - 1, 1)
    agrees = elsewhere = 0.0
    wanted = [to_number(m.lstrip("-$£€")) for m in _NUMBER.findall(chosen)]
    said = [to_number(m.lstrip("-$£€")) for m in _NUMBER.findall(reasoning)][-3:]
    if wanted and said:
        agrees = 1.0 if any(_close(a, b) for a in wanted for b in said) else -1.0
        if agrees < 0:
            others = (
                to_number(m.lstrip("-$£€"))
                for other, option in options.items()
                if other != letter
                for m in _NUMBER.findall(option)
            )
            elsewhere = float(any(_close(a, b) for a in others for b in said))
    there = _content_words(reasoning)
    overlap = {name: _overlap(_content_words(option), there) for name, option in options.items()}
    rest = max((value for name, value in overlap.items() if name != letter), default=0.0)
    return [
        1.0,
        1.0,
        place,
        float(len(set(letters)) > 1),
        agrees,
        elsewhere,
        overlap[letter],
        overlap[letter] - rest,
        float(chosen.strip().lower()[:60] in reasoning.lower()),
        float(named),
    ]


def _overlap(words: set[str], there: set[str]) -> float:
    return len(words & there) / len(words) if words else 0.0


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 0.01 * max(abs(a), abs(b)) + 1e-9


def _words_by_kind() -> dict[bytes, tuple[int, ...]]:
    """Word -> 0 a hedge, 1 a refusal, 2 a connective: as the compiled reader counts them."""
    kinds = (_HEDGE_WORDS, _REFUSAL_WORDS, _CONNECTIVES)
    words = frozenset().union(*kinds)
    return {word: tuple(kind for kind, members in enumerate(kinds) if word in members) for word in words}


_READER = compiled.reader(FEATURES_VERSION, DRAFT_FEATURES, _words_by_kind())


def _from(first: str, last: str) -> slice:
    return slice(DRAFT_FEATURES.index(first), DRAFT_FEATURES.index(last) + 1)


_ENTROPIES = _from("has_entropies", "entropy_last")
_ANSWER = _from("empty", "numbers_used_share")
_LETTERS = _from("letter", "options_named")
_MARKS = _from("question_marks", "latex")
_LINES, _REPEATED = DRAFT_FEATURES.index("log_draft_lines"), DRAFT_FEATURES.index("repeated_line")
_HEDGES, _REFUSALS = DRAFT_FEATURES.index("hedges"), DRAFT_FEATURES.index("refusals")


def read_draft(draft: Draft, view: PromptView) -> tuple[Floats, Ints]:
    """Features of the draft, (len(DRAFT_FEATURES),), and its hashed n-grams; raises nothing for any text."""
    if _READER is None:
        return read_draft_in_python(draft, view)
    text = shorten(draft.text)
    ascii = text.isascii()
    asked = len(set(view.numbers)) if view.numbers else 0
    dense, ngrams, left = _READER.draft(encode(text), draft.logprobs, _ended(draft), ascii, len(view.text), asked)
    if draft.entropies:
        dense[_ENTROPIES] = _entropy_features(draft.entropies)
    if left & native.LINES:
        dense[_LINES], dense[_REPEATED] = _line_features(text)
    if left & native.ANSWER:
        dense[_ANSWER] = _answer_features(text, view)
    if left & native.HEDGED:
        dense[_HEDGES] = math.log1p(len(_HEDGE.findall(text)))
    if left & native.REFUSED:
        dense[_REFUSALS] = _REFUSAL.search(text) is not None
    if left & native.CHOICES or view.options:
        dense[_LETTERS] = _option_features(text, view)
    if not ascii:
        dense[_MARKS] = _mark_features(text)
    return dense, ngrams


def read_draft_in_python(draft: Draft, view: PromptView) -> tuple[Floats, Ints]:
    """What `read_draft` says, where nothing is compiled."""
    text = shorten(draft.text)
    raw = encode(text)
    tokens = tokenise(raw.lower())
    words = max(len(tokens), 1)
    kinds = set(tokens)
    # Regular expressions cost most here, so each is kept for texts that can have what it looks for.
    hedged = "assum" in text.lower() or not kinds.isdisjoint(_HEDGE_WORDS)
    refuses = not kinds.isdisjoint(_REFUSAL_WORDS) and _REFUSAL.search(text) is not None
    connectives = 0 if kinds.isdisjoint(_CONNECTIVES) else sum([token in _CONNECTIVES for token in tokens])
    log_lines, repeated_line = _line_features(text)
    ngrams = hash_tokens(tokens)
    pairs = ngrams[len(tokens) :]
    distinct_pairs = len(set(pairs.tolist())) if len(pairs) else 1
    dense = [
        1.0,
        *_logprob_features(draft.logprobs),
        *_entropy_features(draft.entropies),
        *_ended(draft),
        math.log1p(len(raw)),
        math.log1p(len(tokens)),
        log_lines,
        math.log1p(len(raw)) - math.log1p(len(view.text)),
        *_answer_features(text, view),
        len(kinds) / words,
        1.0 - distinct_pairs / max(len(pairs), 1),
        repeated_line,
        math.log1p(len(_HEDGE.findall(text)) if hedged else 0),
        float(refuses),
        math.log1p(connectives),
        *_option_features(text, view),
        *_mark_features(text),
    ]
    return np.array(dense), ngrams


def _ended(draft: Draft) -> tuple[bool, bool, bool]:
    """`finish_length` to `incomplete`."""
    return draft.finish_reason == "length", draft.finish_reason == "stop", not draft.complete


def _line_features(text: str) -> tuple[float, float]:
    """`log_draft_lines`, `repeated_line`."""
    lines = [line for line in text.split("\n") if line.strip()]
    return math.log1p(len(lines)), (len(lines) - len(set(lines))) / max(len(lines), 1)


def _mark_features(text: str) -> tuple[float, float]:
    """`question_marks`, `latex`."""
    return math.log1p(text.count("?")), math.log1p(text.count("\\"))


def _answer_features(text: str, view: PromptView) -> list[float]:
    """`empty` to `numbers_used_share`: what is given as the answer, the numbers on the way and whether sums hold."""
    stripped = text.strip()
    lower = text.lower()
    marks = list(_ANSWER_IS.finditer(text)) if "answer" in lower or "####" in text else []
    after = text[marks[-1].end() :] if marks else ""
    has_digits = any(digit in text for digit in "0123456789")
    all_numbers = [to_number(m.lstrip("-$£€")) for m in _NUMBER.findall(text)] if has_digits else []
    final_matches = (_NUMBER.findall(after)[:1] or _NUMBER.findall(stripped[-200:])[-1:]) if has_digits else []
    equations = read_equations(text)
    final = to_number(final_matches[0].lstrip("-$£€")) if final_matches else 0.0
    has_final = bool(final_matches)
    asked = set(view.numbers)
    said = set(all_numbers)
    return [
        float(not stripped),
        float("answer is" in lower),
        float("####" in text),
        float("boxed" in text),
        float(min(len(marks), 5)),
        float(stripped[-1:].isdigit() or stripped[-2:-1].isdigit()),
        float(stripped[-1:] in {".", ")", "!", "?", "}", "`", "。"}),
        float(has_final),
        math.log1p(final),
        float(has_final and final == int(final)),
        float(has_final and final_matches[0].startswith("-")),
        float(has_final and final in asked),
        float(has_final and final in equations.results),
        float(all_numbers[:-1].count(final)) if has_final and len(all_numbers) < 200 else 0.0,
        float(has_final and final % 10 == 0),
        math.log1p(equations.seen),
        math.log1p(equations.false),
        equations.false / max(equations.seen, 1),
        float(equations.last_false),
        math.log1p(len(all_numbers)),
        float(min(len(asked - said), 8)),
        math.log1p(len(said - asked)),
        len(asked & said) / max(len(asked), 1),
    ]


def entropy_of(top_logprobs: Sequence[float]) -> float:
    """Entropy in nats of one token from its top log-probabilities; what they leave over counts as one more outcome."""
    chances = [math.exp(min(logprob, 0.0)) for logprob in top_logprobs if math.isfinite(logprob)]
    rest = max(0.0, 1.0 - sum(chances))
    return -sum(chance * math.log(chance) for chance in (*chances, rest) if chance > 0.0)
