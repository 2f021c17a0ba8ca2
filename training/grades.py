"""The grades of `tw collect --grade`: exact, numeric, a judge, or a function of one's own (`module:function`)."""

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import aiohttp

from training.asking import Asking, Endpoint, ask
from training.collecting import CannotCollect, Grade, Question

JUDGE_PROMPT = """You grade an answer. Judge only whether it is correct, complete and does what was asked.

Question:
{question}

{reference}Answer to grade:
{answer}

Reply with one whole number from 0 (useless or wrong) to 10 (perfect), and nothing else."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def named_grade(name: str, judge: Endpoint, how: Asking) -> Grade:
    """The grade of that name. Raises CannotCollect for one that is not there.

    A function of one's own takes (response, reference) and returns 0..1.
    """
    if name == "judge":
        return _judge(judge, how)
    if name in ("exact", "numeric"):
        module, function = "training.grading", name
    else:
        module, _, function = name.partition(":")
        if not module or not function:
            raise CannotCollect(f"--grade {name}: expected exact, numeric, judge or module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CannotCollect(f"--grade {name}: {error}") from None
    if not callable(found):
        raise CannotCollect(f"--grade {name}: {module}.{function} is not a function")
    return _by_function(name, found)


def _by_function(name: str, function: Callable[..., Any]) -> Grade:
    async def grade(_: aiohttp.ClientSession, question: Question, response: str) -> float:
        if question.reference is None:
            raise CannotCollect(f"prompt {question.id!r} has no reference, which --grade {name} compares with")
        found = function(response, question.reference)
        quality = float(await found if inspect.isawaitable(found) else found)
        if not 0.0 <= quality <= 1.0:
            raise CannotCollect(f"--grade {name} gave {quality} for {question.id!r}, expected 0..1")
        return quality

    return grade


def _judge(judge: Endpoint, how: Asking) -> Grade:
    async def grade(session: aiohttp.ClientSession, question: Question, response: str) -> float:
        text = "\n".join(str(message.get("content", "")) for message in question.messages)
        reference = f"Reference answer:\n{question.reference}\n\n" if question.reference else ""
        words = JUDGE_PROMPT.format(question=text, reference=reference, answer=response)
        reply = await ask(session, judge, [{"role": "user", "content": words}], how)
        if reply.text is None:
            raise ValueError(f"the judge did not answer: {reply.error}")
        found = _NUMBER.search(reply.text)
        if found is None or float(found[0]) > 10:
            raise ValueError(f"the judge gave no number from 0 to 10: {reply.text[:60]!r}")
        return float(found[0]) / 10

    return grade
