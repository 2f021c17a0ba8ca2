"""From pieces to the JSON of OpenAI's API, with vLLM's additions (`stop_reason`, `token_ids`, usage in every chunk)."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

from server.engines.embedded.jobs import Piece, Token
from server.engines.embedded.requests import Request
from server.engines.embedded.tokens import Tokens

Json = dict[str, Any]
# JSON has no infinity; vLLM says it this way.
_LOWEST_LOGPROB = -9999.0


class Responses:
    """Writes the answer to one request, whole or chunk by chunk."""

    def __init__(self, request: Request, tokens: Tokens, request_id: str | None = None) -> None:
        self._request = request
        self._tokens = tokens
        self._id = ("chatcmpl-" if request.chat else "cmpl-") + (request_id or uuid.uuid4().hex)
        self._created = int(time.time())
        choices = len(request.job.prompts)
        self._begun = [False] * choices
        self._offsets = [0] * choices
        self.completion_tokens = 0

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """`pieces`: one for each choice, in any order."""
        choices = []
        for piece in sorted(pieces, key=lambda piece: piece.choice):
            self.completion_tokens += len(piece.tokens)
            choice = self._choice(piece)
            if self._request.chat:
                choice["message"] = {"role": "assistant", "content": piece.text}
            else:
                choice["text"] = piece.text
                if self._request.return_token_ids:
                    choice["prompt_token_ids"] = list(self._request.job.prompts[piece.choice])
            choices.append(choice)
        body = self._head("chat.completion" if self._request.chat else "text_completion", choices)
        if self._request.chat and self._request.return_token_ids:
            body["prompt_token_ids"] = list(self._request.prompts[0])
        body["usage"] = self._usage()
        return orjson.dumps(body)

    def chunks(self, piece: Piece) -> bytes:
        """The events of one piece; a choice of a chat opens with its role."""
        out = b""
        opens = not self._begun[piece.choice]
        self._begun[piece.choice] = True
        if opens and self._request.chat:
            opening: Json = {
                "index": piece.choice,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            out = self._event([opening], opens)
        self.completion_tokens += len(piece.tokens)
        choice = self._choice(piece)
        if self._request.chat:
            choice["delta"] = {"content": piece.text}
        else:
            choice["text"] = piece.text
        return out + self._event([choice], opens and not self._request.chat)

    def closing(self) -> bytes:
        """Usage where it was asked for, and the end of the stream."""
        out = b""
        if self._request.include_usage:
            body = self._head(self._chunk_kind(), [])
            body["usage"] = self._usage()
            out = _sse(body)
        return out + b"data: [DONE]\n\n"

    def _event(self, choices: list[Json], opens: bool) -> bytes:
        body = self._head(self._chunk_kind(), choices)
        if opens and self._request.return_token_ids:
            ids = list(self._request.job.prompts[choices[0]["index"]])
            (body if self._request.chat else choices[0])["prompt_token_ids"] = ids
        if self._request.continuous_usage:
            body["usage"] = self._usage()
        return _sse(body)

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self._request.chat else "text_completion"

    def _head(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._request.model,
            "choices": choices,
        }

    def _usage(self) -> Json:
        prompt = self._request.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
        }

    def _choice(self, piece: Piece) -> Json:
        choice: Json = {
            "index": piece.choice,
            "logprobs": self._logprobs(piece) if self._request.wants_logprobs else None,
            "finish_reason": piece.finish_reason,
            "stop_reason": piece.stop_reason,
        }
        if self._request.return_token_ids:
            choice["token_ids"] = [token.id for token in piece.tokens]
        return choice

    def _logprobs(self, piece: Piece) -> Json:
        if self._request.chat:
            return {"content": [self._chat_entry(token) for token in piece.tokens]}
        texts, values, tops, offsets = [], [], [], []
        for token in piece.tokens:
            text = self._tokens.show(token.id)[0]
            shown = {self._tokens.show(i)[0]: _finite(value) for i, value in token.top[: self._request.top_logprobs]}
            shown.setdefault(text, _finite(token.logprob))  # the chosen one is always among them, as in vLLM
            texts.append(text)
            values.append(_finite(token.logprob))
            tops.append(shown)
            offsets.append(self._offsets[piece.choice])
            self._offsets[piece.choice] += len(text)
        return {"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _chat_entry(self, token: Token) -> Json:
        top = [self._entry(i, value) for i, value in token.top]
        return {**self._entry(token.id, token.logprob), "top_logprobs": top}

    def _entry(self, token: int, logprob: float | None) -> Json:
        text, raw = self._tokens.show(token)
        return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(message: str) -> bytes:
    return b"data: " + error_body(message, "server_error") + b"\n\ndata: [DONE]\n\n"


def _finite(logprob: float | None) -> float:
    return _LOWEST_LOGPROB if logprob is None else max(logprob, _LOWEST_LOGPROB)


def _sse(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
