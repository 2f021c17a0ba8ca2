"""Where top-k log-probabilities come from: a model in this process, or a vLLM server."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from training.distill.batches import collate
from training.distill.errors import CannotDistill, DistillationFailed
from training.distill.examples import Row
from training.distill.losses.blocks import by_blocks
from training.distill.models import head_of, states, weights_sha256


class LocalTeacher:
    """A model in this process."""

    def __init__(self, model: Any, vocabulary: int, pad_id: int, rows: int, tokens_at_once: int) -> None:
        self._model, self._vocabulary = model, vocabulary
        self._pad_id, self._rows, self._tokens = pad_id, rows, tokens_at_once

    @cached_property
    def name(self) -> str:
        """Its weights and not its path: a folder that was moved holds the same teacher, a retrained one another."""
        return weights_sha256(self._model)

    def top_k(self, rows: Sequence[Row], k: int) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        device = next(self._model.parameters()).device
        for start in range(0, len(rows), self._rows):
            some = rows[start : start + self._rows]
            batch = collate([(row,) for row in some], self._pad_id).to(device)
            with torch.no_grad():
                last = states(self._model, batch).last[:, :-1][batch.predicting()]

                def largest(logits: Tensor, _none: Tensor | None, _at: slice) -> dict[str, Tensor]:
                    values, ids = torch.log_softmax(logits, -1).topk(min(k, logits.shape[-1]), -1)
                    return {"ids": ids, "values": values}

                top = by_blocks(last, head_of(self._model, self._vocabulary), None, None, largest, self._tokens)
            sizes = batch.predicting().sum(-1).tolist()
            found += zip(torch.split(top["ids"].cpu(), sizes), torch.split(top["values"].cpu(), sizes), strict=True)
        return found


class VllmTeacher:
    """A vLLM server, asked for the log-probabilities of a prompt it is given as token ids.

    The server must allow as many: `--max-logprobs K`. The tokenizer must be the student's; ids beyond `vocabulary` are
    refused.
    """

    def __init__(
        self,
        url: str,
        model: str,
        vocabulary: int,
        key_env: str | None = None,
        *,
        attempts: int = 4,
        timeout_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._model, self._vocabulary = url.rstrip("/"), model, vocabulary
        self._key = os.environ.get(key_env) if key_env else None
        if key_env and not self._key:
            raise CannotDistill(f"teacher.key_env: the environment variable {key_env} is not set")
        self._attempts, self._timeout_s, self._sleep = attempts, timeout_s, sleep
        self.name = f"{model} at {self._url}"

    def top_k(self, rows: Sequence[Row], k: int) -> list[tuple[Tensor, Tensor]]:
        return [self._row(row, k) for row in rows]

    def _row(self, row: Row, k: int) -> tuple[Tensor, Tensor]:
        body = {
            "model": self._model,
            "prompt": list(row.tokens),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": k,
        }
        answer = self._post(body)
        try:
            places = answer["choices"][0]["prompt_logprobs"][max(1, row.answer_from) :]
            found = [self._place(place, k) for place in places]
        except (KeyError, IndexError, TypeError, AttributeError):
            raise CannotDistill(f"{self._url}: gave no prompt_logprobs; is it a vLLM server?") from None
        if len(found) != len(row.tokens) - max(1, row.answer_from):
            raise CannotDistill(
                f"{self._url}: gave log-probabilities of {len(found)} tokens for a prompt of {len(row.tokens)}"
            )
        return torch.stack([ids for ids, _ in found]), torch.stack([values for _, values in found])

    def _place(self, place: dict[str, dict[str, Any]], k: int) -> tuple[Tensor, Tensor]:
        # The prompt's own token is there too, whatever its rank; the k best are kept.
        best = sorted(((float(of["logprob"]), int(word)) for word, of in place.items()), reverse=True)[:k]
        if len(best) < k or any(word >= self._vocabulary for _, word in best):
            raise CannotDistill(
                f"{self._url}: wanted {k} log-probabilities of words below {self._vocabulary}, got {len(best)}; start "
                f"vLLM with --max-logprobs {k} and the student's tokenizer, or lower teacher.top_k"
            )
        return torch.tensor([word for _, word in best]), torch.tensor([value for value, _ in best])

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._url}/completions", json.dumps(body).encode(), headers)
        said = ""
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(2.0**attempt)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                    found: dict[str, Any] = json.load(response)
                    return found
            except urllib.error.HTTPError as error:
                said = f"{error.code} {error.read()[:300].decode(errors='replace')}"
                if error.code < 500 and error.code != 429:
                    raise CannotDistill(f"teacher.url: {self._url} refused: {said}") from None
            except (OSError, ValueError) as error:
                said = str(error)
        raise DistillationFailed(
            f"teacher.url: {self._url} does not answer ({said}); what it gave so far is kept, the same command goes on"
        )
