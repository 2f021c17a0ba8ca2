"""What the two models can do, asked once of their `/tokenize` (vLLM's, and the embedded engine's).

Upstreams without it are taken at their word: they are handed text, a chat as a message to be continued.
"""

from dataclasses import dataclass
from typing import Any

from server.settings import Help as HelpSettings
from server.upstream import Upstream

_TEXTS = ("The answer is 42.\n\n  Größe — 日本語, naïve façade 🙂 def f(x): return x**2", " a", "12 + 30 = ", "é")


class CannotHelp(Exception):
    """Help cannot work with these models; the message says what and what to do."""


@dataclass(frozen=True, slots=True)
class Traits:
    help_id: int | None = None
    """The token that the student asks with, where it does."""
    silenced_id: int | None = None
    """The token that it would ask with, where it is watched instead: one that was trained to ask would write it."""
    student_trims: bool = False
    """Its chat template takes white space from the end of a message that is to be continued."""
    teacher_trims: bool = False
    chat_continues: bool = True
    """Both can go on with a chat answer that is begun."""
    running_usage: tuple[bool, bool] = (False, False)
    """Whether student and teacher say in every chunk what was billed so far: vLLM and the embedded engine do."""
    one_tokenizer: bool = False
    """The same text is the same token ids to both, and both take ids: seams may be token-exact."""


async def look(student: Upstream, teacher: Upstream, settings: HelpSettings) -> Traits:
    """Raises CannotHelp, and UpstreamFault where one of them cannot be reached."""
    help_id, silenced_id = await _help_id(student, settings), await _silenced_id(student, settings)
    continues, trims, told = [], [], []
    for upstream in (student, teacher):
        whole, spaced = await _continued(upstream, "a"), await _continued(upstream, "a \n")
        continues.append(whole is not False)
        trims.append(isinstance(whole, list) and whole == spaced)
        told.append(whole is not None or upstream.settings.usage_in_every_chunk)
    same = settings.exact
    for text in _TEXTS:
        body = {"prompt": text, "add_special_tokens": False}
        ours, theirs = await student.tokenize(body), await teacher.tokenize(body)
        same = same and isinstance(ours, list) and ours == theirs
    return Traits(help_id, silenced_id, trims[0], trims[1], all(continues), (told[0], told[1]), same)


async def _help_id(student: Upstream, settings: HelpSettings) -> int | None:
    if settings.by != "student":
        return None
    if settings.token_id is not None:
        return settings.token_id
    ids = await student.tokenize({"prompt": settings.token, "add_special_tokens": False})
    if ids is None:
        raise CannotHelp(
            f"the student has no /tokenize to ask for the id of {settings.token}; set help.token_id, "
            "or help.by = policy for a student that was not trained to ask"
        )
    if ids is False or len(ids) != 1:
        raise CannotHelp(
            f"the student ({student.name}) has no token {settings.token}, so it cannot ask for help; serve one that "
            "`tw distill wheels` has trained, name its token with help.token, or set help.by = policy"
        )
    return ids[0]


async def _silenced_id(student: Upstream, settings: HelpSettings) -> int | None:
    if settings.by != "policy":
        return None
    if settings.token_id is not None:
        return settings.token_id
    ids = await student.tokenize({"prompt": settings.token, "add_special_tokens": False})
    other = await student.tokenize({"prompt": f"{settings.token}x", "add_special_tokens": False})
    # What no vocabulary holds is one and the same token to some tokenizers.
    return ids[0] if isinstance(ids, list) and len(ids) == 1 and ids != other else None


async def _continued(upstream: Upstream, text: str) -> Any:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    return await upstream.tokenize(
        {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    )
