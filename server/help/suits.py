"""Which requests can be helped, and why the others cannot: a closed set, for the record and a metric."""

from enum import StrEnum

from server.generation_request import GenerationRequest


class HelpOff(StrEnum):
    """Why an answer was not open to help."""

    CHOICES = "choices"  # several choices: each would have seams of its own
    TOOLS = "tools"  # a tool call is not text that another model can go on with
    JSON = "json"  # a grammar cannot be taken up in the middle
    PROMPT = "prompt"  # token ids, several prompts, or parts that are not text at the end
    PARAMETER = "parameter"  # echo, suffix, min_tokens, beam search, ...: fields that speak of one model's own output
    NO_TOKENS = "no_tokens"  # max_tokens leaves none to write
    UNKNOWN = "unknown"  # the models have not yet told what they can do
    TEACHER = "teacher"  # the teacher cannot go on with a chat answer
    TEACHER_FAILS = "teacher_fails"  # it has failed again and again just now


_TOOLS = ("tools", "functions")
_JSON = (
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structural_tag",
)
_OWN = (
    "echo",
    "suffix",
    "min_tokens",
    "use_beam_search",
    "prompt_logprobs",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "audio",
    "modalities",
    "prediction",
    "prompt_embeds",
)


def why_not(request: GenerationRequest) -> HelpOff | None:
    """What in the request itself keeps it from being helped; None: nothing."""
    body = request.body
    if request.choices() > 1:
        return HelpOff.CHOICES
    if any(body.get(name) for name in _TOOLS):
        return HelpOff.TOOLS
    for name in _JSON:
        value = body.get(name)
        if value and not (isinstance(value, dict) and value.get("type") == "text"):
            return HelpOff.JSON
    if any(body.get(name) for name in _OWN) or not _stops_are_texts(body.get("stop")):
        return HelpOff.PARAMETER
    if request.completion_limit() == 0:
        return HelpOff.NO_TOKENS
    if request.endpoint == "completions":
        return None if isinstance(body.get("prompt"), str) else HelpOff.PROMPT
    last = body["messages"][-1]
    if last["role"] == "assistant" and body.get("continue_final_message"):
        return None if isinstance(last.get("content"), str) else HelpOff.PROMPT
    return None


def stops(request: GenerationRequest) -> tuple[str, ...]:
    """The client's stop strings."""
    value = request.body.get("stop")
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _stops_are_texts(value: object) -> bool:
    items = [] if value is None else [value] if isinstance(value, str) else value
    return isinstance(items, list) and all(isinstance(item, str) and item for item in items)
