"""Before the gateway starts with help switched on: can these models do it? Said once, and not by each worker."""

import aiohttp

from server.errors import UpstreamFault
from server.help.probe import CannotHelp, Traits, look
from server.settings import Settings
from server.settings import Upstream as UpstreamSettings
from server.upstream import Upstream


async def check(settings: Settings) -> Traits | None:
    """Raises CannotHelp. None where one of the two cannot be reached yet: the workers go on asking."""
    assert settings.teacher is not None
    async with aiohttp.ClientSession() as http:
        try:
            student = await _known("student", settings.student, settings, http)
            teacher = await _known("teacher", settings.teacher, settings, http)
            return await look(student, teacher, settings.help)
        except UpstreamFault:
            return None


def words(traits: Traits | None, settings: Settings) -> str:
    """What to tell the operator."""
    if traits is None:
        return "the models cannot be asked yet; until they can, answers are written without help"
    if not traits.chat_continues:
        return "completions only: a chat template cannot go on with an answer that is begun"
    who = "the student asks" if settings.help.by == "student" else "the student is watched"
    seams = "token ids are handed over" if traits.one_tokenizer else "text is handed over"
    return f"{who}, the teacher writes {settings.help.tokens} tokens each time, {seams}"


async def _known(role: str, spec: UpstreamSettings, settings: Settings, http: aiohttp.ClientSession) -> Upstream:
    """With the name that it serves under. Raises UpstreamFault where it cannot be reached."""
    assert spec.url is not None
    upstream = Upstream(role, spec, spec.url, http, settings.timeouts)
    try:
        served = await upstream.models()
    except UpstreamFault as fault:
        if fault.status != 502:  # a server without a list of models still answers
            raise
        served = []
    if spec.name is None and served and upstream.name not in served:
        upstream.name = served[0]
    return upstream


__all__ = ["CannotHelp", "check", "words"]
