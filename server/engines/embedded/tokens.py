"""The tokenizer, as the engine needs it: messages to ids, ids to text, and how a single token is shown."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any


class TemplateError(ValueError):
    """The messages do not fit the model's chat template, or it has none."""


class Tokens:
    """Raises nothing for any ids within the vocabulary."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # A copy: the generation thread decodes while the HTTP side encodes, and encoding may change the original.
        self._fast = copy.deepcopy(getattr(tokenizer, "backend_tokenizer", None))
        self._shown: dict[int, tuple[str, bytes]] = {}
        decoder = repr(getattr(self._fast, "decoder", ""))
        self._byte_of = _byte_alphabet() if "ByteLevel" in decoder else {}

    @property
    def has_chat_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def encode(self, text: str, special: bool = True) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        return ids

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        extra: Mapping[str, Any],
    ) -> list[int]:
        """Raises TemplateError. `extra` are further variables for the template."""
        if not self.has_chat_template:
            raise TemplateError("this model's tokenizer has no chat template; use /v1/completions")
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **extra,
            )
        except Exception as error:  # templates are programs: jinja2 errors, and whatever they do to odd messages
            raise TemplateError(f"the chat template refused the messages: {error}") from error
        return self.encode(text, special=False)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        if self._fast is not None:
            text: str = self._fast.decode(list(ids), skip_special_tokens=skip_special)
        else:
            text = self._tokenizer.decode(
                list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
            )
        return text

    def show(self, token: int) -> tuple[str, bytes]:
        """How one token is shown among log-probabilities: its text, and its bytes even where they are no character."""
        known = self._shown.get(token)
        if known is None:
            text = self.decode([token], False)
            raw = text.encode(errors="replace")
            if "�" in text and self._byte_of:
                piece = self._tokenizer.convert_ids_to_tokens(token) or ""
                raw = bytes(self._byte_of[char] for char in piece if char in self._byte_of)
            known = self._shown[token] = (text, raw)
        return known


def _byte_alphabet() -> dict[str, int]:
    """How byte-level vocabularies write each byte as a visible character (GPT-2's table)."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
