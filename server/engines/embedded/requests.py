"""From the body of a request to a job. Every mistake in it is a `RequestError` that names the field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.engines.embedded.jobs import Job, Sampling
from server.engines.embedded.tokens import TemplateError, Tokens

_MOST_LOGPROBS = 20
_MOST_CHOICES = 128
_MOST_STOPS = 16
# What would change the answer in a way this engine cannot: better refused than ignored.
_UNSUPPORTED = ("tools", "functions", "guided_json", "structured_outputs", "echo", "suffix", "prompt_logprobs", "audio")


class RequestError(Exception):
    """The request's fault; shaped like OpenAI's errors."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Model:
    """What a request is read against."""

    names: tuple[str, ...]
    tokens: Tokens
    vocab_size: int
    context: int
    defaults: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Request:
    job: Job
    chat: bool
    model: str
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    wants_logprobs: bool
    top_logprobs: int
    prompt_tokens: int
    """Each prompt counted once, however many choices were asked of it."""
    prompts: tuple[tuple[int, ...], ...]


def read_request(body: Any, model: Model, *, chat: bool) -> Request:
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    name = body.get("model", model.names[0])
    if name not in model.names:
        raise RequestError(f"The model `{name}` does not exist.", "model", "model_not_found", 404)
    _refuse_unsupported(body)
    fields = _Fields(body)
    stream = fields.flag("stream")
    options = fields.mapping("stream_options")
    if options and not stream:
        raise RequestError("stream_options needs stream: true", "stream_options")
    choices = fields.integer("n", 1, 1, _MOST_CHOICES)
    prompts = _chat_prompt(fields, model) if chat else _prompts(fields, model)
    if choices * len(prompts) > _MOST_CHOICES:
        raise RequestError(f"at most {_MOST_CHOICES} choices in one request", "n" if choices > 1 else "prompt")
    longest = max(map(len, prompts))
    if longest >= model.context:
        raise RequestError(
            f"This model's maximum context length is {model.context} tokens. However, your messages resulted in "
            f"{longest} tokens, which leaves no room for an answer.",
            "messages" if chat else "prompt",
            "context_length_exceeded",
        )
    wants_logprobs, top = _logprobs(fields, chat=chat)
    include_usage = bool(options.get("include_usage"))
    return Request(
        job=Job(
            prompts=tuple(prompt for prompt in prompts for _ in range(choices)),
            sampling=_sampling(fields, model, top if wants_logprobs else None, model.context - longest, chat=chat),
            stream=stream,
        ),
        chat=chat,
        model=name,
        include_usage=include_usage,
        continuous_usage=include_usage and bool(options.get("continuous_usage_stats")),
        return_token_ids=fields.flag("return_token_ids"),
        wants_logprobs=wants_logprobs,
        top_logprobs=top,
        prompt_tokens=sum(map(len, prompts)),
        prompts=tuple(prompts),
    )


