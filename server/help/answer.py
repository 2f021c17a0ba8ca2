"""One answer that two models write: the student, and where it needs help the teacher, a few tokens at a time.

    student --asks, or is doubted--> admitted? --yes--> teacher writes k tokens --> student
                                        |no                 | nothing, the same again, or it fails
                                        +-------------------+--> student goes on, and does not ask for a while
    either one ends the answer; so do a stop string of the client and its limit of tokens

The student's call is one long one: it is only left where help is given. Whoever goes on is handed the text so far.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from router.record import SegmentRecord
from router.session import Role
from server.answers import Usage
from server.errors import UpstreamFault, UpstreamStatus, UpstreamUnreachable
from server.generation_request import BAN, GenerationRequest
from server.help.bodies import Ask, segment_body, top_logprobs
from server.help.line import Line
from server.help.seams import REPEATED_WITHIN, repeats
from server.help.shapes import Out
from server.help.turns import Calls, Help, Turn, Watching
from server.help.watch import Looked
from server.help.wire import NO_REASON, Piece, Segment, Source
from server.help.worker import HelpWorker

_LONGEST_BAN = 1024
_MOST_IN_VAIN = 3


class MixedAnswer:
    """`begin`, then `pieces` to their end, then `close`, which may also come in the middle of it."""

    def __init__(
        self,
        worker: HelpWorker,
        request: GenerationRequest,
        student: Source,
        teacher: Source,
        calls: Calls,
        *,
        watch: Watching | None = None,
        prompt: str | None = None,
        teacher_prompt_ids: Callable[[], Awaitable[tuple[int, ...] | None]] | None = None,
    ) -> None:
        """`watch`: looks at a student that does not ask by itself. `prompt`: the student's, restriction included.
        `teacher_prompt_ids`: how the teacher reads the prompt."""
        assert worker.traits is not None
        self._worker = worker
        self._settings = worker.settings
        self._traits = worker.traits
        self._request = request
        self._student = student
        self._teacher = teacher
        self._calls = calls
        self._watch = watch
        self._prompt = prompt
        self._teacher_prompt_ids = teacher_prompt_ids
        # Completions' log-probabilities are no chat's, which a client that asked for them must get.
        exact = worker.traits.one_tokenizer and not (request.endpoint == "chat" and request.wants_logprobs)
        self.line = Line(request, exact=exact)
        self._prompt_ids: dict[Role, tuple[int, ...]] = {}
        self._turn: Turn | None = None
        self._next: Turn | None = None
        """The teacher's turn, once help is admitted."""
        self._turns = 0
        self._helps = 0
        self._silent = 0
        """Tokens for which the student does not ask, or is not watched."""
        self._silence = self._settings.retry_tokens
        self._in_vain = 0
        """Times in a row that the student asked without a word before it, and was not helped."""
        self.head: dict[str, Any] = {}
        """Of the student's first chunk."""
        self.prompt_tokens = 0
        self.teacher_usage = Usage()
        """Billed for all helps."""
        self.teacher_usd = 0.0
        self.teacher_calls = 0
        self.segments: list[SegmentRecord] = []

    @property
    def usage(self) -> Usage:
        """As the client is told."""
        return Usage(self.prompt_tokens, self.line.used)

    @property
    def helped(self) -> bool:
        """The teacher has written some of it."""
        return any(segment.by == "teacher" and segment.tokens for segment in self.segments)

    async def begin(self) -> None:
        """Waits for the student's first good piece. Raises UpstreamFault."""
        turn = await self._open_student("begin")
        assert turn.segment is not None
        await turn.segment.begin()
        self.head = turn.segment.head

    async def pieces(self) -> AsyncIterator[Out]:
        """Raises UpstreamFault where the student breaks off: there is nobody to finish for it."""
        while self.line.finish is None:
            writing = self._student_writes() if self._next is None else self._teacher_writes(self._next)
            async for out in writing:
                yield out
        rest = self.line.rest()
        if rest is not None:
            yield rest

    def close(self, why: str = "left") -> None:
        """Lets go of both models. A help under way is settled at what it has written until now."""
        for turn in (self._turn, self._next):
            if turn is not None:
                self._end(turn, why)
        self._turn = self._next = None

    # The student

    async def _open_student(self, reason: str) -> Turn:
        line, help_id = self.line, self._traits.help_id
        turn = self._begin_turn(Turn("student", reason, time.monotonic(), line.used))
        limit = line.left
        bias = BAN if help_id is None else self._worker.offset
        if help_id is not None and (self._silent or not self._may_ask):
            bias = BAN
            if self._may_ask and (limit is None or self._silent < limit):
                limit = turn.banned = self._silent
        biased = self._worker.unanswered
        asked = top_logprobs(self._request)
        ask = Ask(
            self._student.name,
            limit,
            text=line.text,
            ids=self._ids("student"),
            stop_ids=() if help_id is None else (help_id,),
            biases=() if biased is None or not bias else ((biased, bias),),
            top_logprobs=asked if self._watch is None or not self._may_ask else max(asked or 0, self._looked_at),
            wants_ids=line.ids() is not None,
            running_usage=self._traits.running_usage[0],
            nth=self._turns,
        )
        await self._call(turn, self._student, ask, self._prompt)
        return turn

    async def _student_writes(self) -> AsyncIterator[Out]:
        turn = self._turn or await self._open_student("handed_back")
        assert turn.segment is not None
        last: Piece | None = None
        seen: list[Piece] = []
        async for piece in turn.segment.pieces():
            if last is not None:  # it has ended; only the bill is still to come
                continue
            asks = piece.finish is not None and self._asks(piece)
            seen.append(piece.without(self._traits.help_id, self._settings.token) if asks else piece)
            last = piece if piece.finish is not None else None
            if self._watches and last is None and _entries(seen) < self._settings.watched_tokens:
                continue
            if self._watches and not asks:
                seen = await self._doubted(seen)
            for each in seen:
                if (out := self._take(turn, each)) is not None:
                    yield out
            seen = []
            if self.line.finish is not None or self._next is not None:
                break
        await self._student_ended(turn, last)

    async def _student_ended(self, turn: Turn, last: Piece | None) -> None:
        line = self.line
        assert turn.segment is not None
        self._prompt_ids.setdefault("student", turn.segment.prompt_ids or ())
        if not self.prompt_tokens and turn.segment.usage is not None:
            self.prompt_tokens = max(turn.segment.usage.prompt_tokens - turn.used_before, 0)
        if self._next is not None or line.finish is not None:
            self._end(turn, "stop" if self._next is None else "help")
            return
        assert last is not None, "a segment ends with a piece that says so"
        asks = self._asks(last)
        self._reckon(turn, int(asks))
        if asks:
            self._end(turn, "help")
            if not await self._admitted("asked"):
                self._fall_silent()
                self._in_vain = self._in_vain + 1 if self._tokens(turn) == 0 else 0
                if self._in_vain > _MOST_IN_VAIN:  # it asks although it cannot: nothing more will come
                    line.end("stop")
        elif last.finish == "length" and turn.banned and not line.is_full:
            self._silent = 0
            self._end(turn, "length")
        else:
            line.end("stop" if last.finish in (None, NO_REASON) else last.finish, last.stop_reason)
            self._end(turn, "length" if line.finish == "length" else "stop")

    def _asks(self, piece: Piece) -> bool:
        return self._traits.help_id is not None and piece.stop_reason == self._traits.help_id

    async def _doubted(self, seen: list[Piece]) -> list[Piece]:
        """Looks at what was just written. Where help is admitted, what stays of it: up to the least sure token."""
        assert self._watch is not None
        largest = [entry.largest(self._worker.hidden) for piece in seen for entry in piece.entries]
        if not largest:
            return seen
        at = None
        # However many tokens an engine sends at once, they are looked at as if they had come one after the other.
        for start in range(0, len(largest), self._settings.watched_tokens):
            window = largest[start : start + self._settings.watched_tokens]
            looked = await self._watch.look(self.line.text, tuple(window))
            if looked.wants_help:
                at = start + window.index(min(window))
                if not await self._admitted("doubted", looked, meanwhile=at):
                    self._fall_silent()
                    return seen
                break
        if at is None:
            return seen
        kept: list[Piece] = []
        for piece in seen:
            if at < len(piece.entries):
                kept.append(piece.before(at))
                break
            at -= len(piece.entries)
            kept.append(replace(piece, finish=None, stop_reason=None))
        return kept

    @property
    def _may_ask(self) -> bool:
        return self._helps < self._settings.max_segments

    @property
    def _watches(self) -> bool:
        return self._watch is not None and self._may_ask and not self._silent and not self.line.is_full

    @property
    def _looked_at(self) -> int:
        """How many alternatives show the likeliest of the tokens that may be chosen."""
        return 1 if self._worker.hidden is None else 2

    def _fall_silent(self) -> None:
        """The student does not ask, or is not watched, for a while: each time longer, until a help has been of use."""
        self._silent = self._silence
        self._silence = min(2 * self._silence, _LONGEST_BAN)

    # The teacher

    async def _admitted(self, why: str, looked: Looked | None = None, meanwhile: int = 0) -> bool:
        """Asks for a help where there is room for a token of it; makes it the next turn. `meanwhile`: tokens that the
        student has written and that still go out before it."""
        left = None if self.line.left is None else self.line.left - meanwhile
        tokens = self._settings.tokens if left is None else min(self._settings.tokens, left)
        if tokens <= 0 or not self._may_ask:
            return False
        turn = Turn("teacher", why, time.monotonic(), self.line.used, looked=looked)
        turn.help = await self._calls.admit(len(self.line.text.encode("utf-8", "surrogatepass")), tokens)
        if turn.help is None:
            self._record(turn, "refused")
            return False
        self._helps += 1
        self._next = turn
        return True

    async def _teacher_writes(self, turn: Turn) -> AsyncIterator[Out]:
        turn.used_before = self.line.used  # the student's last words may have gone out since it was admitted
        self._begin_turn(turn)
        self._next = None
        held: list[Piece] = []
        ended = "failed"
        try:
            await self._open_teacher(turn)
            assert turn.segment is not None
            async for piece in turn.segment.pieces():
                held.append(piece)
                if self._guards(turn, held):
                    continue
                if turn.used_before == self.line.used and self._repeats(held):
                    ended, held = "repeated", []
                    break
                within = self._within(turn, held)
                too_long, held = len(within) < len(held), []
                for each in within:
                    if (out := self._take(turn, each)) is not None:
                        yield out
                if self.line.finish is not None or too_long:
                    ended = "length" if too_long else "stop"
                    break
                ended = piece.finish or ended
            self._worker.teacher_answered()
        except UpstreamFault as fault:
            self._teacher_failed(turn, fault)
            for each in self._within(turn, [] if self._repeats(held) else held):
                if (out := self._take(turn, each)) is not None:
                    yield out
        self._teacher_ended(turn, ended)

    async def _open_teacher(self, turn: Turn) -> None:
        assert turn.help is not None
        line = self.line
        if line.ids() is not None and "teacher" not in self._prompt_ids and self._teacher_prompt_ids is not None:
            self._prompt_ids["teacher"] = await self._teacher_prompt_ids() or ()
        ask = Ask(
            self._teacher.name,
            turn.help.tokens,
            text=line.text,
            ids=self._ids("teacher"),
            same_vocabulary=self._traits.one_tokenizer,
            top_logprobs=top_logprobs(self._request),
            wants_ids=line.ids() is not None,
            running_usage=self._traits.running_usage[1],
            nth=self._turns,
        )
        await self._call(turn, self._teacher, ask)

    def _guards(self, turn: Turn, held: list[Piece]) -> bool:
        """Too little is there yet to tell whether the teacher goes on or begins again."""
        return (
            turn.used_before == self.line.used
            and held[-1].finish is None
            and sum(len(piece.text) for piece in held) < REPEATED_WITHIN
        )

    def _repeats(self, held: list[Piece]) -> bool:
        return repeats(self.line.with_given, "".join(piece.text for piece in held))

    def _within(self, turn: Turn, pieces: list[Piece]) -> list[Piece]:
        """Those that are within what was admitted, whatever an upstream thinks of limits."""
        assert turn.help is not None
        left = turn.help.tokens - (self.line.used - turn.used_before)
        kept = []
        for piece in pieces:
            left -= piece.tokens
            if left < 0:
                break
            kept.append(piece)
        return kept

    def _teacher_failed(self, turn: Turn, fault: UpstreamFault) -> None:
        self._worker.teacher_failed()
        if turn.segment is None and turn.help is not None and isinstance(fault, UpstreamUnreachable | UpstreamStatus):
            turn.help.release()  # it has billed nothing

    def _teacher_ended(self, turn: Turn, ended: str) -> None:
        line = self.line
        if ended not in ("repeated", "failed"):
            self._reckon(turn, 0)
            if line.used == turn.used_before or (ended == "stop" and not line.text):
                ended = "empty"  # not even its stop token, or that before anybody has written a word
            elif ended != "stop":  # without a reason, or with one that says nothing of the answer
                ended = "length"
        if ended == "stop" and line.finish is None:
            line.end("stop")  # the teacher's end is the answer's
        elif line.finish is None and line.is_full:
            line.end("length")
        if ended in ("empty", "repeated", "failed"):
            self._fall_silent()
        else:
            self._silence = self._settings.retry_tokens
        self._end(turn, ended)

    # Turns

    def _begin_turn(self, turn: Turn) -> Turn:
        self._turn, turn.begun = turn, True
        return turn

    async def _call(self, turn: Turn, to: Source, ask: Ask, prompt: str | None = None) -> None:
        if self._turns:
            trims = self._traits.student_trims if turn.by == "student" else self._traits.teacher_trims
            by_text_of_chat = ask.ids is None and self._request.endpoint == "chat"
            self.line.seam(trims=trims and by_text_of_chat, cut=True)
        self._turns += 1
        path, body = segment_body(self._request, ask, prompt)
        turn.segment = Segment(await to.stream(path, body), chat=path.startswith("/chat"))

    def _ids(self, role: Role) -> tuple[int, ...] | None:
        """Prompt and answer so far as `role` reads them; None: hand over text."""
        prompt, answer = self._prompt_ids.get(role), self.line.ids()
        return None if not prompt or answer is None else prompt + answer

    def _take(self, turn: Turn, piece: Piece) -> Out | None:
        if self.line.finish is not None:
            return None
        if turn.by == "student":
            self._worker.promise.student_wrote(piece.tokens)
            self._silent = max(self._silent - piece.tokens, 0) if self._watch is not None else self._silent
        return self.line.take(piece)

    def _reckon(self, turn: Turn, asked: int) -> None:
        """Tokens that came without text or log-probabilities to count them by: the bill knows of them."""
        segment = turn.segment
        if segment is None or segment.usage is None or self.line.finish is not None:
            return
        uncounted = max(segment.usage.completion_tokens - asked - (self.line.used - turn.used_before), 0)
        if turn.help is not None:
            uncounted = min(uncounted, turn.help.tokens - (self.line.used - turn.used_before))
        self.line.used += uncounted
        if turn.by == "student":
            self._worker.promise.student_wrote(uncounted)

    def _end(self, turn: Turn, ended: str) -> None:
        """Closes it, settles it, writes it down."""
        if turn is self._turn:
            self._turn = None
        if turn.segment is not None:
            turn.segment.close()
        if turn.help is not None:
            self._settle(turn, turn.help)
        self._record(turn, ended)

    def _settle(self, turn: Turn, admitted: Help) -> None:
        if not turn.begun:
            admitted.release()  # nobody was asked
        else:
            admitted.settle(None if turn.segment is None else turn.segment.usage, self._tokens(turn))
        if admitted.counts:
            self.teacher_calls += 1
            self.teacher_usd += admitted.usd
            before, more = self.teacher_usage, admitted.usage
            self.teacher_usage = Usage(
                before.prompt_tokens + more.prompt_tokens, before.completion_tokens + more.completion_tokens
            )

    def _tokens(self, turn: Turn) -> int:
        return self.line.used - turn.used_before if turn.begun else 0

    def _record(self, turn: Turn, ended: str) -> None:
        billed = Usage() if turn.help is None else turn.help.usage
        self.segments.append(
            SegmentRecord(
                turn.by,
                self._tokens(turn),
                turn.reason,
                ended,
                billed_tokens=billed.prompt_tokens + billed.completion_tokens,
                usd=0.0 if turn.help is None else turn.help.usd,
                latency_ms=round((time.monotonic() - turn.since) * 1000, 3),
                score=None if turn.looked is None else turn.looked.score,
                propensity=None if turn.looked is None else turn.looked.propensity,
            )
        )


def _entries(pieces: list[Piece]) -> int:
    """Tokens that can be looked at; a piece without log-probabilities is not waited over."""
    return sum(len(piece.entries) or 1024 for piece in pieces)
