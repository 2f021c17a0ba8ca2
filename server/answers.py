"""What an upstream's answer says: the draft in it, its usage, and the fields that the client did not ask for."""

from dataclasses import dataclass
from typing import Any

from policies.observation import Draft
from policies.values import quickly_made
from server.generation_request import Endpoint


@quickly_made
@dataclass(frozen=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    """Of the prompt, taken from a prefix cache; None where the upstream does not say."""
    estimated: bool = False
    """No upstream has said so: it is as much as it can have been."""


def read_usage(data: dict[str, Any]) -> Usage | None:
    """The usage of an answer or of a chunk, None where it holds none (or none that makes sense)."""
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or prompt < 0:
        return None
    completion = completion if isinstance(completion, int) and completion >= 0 else 0
    details = usage.get("prompt_tokens_details")
    if not isinstance(details, dict):
        return Usage(prompt, completion)
    cached = details.get("cached_tokens")
    sensible = isinstance(cached, int) and not isinstance(cached, bool) and 0 <= cached <= prompt
    return Usage(prompt, completion, cached if sensible else None)


class DraftReader:
    """Gathers the first choice of an answer, whole or chunk by chunk. Foreign shapes are passed over, not raised on."""

    __slots__ = ("_endpoint", "_logprobs", "_texts", "finish_reason", "pieces")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._texts: list[str] = []
        self._logprobs: list[float] = []
        self.finish_reason: str | None = None
        self.pieces = 0
        """How many chunks carried text: the least number of tokens there can be."""

    @property
    def tokens(self) -> int:
        """Tokens so far: counted by their log-probabilities, else by chunks."""
        return max(len(self._logprobs), self.pieces)

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the text: no fewer than the tokens in it, whatever the tokenizer."""
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in self._texts)

    def read(self, data: dict[str, Any]) -> None:
        choices = data.get("choices")
        if not isinstance(choices, list):
            return
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        if self._endpoint == "chat":
            part = choice.get("delta") or choice.get("message")
            text = part.get("content") if isinstance(part, dict) else None
        else:
            text = choice.get("text")
        if isinstance(text, str) and text:
            self._texts.append(text)
            self.pieces += 1
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            return
        if isinstance(logprobs.get("content"), list):
            values = [token.get("logprob") for token in logprobs["content"] if isinstance(token, dict)]
        elif isinstance(logprobs.get("token_logprobs"), list):
            values = logprobs["token_logprobs"]
        else:
            return
        # Nearly all are floats, and the check for both costs as much as everything else here.
        self._logprobs += [float(each) for each in values if type(each) is float or isinstance(each, int | float)]

    def draft(self, *, complete: bool) -> Draft:
        return Draft(
            text="".join(self._texts),
            logprobs=tuple(self._logprobs),
            finish_reason=self.finish_reason,
            complete=complete,
        )


def drop_logprobs(data: dict[str, Any]) -> bool:
    """Takes out, in place, the log-probabilities that only the gateway asked for. Whether there were any."""
    dropped = False
    for choice in data.get("choices") or ():
        if isinstance(choice, dict) and choice.get("logprobs") is not None:
            choice["logprobs"] = None
            dropped = True
    return dropped
