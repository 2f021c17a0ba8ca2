"""A directory's own tokenizer and chat template without transformers, whose import costs seconds and wants torch.

Only for directories that say that tokenizer.json is all there is to their tokenizer. Templates mean what they mean in
transformers: the same sandbox, the same additions to jinja2.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

# Classes of transformers that add nothing to the file.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class PlainTokenizer:
    """The part of transformers' tokenizers that `tokens.Tokens` uses, under the same names."""

    def __init__(self, backend: Tokenizer, settings: Mapping[str, Any], chat_template: str | None) -> None:
        self.backend_tokenizer = backend
        self.chat_template = chat_template
        # Templates may name the special tokens: bos_token, eos_token, ...
        self._named = {name: _content(value) for name, value in settings.items() if name.endswith("_token")}
        self._template = _environment().from_string(chat_template) if chat_template else None

    @property
    def eos_token_id(self) -> int | None:
        eos = self._named.get("eos_token")
        return None if eos is None else self.backend_tokenizer.token_to_id(eos)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self.backend_tokenizer.id_to_token(token)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        continue_final_message: bool,
        **extra: Any,
    ) -> str:
        """The text. Raises what the template raises, and ValueError where the last message cannot be continued."""
        assert self._template is not None
        assert not tokenize
        chat = [dict(message) for message in messages]
        last = str(chat[-1]["content"])
        if continue_final_message:
            chat[-1]["content"] = last + _TAG
        variables = {**self._named, **extra}
        text = self._template.render(messages=chat, add_generation_prompt=add_generation_prompt, **variables)
        if not continue_final_message:
            return text
        at = text.rfind(_TAG.strip())
        if at < 0 or last.strip() not in text:
            raise ValueError("the template does not keep the text of the last message, so it cannot be continued")
        # Where the template has trimmed the message, the end of the text is trimmed as well.
        return text[:at] if text[at : at + len(_TAG)] == _TAG else text[:at].rstrip()


def read_plain_tokenizer(directory: Path) -> PlainTokenizer | None:
    """None where the directory asks for a tokenizer class with a mind of its own."""
    written = directory / "tokenizer_config.json"
    file = directory / "tokenizer.json"
    if not written.is_file() or not file.is_file():
        return None
    settings = json.loads(written.read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") not in _PLAIN_CLASSES:
        return None
    template = settings.get("chat_template")
    if (directory / "chat_template.jinja").is_file():
        template = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    if template is not None and not isinstance(template, str):
        return None
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more particular
        raise ValueError(f"{file}: {error}") from error
    return PlainTokenizer(backend, settings, template)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """jinja2's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _content(value: Any) -> str | None:
    """A special token is written as a text, or as an object with the text inside."""
    return value.get("content") if isinstance(value, dict) else value
