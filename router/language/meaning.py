"""Clauses to a budget: which statement each clause makes, and whether the statements agree."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from router.budget import Budget, Limit, Rule, When, WhenExhausted
from router.language.checks import check
from router.language.clauses import Ambiguous, Clause, sentences
from router.language.limits import Led, Said, Setting, only, read_limit, refuse_strangers
from router.language.pieces import (
    Amount,
    Bound,
    Condition,
    Days,
    Duration,
    Each,
    Flag,
    Hours,
    Model,
    Outcome,
    Per,
    Piece,
    Quantile,
    WeekStart,
    Word,
    Zone,
)

LONGEST_QUEUE_S = 3600
MOST_TOKENS = 10**9


_IDLE: frozenset[Flag] = frozenset({"verb", "answer", "to", "calls", "requests", "tokens", "share"})
_FATE_FLAGS: frozenset[Flag] = (_IDLE - {"tokens"}) | {"exhausted", "always", "never"}


@dataclass(slots=True)
class _Said:
    """What has been said so far."""

    limits: list[Said] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    fate: tuple[WhenExhausted, float] | None = None
    explore: float | None = None
    unlimited: Clause | None = None
    free: bool = False
    """Something was said, if only that the teacher may always be used."""
    model: str = "teacher"
    """What "it" means."""


def budget(pieces: Iterable[Piece], setting: Setting) -> Budget:
    """The budget that the pieces say. Raises Unreadable."""
    try:
        text = sentences(pieces, len(setting.normal.text), forward=setting.language == "ja")
    except Ambiguous as ambiguous:
        raise setting.error("which_limit", ambiguous.clause) from None
    setting = _settings(text, setting)
    said = _Said()
    for sentence in text:
        _sentence([clause for clause in sentence if not _sets(clause, sentence)], said, setting)
    if said.unlimited and said.limits:
        raise setting.error("unlimited_and_limit", said.unlimited)
    if not (said.limits or said.rules or said.fate or said.explore is not None or said.unlimited or said.free):
        raise setting.error("alone" if text else "unknown", (0, len(setting.normal.text)))
    way, queue_s = said.fate or ("student", Budget().queue_s)
    return Budget(check(said.limits, setting), tuple(said.rules), way, queue_s, said.explore)


def _sets(clause: Clause, sentence: list[Clause]) -> bool:
    """True for a clause that sets the time zone or the first day of the week for the whole text."""
    if not clause.has(Zone, WeekStart):
        return False
    rest = [piece for piece in clause.pieces if not isinstance(piece, (Zone, WeekStart))]
    named = any(isinstance(piece, Word) and piece.flag == "zone_noun" for piece in rest)
    idle = all(isinstance(piece, Word) and piece.flag in ("zone_noun", "to") for piece in rest)
    return idle and (named or len(sentence) == 1 or all(_bare_setting(other) for other in sentence))


def _bare_setting(clause: Clause) -> bool:
    return all(
        isinstance(p, (Zone, WeekStart)) or (isinstance(p, Word) and p.flag in ("zone_noun", "to"))
        for p in clause.pieces
    )


def _settings(text: list[list[Clause]], setting: Setting) -> Setting:
    zone: Zone | None = None
    start: WeekStart | None = None
    for sentence in text:
        for clause in sentence:
            if not _sets(clause, sentence):
                continue
            for piece in clause.pieces:
                if isinstance(piece, Zone):
                    if zone and zone.name != piece.name:
                        raise setting.error("two_times", piece)
                    zone = piece
                elif isinstance(piece, WeekStart):
                    if start and start.day != piece.day:
                        raise setting.error("two_times", piece)
                    start = piece
    return replace(
        setting,
        timezone=zone.name if zone else setting.timezone,
        week_start=start.day if start else setting.week_start,
    )


def _sentence(clauses: list[Clause], said: _Said, setting: Setting) -> None:
    led = Led()
    zones = [piece for clause in clauses for piece in clause.pieces if isinstance(piece, Zone)]
    if len({zone.name for zone in zones}) == 1:
        led = replace(led, zone=zones[0])
    limits_before = len(said.limits)
    for clause in clauses:
        flags = clause.flags
        for piece in clause.pieces:
            if isinstance(piece, Model) and piece.name:
                said.model = piece.name
        if "exhausted" in flags or clause.has(Outcome):
            _fate(clause, said, setting)
        elif "random" in flags:
            _explore(clause, said, setting)
        elif clause.has(Condition):
            _rule(clause, said, setting)
        elif "no_limit" in flags:
            _no_limit(clause, said, setting)
        elif clause.has(Amount, Quantile, Duration):
            led = _leading(clause, led, setting)
            first = len(said.limits) == limits_before
            before = said.limits[-1].limit if said.limits and (not first or "otherwise" in flags) else None
            limit = read_limit(clause, before, led, setting)
            said.limits.append(Said(limit, clause.at))
        else:
            _always_or_never(clause, led, said, setting)
    if zones and not any(_uses_zone(entry.limit) for entry in said.limits[limits_before:]):
        raise setting.error("zone_alone", zones[0])


def _uses_zone(limit: Limit) -> bool:
    return limit.during is not None or (limit.per is not None and not limit.per.rolls and limit.per.unit != "request")


def _leading(clause: Clause, led: Led, setting: Setting) -> Led:
    """What this clause says before its bound or amount also holds for the limits that follow in the sentence."""
    leading: list[Piece] = []
    for place, piece in enumerate(clause.pieces):
        if place >= clause.led_by and (
            setting.language == "ja" or isinstance(piece, (Amount, Bound, Quantile, Duration))
        ):
            break
        leading.append(piece)
    for piece in leading:
        if isinstance(piece, Per):
            led = replace(led, per=piece)
        elif isinstance(piece, Each):
            led = replace(led, each=piece)
    if any(isinstance(piece, (Days, Hours)) for piece in leading):
        part = Clause(tuple(leading), None, clause.at)
        days, hours = only(part, Days, "two_times", setting), only(part, Hours, "two_times", setting)
        led = replace(led, days=days, hours=hours, outside="outside" in part.flags)
    return led


def _fate(clause: Clause, said: _Said, setting: Setting) -> None:
    flags = clause.flags
    refuse_strangers(clause, (Outcome, Model, Duration, Bound), _FATE_FLAGS, setting)
    if any(isinstance(piece, Bound) and piece.way not in ("under", "within") for piece in clause.pieces):
        raise setting.error("queue", clause)
    if clause.join == "or":
        raise setting.error("or", clause)
    outcome = only(clause, Outcome, "two_conditions", setting)
    duration = only(clause, Duration, "two_amounts", setting)
    models = {piece.name for piece in clause.pieces if isinstance(piece, Model)} - {None}
    way: WhenExhausted
    if outcome:
        way = outcome.way
        if "never" in flags:
            raise setting.error("exhausted", clause)
    elif (models == {"student"} and "never" not in flags) or (models == {"teacher"} and "never" in flags):
        way = "student"
    elif models:
        raise setting.error("exhausted_teacher", clause)
    else:
        raise setting.error("exhausted", clause)
    queue_s = Budget().queue_s
    if duration:
        if way != "queue":
            raise setting.error("unclear", clause)
        queue_s = float(duration.seconds)
        if not 0 < queue_s <= LONGEST_QUEUE_S:
            raise setting.error("queue", duration)
    if said.fate and said.fate != (way, queue_s):
        raise setting.error("two_conditions", clause)
    said.fate = (way, queue_s)


def _explore(clause: Clause, said: _Said, setting: Setting) -> None:
    amount = only(clause, Amount, "two_amounts", setting)
    if amount is None or amount.measure != "share":
        raise setting.error("explore", clause)
    refuse_strangers(clause, (Amount, Model, Bound), _IDLE | {"random", "total"}, setting)
    if any(isinstance(piece, Bound) and piece.way in ("over", "floor") for piece in clause.pieces):
        raise setting.error("floor", clause)
    if amount.value < 0:
        raise setting.error("negative", amount)
    if amount.value > 1:
        raise setting.error("share_high", amount)
    if said.explore is not None and said.explore != float(amount.value):
        raise setting.error("explore", clause)
    said.explore = float(amount.value)


def _rule(clause: Clause, said: _Said, setting: Setting) -> None:
    flags = clause.flags
    amount = next((piece for piece in clause.pieces if isinstance(piece, (Amount, Bound, Quantile, Duration))), None)
    if amount:
        raise setting.error("rule_limit", clause)
    if clause.has(Per, Each, Days, Hours) or "otherwise" in flags:
        raise setting.error("rule_time", clause)
    if "only" in flags:
        raise setting.error("only", clause)
    refuse_strangers(clause, (Condition, Model), _IDLE | {"always", "never", "total"}, setting)
    if {"always", "never"} <= flags:
        raise setting.error("unclear", clause)
    models = [piece.name or said.model for piece in clause.pieces if isinstance(piece, Model)]
    if not models and said.rules and clause.join is not None and flags & {"always", "never"}:
        models = [said.model]
    if len(set(models)) != 1:
        raise setting.error("rule_route", clause)
    teacher = (models[0] == "teacher") != ("never" in flags)
    for piece in clause.pieces:
        if not isinstance(piece, Condition):
            continue
        length = _length(piece.when)
        if length is not None and not 0 <= length <= MOST_TOKENS:
            raise setting.error("length", piece)
        said.rules.append(Rule("teacher" if teacher else "student", piece.when))


def _length(when: When) -> int | None:
    return when.shorter_than_tokens if when.longer_than_tokens is None else when.longer_than_tokens


def _no_limit(clause: Clause, said: _Said, setting: Setting) -> None:
    if clause.has(Amount, Bound, Per, Each, Days, Hours, Duration, Quantile) or clause.flags & {"never", "otherwise"}:
        raise setting.error("unlimited_part", clause)
    refuse_strangers(clause, (Model,), _IDLE | {"no_limit", "always", "total"}, setting)
    if any(isinstance(piece, Model) and piece.name == "student" for piece in clause.pieces):
        raise setting.error("student_limit", clause)
    said.unlimited = clause


def _always_or_never(clause: Clause, led: Led, said: _Said, setting: Setting) -> None:
    """ "Never use the teacher" is a cap of no calls; "always use the teacher" limits nothing."""
    flags = clause.flags
    models = {piece.name or said.model for piece in clause.pieces if isinstance(piece, Model)}
    if not models and setting.language == "ja" and "never" in flags:
        models = {said.model}  # 「週末は使わない」 leaves out what is clear
    strong = flags & {"always", "never", "only"}
    if len(models) != 1 or len(strong) != 1 or clause.has(Bound):
        raise setting.error(_missing(clause), clause)
    refuse_strangers(
        clause, (Model, Each, Days, Hours, Zone), _IDLE | strong | {"outside", "otherwise", "total"}, setting
    )
    teacher = (models == {"teacher"}) != ("never" in flags)
    timed = clause.has(Days, Hours)
    if teacher and not ("only" in flags and timed):
        if clause.has(Each, Days, Hours):
            raise setting.error("unlimited_part", clause)
        if "outside" in flags or ("otherwise" in flags and not (said.limits and said.limits[-1].limit.during)):
            raise setting.error("otherwise", clause)
        said.free = True
        return
    zero = Amount(clause.pieces[-1].end, clause.pieces[-1].end, "calls", Fraction(0))
    kept = tuple(
        piece
        for piece in clause.pieces
        if not isinstance(piece, Model) and not (isinstance(piece, Word) and piece.flag in _IDLE | strong)
    )
    if teacher:
        kept += (Word(zero.start, zero.end, "outside"),)
    before = said.limits[-1].limit if said.limits and "otherwise" in flags else None
    limit = read_limit(Clause((*kept, zero), None, clause.at), before, led, setting)
    said.limits.append(Said(limit, clause.at))


def _missing(clause: Clause) -> str:
    """Which error fits a clause of known words that says nothing."""
    if clause.has(Bound):
        return "no_amount"
    if clause.has(Per, Each, Days, Hours, Zone) and not clause.has(Model):
        return "alone"
    return "unclear"
