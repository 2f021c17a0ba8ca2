"""A request for text, read once: what the gateway must know of it, and how it is passed on."""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from policies.observation import Prompt
from server.errors import BadRequest

Endpoint = Literal["chat", "completions"]
PATHS: dict[str, Endpoint] = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}
# What a chat template adds around each message, generously; only upper estimates of cost are made with it.
_TOKENS_AROUND_MESSAGE = 16


BAN = -100.0
"""The bias that keeps a token from being chosen; vLLM's and OpenAI's lowest."""


@dataclass(slots=True)
class GenerationRequest:
    endpoint: Endpoint
    body: dict[str, Any]
    model: str
    stream: bool
    prompt: Prompt
    prompt_bytes: int
    wants_logprobs: bool
    wants_usage: bool
    """The client asked for usage in its stream."""
    wants_running_usage: bool

    @property
    def path(self) -> str:
        return "/chat/completions" if self.endpoint == "chat" else "/completions"

    def completion_limit(self) -> int | None:
        """The largest number of tokens the client lets one choice have, None where it sets none."""
        limit = self.body.get("max_completion_tokens")
        if limit is None:
            limit = self.body.get("max_tokens")
        return limit

    def most_prompt_tokens(self) -> int:
        """No tokenizer makes more tokens than bytes; so this can be promised without knowing which one it is."""
        messages = self.body.get("messages") or ()
        return self.prompt_bytes + _TOKENS_AROUND_MESSAGE * (len(messages) + 1)

    def choices(self) -> int:
        return max(int(self.body.get("n") or 1), int(self.body.get("best_of") or 1))

    def passed_on(
        self,
        model: str,
        *,
        logprobs: bool = False,
        running_usage: bool = False,
        max_tokens: int | None = None,
        banned: int | None = None,
    ) -> bytes:
        """The body for an upstream: its model name, and what the gateway needs to see beside what the client asked.
        `banned`: a token that must not be chosen."""
        body = dict(self.body)
        body["model"] = model
        if self.stream:
            options = dict(body.get("stream_options") or {})
            options["include_usage"] = True
            if running_usage:
                options["continuous_usage_stats"] = True
            elif not self.wants_running_usage:
                options.pop("continuous_usage_stats", None)
            body["stream_options"] = options
        if logprobs and not self.wants_logprobs:
            body["logprobs"] = True if self.endpoint == "chat" else 1
        if max_tokens is not None and self.completion_limit() is None:
            body["max_tokens"] = max_tokens
        biases = body.get("logit_bias") or {}
        # What is no object the upstream refuses, in its own words.
        if banned is not None and isinstance(biases, dict):
            body["logit_bias"] = biases | {str(banned): BAN}
        return orjson.dumps(body)


def read_request(endpoint: Endpoint, raw: bytes) -> GenerationRequest:
    """Raises BadRequest naming the field. Only what the gateway itself reads is checked: the rest is the upstream's."""
    body = read_object(raw)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest('`model` must be a non-empty string; "auto" routes.', param="model")
    stream = _flag(body, "stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("`stream_options` must be an object.", param="stream_options")
    for name in ("max_tokens", "max_completion_tokens", "n", "best_of"):
        if body.get(name) is not None:
            _count(name, body[name])
    prompt, size = _chat(body) if endpoint == "chat" else _completion(body)
    logprobs = body.get("logprobs")
    return GenerationRequest(
        endpoint=endpoint,
        body=body,
        model=model,
        stream=stream,
        prompt=prompt,
        prompt_bytes=size,
        wants_logprobs=logprobs is not None and logprobs is not False,
        wants_usage=bool(options and options.get("include_usage")),
        wants_running_usage=bool(options and options.get("continuous_usage_stats")),
    )


def read_object(raw: bytes) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` must be true or false.", param=name)
    return value


def _count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"`{name}` must be a whole number, at least 0.", param=name)


def _chat(body: dict[str, Any]) -> tuple[Prompt, int]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("`messages` must be a non-empty list.", param="messages")
    texts: list[str] = []
    last_user = ""
    turns = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(f"`messages[{index}]` must be an object with a `role`.", param=f"messages[{index}]")
        text = _content(message.get("content"), index)
        texts.append(text)
        if message["role"] == "user":
            last_user = text
            turns += 1
    text = texts[0] if len(texts) == 1 else "\n".join(texts)
    size = len(text.encode("utf-8", "surrogatepass"))
    if "tools" in body or "functions" in body:
        # Tool definitions are part of the prompt that is billed.
        size += len(orjson.dumps([body.get("tools"), body.get("functions")]))
    return Prompt(text=text, last_user=last_user, turn=max(turns, 1)), size


def _content(content: Any, index: int) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    raise BadRequest(f"`messages[{index}].content` must be a string or a list of parts.", param=f"messages[{index}]")


def _completion(body: dict[str, Any]) -> tuple[Prompt, int]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return Prompt(text=prompt, last_user=prompt), len(prompt.encode("utf-8", "surrogatepass"))
    if isinstance(prompt, list) and prompt:
        if all(isinstance(part, str) for part in prompt):
            text = "\n".join(prompt)
            return Prompt(text=text, last_user=text), len(text.encode("utf-8", "surrogatepass"))
        if all(isinstance(part, int) for part in prompt):
            return Prompt(text="", last_user=""), len(prompt)
        if all(isinstance(part, list) for part in prompt):
            return Prompt(text="", last_user=""), sum(len(part) for part in prompt)
    raise BadRequest("`prompt` must be a string, or a list of strings or token ids.", param="prompt")
