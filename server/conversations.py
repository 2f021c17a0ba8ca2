"""What a worker remembers of conversations: who answered last, and what each model holds of them in its prefix cache.

A model that has answered a turn has read that turn's prompt and written its answer, and the next turn's prompt begins
with both: as long as nothing has driven them out, that many tokens need no reading again. Of a draft that the client
never got only the prompt counts. It is a belief, from the upstreams' usage; where they say what their caches gave, the
decision record holds both (`router.record.CachedRecord`).
"""

from collections import OrderedDict
from collections.abc import Mapping

from policies.action import Step
from policies.observation import Prompt
from router.record import CachedRecord, DecisionRecord, Reason
from router.session import Role
from server.answers import Usage
from server.generation_request import GenerationRequest

_CONVERSATIONS = 10_000
_Known = tuple[str, int | None, int | None]
"""Route of the last answer; tokens that the student holds, and the teacher."""
_NOTHING: _Known = ("", None, None)


class Conversations:
    """The latest ones of one worker."""

    def __init__(self, *, one_teacher: bool, most: int = _CONVERSATIONS) -> None:
        """Of several teachers it is not known who will be asked, and so not what that one holds."""
        self._one_teacher = one_teacher
        self._most = most
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def told(self, conversation: str, request: GenerationRequest) -> Prompt:
        """The request's prompt with what is remembered; no more of it is cached than it can have tokens."""
        prompt = request.prompt
        known = self._known.get(conversation)
        if known is None:
            return prompt
        route, student, teacher = known
        most = request.most_prompt_tokens()
        return Prompt(
            prompt.text,
            prompt.last_user,
            prompt.turn,
            route,
            None if student is None else min(student, most),
            None if teacher is None else min(teacher, most),
        )

    def note(self, record: DecisionRecord, turn: int, usage: Mapping[Role, Usage]) -> None:
        """A request of this turn has ended; `usage` as the upstreams said it, as far as they did."""
        if not record.conversation or record.status != 200:
            return
        known = self._known
        if turn > 1:
            _, student, teacher = known.get(record.conversation, _NOTHING)
        else:  # whatever had this name before was another conversation; who was not asked holds nothing of this one
            student = None if record.route != "teacher" or _student_was_asked(record) else 0
            teacher = None if record.teacher_calls else 0
        said = usage.get("student")
        if said is not None and said.prompt_tokens:
            student = said.prompt_tokens + (said.completion_tokens if record.route != "teacher" else 0)
        said = usage.get("teacher")
        if said is not None and not said.estimated and record.route == "teacher":
            teacher = said.prompt_tokens + said.completion_tokens
        known[record.conversation] = (record.route, student, teacher if self._one_teacher else None)
        known.move_to_end(record.conversation)
        if len(known) > self._most:
            known.popitem(last=False)


def _student_was_asked(record: DecisionRecord) -> bool:
    """In vain: the teacher has answered."""
    drafted = bool(record.steps) and record.steps[-1].step == Step.DEFER
    return drafted or record.reason is Reason.STUDENT_FAILED


def cached_record(prompt: Prompt, usage: Mapping[Role, Usage]) -> CachedRecord | None:
    """What was believed and what came of it; None where nothing is known of either."""
    student, teacher = usage.get("student"), usage.get("teacher")
    student_hits = None if student is None else student.cached_tokens
    teacher_hits = None if teacher is None else teacher.cached_tokens
    student_believed, teacher_believed = prompt.student_cached_tokens, prompt.teacher_cached_tokens
    if student_hits is teacher_hits is student_believed is teacher_believed is None:
        return None
    return CachedRecord(student_believed, teacher_believed, student_hits, teacher_hits)