def read_tokenize(body: Any, model: Model) -> list[int]:
    """`/tokenize`: a prompt or messages, as vLLM reads it."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    fields = _Fields(body)
    if "messages" in body:
        return list(_chat_prompt(fields, model)[0])
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise RequestError("prompt must be a string", "prompt")
    return model.tokens.encode(prompt, fields.flag("add_special_tokens", True))


class _Fields:
    """The fields of a body, read with their type and range. null counts as absent, as OpenAI has it."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body

    def get(self, name: str) -> Any:
        return self._body.get(name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise RequestError(f"{name} must be true or false", name)
        return value

    def integer(self, name: str, default: int, low: int, high: float) -> int:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"{name} must be a whole number", name)
        if not low <= value <= high:
            raise RequestError(f"{name} must be {_range(low, high)}, not {value}", name)
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RequestError(f"{name} must be a number", name)
        if not low <= value <= high:
            raise RequestError(f"{name} must be {_range(low, high)}, not {value}", name)
        return float(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise RequestError(f"{name} must be an object", name)
        return value

    def token_ids(self, name: str, vocab_size: int) -> list[int]:
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise RequestError(f"{name} must be a list of token ids", name)
        return [_token_id(item, name, vocab_size) for item in value]


def _sampling(fields: _Fields, model: Model, logprobs: int | None, room: int, *, chat: bool) -> Sampling:
    defaults = model.defaults
    most = fields.integer("max_completion_tokens", 0, 1, math.inf) if chat else 0
    unsaid = min(room, int(defaults.get("max_new_tokens", room))) if chat else 16
    most = most or fields.integer("max_tokens", unsaid, 1, math.inf)
    minimum = fields.integer("min_tokens", 0, 0, math.inf)
    if minimum > most:
        raise RequestError(f"min_tokens ({minimum}) must not be above max_tokens ({most})", "min_tokens")
    seed = fields.integer("seed", -1, -(2**63), 2**63 - 1)
    return Sampling(
        max_tokens=most,
        min_tokens=minimum,
        temperature=fields.number("temperature", defaults.get("temperature", 1.0), 0, 2),
        top_p=fields.number("top_p", defaults.get("top_p", 1.0), 1e-9, 1),
        # -1 is vLLM's older way to say "all".
        top_k=max(0, fields.integer("top_k", int(defaults.get("top_k", 0)), -1, math.inf)),
        min_p=fields.number("min_p", defaults.get("min_p", 0.0), 0, 1),
        seed=None if fields.get("seed") is None else seed % 2**63,
        presence_penalty=fields.number("presence_penalty", 0, -2, 2),
        frequency_penalty=fields.number("frequency_penalty", 0, -2, 2),
        repetition_penalty=fields.number("repetition_penalty", defaults.get("repetition_penalty", 1.0), 1e-3, 100),
        logit_bias=_logit_bias(fields, model.vocab_size),
        stop=_stops(fields),
        stop_token_ids=frozenset(fields.token_ids("stop_token_ids", model.vocab_size)),
        ignore_eos=fields.flag("ignore_eos"),
        include_stop=fields.flag("include_stop_str_in_output"),
        skip_special_tokens=fields.flag("skip_special_tokens", True),
        logprobs=logprobs,
    )


def _refuse_unsupported(body: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if body.get(name):
            raise RequestError(f"the embedded engine does not support {name}", name, "unsupported_parameter")
    wanted = body.get("response_format")
    if wanted and (not isinstance(wanted, dict) or wanted.get("type") != "text"):
        raise RequestError("the embedded engine only writes text", "response_format", "unsupported_parameter")
    if body.get("best_of") not in (None, body.get("n", 1)):
        raise RequestError("best_of must equal n", "best_of", "unsupported_parameter")


def _chat_prompt(fields: _Fields, model: Model) -> tuple[tuple[int, ...], ...]:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list with at least one message", "messages")
    plain = [_message(message, i) for i, message in enumerate(messages)]
    go_on = fields.flag("continue_final_message")
    begin = fields.flag("add_generation_prompt", True)
    if go_on and begin and fields.get("add_generation_prompt") is not None:
        raise RequestError(
            "continue_final_message and add_generation_prompt cannot both be true", "continue_final_message"
        )
    if go_on and plain[-1]["role"] != "assistant":
        raise RequestError("continue_final_message needs a last message of the assistant", "continue_final_message")
    extra = fields.mapping("chat_template_kwargs")
    reserved = {"messages", "conversation", "tokenize", "chat_template", "add_generation_prompt", "return_tensors"}
    if reserved & set(extra):
        raise RequestError("chat_template_kwargs must not replace the engine's own", "chat_template_kwargs")
    try:
        ids = model.tokens.encode_chat(
            plain, add_generation_prompt=begin and not go_on, continue_final_message=go_on, extra=extra
        )
    except TemplateError as error:
        raise RequestError(str(error), "messages") from error
    return (_not_empty(ids, "messages"),)


def _message(message: Any, i: int) -> dict[str, Any]:
    where = f"messages[{i}]"
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestError(f"{where} must be an object with a role", "messages")
    content = message.get("content")
    if isinstance(content, list):
        parts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RequestError(f"{where} has content that is not text; this model reads text only", "messages")
            parts.append(part["text"])
        content = "".join(parts)
    if content is None and message["role"] == "assistant":
        content = ""
    if not isinstance(content, str):
        raise RequestError(f"{where}.content must be a string or a list of text parts", "messages")
    return {**message, "content": content}


def _prompts(fields: _Fields, model: Model) -> tuple[tuple[int, ...], ...]:
    """A text, texts, token ids, or lists of token ids."""
    prompt = fields.get("prompt")
    special = fields.flag("add_special_tokens", True)
    if isinstance(prompt, str):
        return (_not_empty(model.tokens.encode(prompt, special), "prompt"),)
    if isinstance(prompt, list) and prompt:
        if all(isinstance(item, str) for item in prompt):
            return tuple(_not_empty(model.tokens.encode(item, special), "prompt") for item in prompt)
        if all(isinstance(item, list) for item in prompt):
            return tuple(_ids(item, model.vocab_size) for item in prompt)
        return (_ids(prompt, model.vocab_size),)
    raise RequestError("prompt must be a text, a list of texts, token ids, or a list of lists of token ids", "prompt")


def _ids(items: Sequence[Any], vocab_size: int) -> tuple[int, ...]:
    return _not_empty([_token_id(item, "prompt", vocab_size) for item in items], "prompt")


def _token_id(item: Any, param: str, vocab_size: int) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < vocab_size:
        raise RequestError(f"{param}: {item!r:.40} is not a token id below {vocab_size}", param)
    return item


def _not_empty(ids: Sequence[int], param: str) -> tuple[int, ...]:
    if not ids:
        raise RequestError(f"{param} must not be empty", param)
    return tuple(ids)


def _stops(fields: _Fields) -> tuple[str, ...]:
    value = fields.get("stop")
    items = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) and item for item in items):
        raise RequestError("stop must be a text or a list of texts, none of them empty", "stop")
    if len(items) > _MOST_STOPS:
        raise RequestError(f"at most {_MOST_STOPS} stop strings", "stop")
    return tuple(items)


def _logit_bias(fields: _Fields, vocab_size: int) -> dict[int, float]:
    bias: dict[int, float] = {}
    for key, value in fields.mapping("logit_bias").items():
        token = int(key) if key.isdecimal() else -1
        if not 0 <= token < vocab_size:
            raise RequestError(f"logit_bias: {key!r:.40} is not a token id below {vocab_size}", "logit_bias")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -100 <= value <= 100:
            raise RequestError("logit_bias values must be numbers from -100 to 100", "logit_bias")
        bias[token] = float(value)
    return bias


def _logprobs(fields: _Fields, *, chat: bool) -> tuple[bool, int]:
    """(wanted, how many beside the chosen one)"""
    if not chat:
        return fields.get("logprobs") is not None, fields.integer("logprobs", 0, 0, _MOST_LOGPROBS)
    wanted = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, 0, _MOST_LOGPROBS)
    if top and not wanted:
        raise RequestError("top_logprobs needs logprobs: true", "top_logprobs")
    return wanted, top


def _range(low: float, high: float) -> str:
    if high == math.inf:
        return f"at least {low:g}"
    return f"between {low:g} and {high:g}"
