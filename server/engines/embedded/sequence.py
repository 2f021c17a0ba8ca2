"""One running choice: its tokens so far, its text so far, and whether it has ended."""

from collections.abc import Sequence as Many

from server.engines.embedded.jobs import FinishReason, Job, Piece, Token
from server.engines.embedded.sampler import Chooser, Logits
from server.engines.embedded.text import Decode, Detokenizer, StopStrings


class Sequence:
    def __init__(self, job: Job, choice: int, decode: Decode, eos: frozenset[int], context: int) -> None:
        sampling = job.sampling
        self.job = job
        self.choice = choice
        self.prompt: Many[int] = job.prompts[choice]
        self.last_token = -1
        self.finish_reason: FinishReason | None = None
        self._sampling = sampling
        self._eos = frozenset() if sampling.ignore_eos else eos
        self.ends = self._eos | sampling.stop_token_ids
        self.chooser = Chooser(sampling, self.prompt, choice, self._eos)
        self._text = Detokenizer(decode, self.prompt)
        self._stops = StopStrings(sampling.stop, sampling.include_stop)
        self.most = min(sampling.max_tokens, context - len(self.prompt))
        self._count = 0
        self._gathered_text: list[str] = []
        self._gathered_tokens: list[Token] = []

    def take(self, row: Logits, likeliest: int) -> Piece | None:
        """Chooses the next token from its logits. Returns what is to be told now."""
        return self.accept(self.chooser.choose(row, likeliest))

    def accept(self, token: Token) -> Piece | None:
        """The next token, once it is chosen. Returns what is to be told now: nothing before the end, where the job is
        not streamed."""
        self.last_token = token.id
        self._count += 1
        self._gathered_tokens.append(token)
        stop_reason = self._advance(token.id)
        if self.finish_reason is None and not self.job.stream:
            return None
        piece = Piece(
            self.choice, "".join(self._gathered_text), tuple(self._gathered_tokens), self.finish_reason, stop_reason
        )
        self._gathered_text.clear()
        self._gathered_tokens.clear()
        return piece

    def _advance(self, token: int) -> int | str | None:
        """Returns the stop reason, and sets `finish_reason` where the choice has ended."""
        enough = self._count >= self._sampling.min_tokens
        stopped = enough and (token in self._eos or token in self._sampling.stop_token_ids)
        text = "" if stopped and not self._sampling.include_stop else self._text.push(token)
        text, stop = self._stops.push(text)
        self._gathered_text.append(text)
        if stop is not None and enough:
            self.finish_reason = "stop"
            return stop
        if not stopped and self._count < self.most:
            return None
        self.finish_reason = "stop" if stopped else "length"
        text, stop = self._stops.push(self._text.flush())
        self._gathered_text.append(text)
        if stop is not None:
            self.finish_reason = "stop"
            return stop
        self._gathered_text.append(self._stops.flush())
        # As vLLM has it: the model's own end has no reason, a stop token that was asked for has.
        return token if stopped and token in self._sampling.stop_token_ids else None
