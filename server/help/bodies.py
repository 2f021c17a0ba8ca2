"""The text so far as a request to either model.

By text, which any two tokenizers understand: a chat goes on in its last assistant message (`continue_final_message`, no
new generation prompt), a completion in its prompt. By token ids where both models have one tokenizer: nothing is
tokenized anew at a seam, and a prompt cache is hit to the last token.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from server.generation_request import GenerationRequest

# The gateway's own business: what is set anew for each segment, and what only the client may know of.
_OURS = (
    "model", "stream", "stream_options", "stop", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
    "include_stop_str_in_output", "n", "best_of", "continue_final_message", "add_generation_prompt",
)  # fmt: skip
# Token ids of the student's vocabulary.
_VOCABULARY = ("logit_bias", "stop_token_ids", "allowed_token_ids")
# What of a chat request also means something to a completion from token ids.
_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
    "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "bad_words", "user", "priority",
    *_VOCABULARY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ask:
    """One segment to be written."""

    model: str
    max_tokens: int | None
    text: str = ""
    """Of the answer so far."""
    ids: tuple[int, ...] | None = None
    """Prompt and answer so far as token ids; None: hand over text."""
    same_vocabulary: bool = True
    stop_ids: tuple[int, ...] = ()
    biases: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to their logits."""
    top_logprobs: int | None = None
    wants_ids: bool = False
    running_usage: bool = False
    nth: int = 0
    """How many segments there were before: a seed must not draw the same numbers again."""


def segment_body(request: GenerationRequest, ask: Ask, prompt: str | None = None) -> tuple[str, bytes]:
    """(path, body). `prompt` takes the place of the last user message, or of the prompt."""
    body: dict[str, Any] = {name: value for name, value in request.body.items() if name not in _OURS}
    if not ask.same_vocabulary:
        for name in _VOCABULARY:
            body.pop(name, None)
    by_chat = request.endpoint == "chat" and ask.ids is None
    if ask.ids is not None:
        body = {name: body[name] for name in _SAMPLING if name in body}
        body["prompt"] = list(ask.ids)
        body["add_special_tokens"] = False
    elif by_chat:
        body |= chat_so_far(request, ask.text, prompt)
    else:
        body["prompt"] = (request.body["prompt"] if prompt is None else prompt) + ask.text
    body |= {"model": ask.model, "stream": True, "stream_options": {"include_usage": True}}
    if ask.running_usage:
        body["stream_options"]["continuous_usage_stats"] = True
    if ask.max_tokens is not None:
        name = "max_completion_tokens" if by_chat and "max_completion_tokens" in request.body else "max_tokens"
        body[name] = ask.max_tokens
    if ask.top_logprobs is not None:
        body["logprobs"] = True if by_chat else ask.top_logprobs
        if by_chat and ask.top_logprobs:
            body["top_logprobs"] = ask.top_logprobs
    if ask.stop_ids:
        body["stop_token_ids"] = [*(body.get("stop_token_ids") or ()), *ask.stop_ids]
    biases = body.get("logit_bias") or {}
    # What is no object the upstream refuses, in its own words.
    if ask.biases and isinstance(biases, dict):
        body["logit_bias"] = biases | {str(token): bias for token, bias in ask.biases}
    if ask.wants_ids:
        body["return_token_ids"] = True
    if ask.nth and isinstance(body.get("seed"), int):
        body["seed"] += ask.nth
    return ("/chat/completions" if by_chat else "/completions"), orjson.dumps(body)


def chat_so_far(request: GenerationRequest, text: str, prompt: str | None = None) -> dict[str, Any]:
    """The fields of a chat request that goes on after `text`."""
    messages = list(request.body["messages"])
    if prompt is not None:
        at = max(i for i, message in enumerate(messages) if message["role"] == "user")
        messages[at] = {**messages[at], "content": prompt}
    goes_on = continues_given(request)
    if not text and not goes_on:
        asked = {k: v for k, v in request.body.items() if k in ("continue_final_message", "add_generation_prompt")}
        return {"messages": messages} | asked
    if goes_on:
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + text}
    else:
        messages.append({"role": "assistant", "content": text})
    return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def continues_given(request: GenerationRequest) -> bool:
    """The client itself wants its last assistant message continued."""
    return request.endpoint == "chat" and bool(request.body.get("continue_final_message"))


def given(request: GenerationRequest) -> str:
    """The text right before the answer that is no part of it, where it is known."""
    if request.endpoint == "completions":
        prompt: str = request.body["prompt"]
        return prompt
    if continues_given(request):
        content: str = request.body["messages"][-1]["content"]
        return content
    return ""


def restricted(request: GenerationRequest, template: str, percent: int) -> str | None:
    """The prompt, or the last user message, with the restriction in words; None where there is no text to put it to."""
    if request.endpoint == "completions":
        prompt = request.body["prompt"]
    else:
        users = [message for message in request.body["messages"] if message["role"] == "user"]
        prompt = users[-1].get("content") if users else None
    if not isinstance(prompt, str):
        return None
    return template.replace("{percent}", str(percent)).replace("{prompt}", prompt)


def top_logprobs(request: GenerationRequest) -> int | None:
    """How many alternatives the client wants to see; None: no log-probabilities at all."""
    if not request.wants_logprobs:
        return None
    wanted = request.body.get("top_logprobs") if request.endpoint == "chat" else request.body["logprobs"]
    return wanted if isinstance(wanted, int) and not isinstance(wanted, bool) else 0
