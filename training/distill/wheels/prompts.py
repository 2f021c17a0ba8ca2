"""Prompts with a restriction before them: the student reads it, the teacher does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.distill.config import DataConfig
from training.distill.errors import CannotDistill
from training.distill.examples import Counted, _ids, _pair, _parts, read_records
from training.distill.wheels.restrictions import Restriction


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt (text, or messages) with its tokens and the data's answer, end token included."""

    said: str | list[Any]
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    number: int


def read_examples(paths: Sequence[Any], config: DataConfig, tokenizer: Any, room: int) -> tuple[list[Example], Counted]:
    """Pairs of prompt and answer that fit `config.context` with `room` tokens for a sentence. Raises CannotDistill for
    text without prompts: there is nothing to put a restriction before."""
    found: list[Example] = []
    records = read_records(paths)
    too_long = longest = 0
    for where, record in records:
        said, told = _parts(record, config, where)
        if said is None:
            raise CannotDistill(f"{where}: wheels needs prompts and answers, not text (column {config.text_column!r})")
        prompt, answer = _pair(tokenizer, said, told, config, where)
        total = len(prompt) + len(answer) + room
        longest = max(longest, total)
        if total > config.context:
            too_long += 1
            if config.too_long == "refuse":
                raise CannotDistill(f"{where}: {total} tokens with a restriction, more than data.context")
            if config.too_long == "drop" or len(prompt) + room >= config.context:
                continue
            answer = answer[: config.context - len(prompt) - room]
        found.append(Example(said, tuple(prompt), tuple(answer), len(found)))
    if not found:
        raise CannotDistill(
            f"{', '.join(map(str, paths))}: no usable rows: {len(records)} read, {too_long} longer than "
            f"{config.context} tokens with a restriction"
        )
    tokens = sum(len(one.prompt) + len(one.answer) for one in found)
    answers = sum(len(one.answer) for one in found)
    were = {"drop": "dropped", "cut": "cut", "refuse": "refused"}[config.too_long]
    names = tuple(str(path) for path in paths)
    return found, Counted(names, len(records), len(found), tokens, answers, too_long, longest, config.context, were)


def read_prompts(
    paths: Sequence[Any], config: DataConfig, tokenizer: Any, longest: int, first: int
) -> tuple[list[Example], int]:
    """Prompts without answers, numbered from `first`, and how many were left out for having more than `longest`
    tokens: what is as long as that leaves no room that the data's own would need."""
    found: list[Example] = []
    left_out = 0
    for where, record in read_records(paths):
        said = record.get("messages") or record.get(config.prompt_column)
        if not said:
            raise CannotDistill(f"{where}: no prompt in column {config.prompt_column!r} (wheels.prompts)")
        prompt, _ = _pair(tokenizer, said, ".", config, where)
        if len(prompt) > longest:
            left_out += 1
            continue
        found.append(Example(said, tuple(prompt), (), first + len(found)))
    if not found:
        raise CannotDistill(f"{', '.join(map(str, paths))}: every prompt is longer than the data's longest ({longest})")
    return found, left_out


def restricted(example: Example, restriction: Restriction | None, config: DataConfig, tokenizer: Any) -> list[int]:
    """Tokens of the prompt with the sentence on a line of its own before it; in a chat, before the last message."""
    if restriction is None:
        return list(example.prompt)
    sentence = restriction.sentence + "\n"
    if isinstance(example.said, str) and not config.chat:
        return _ids(tokenizer, sentence + example.said, special=True)
    messages = [{"role": "user", "content": example.said}] if isinstance(example.said, str) else list(example.said)
    last = messages[-1]
    messages[-1] = {**last, "content": sentence + str(last["content"])}
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return _ids(tokenizer, text, special=False)


def room_for(phrasings: Sequence[str], tokenizer: Any) -> int:
    """Tokens that the longest sentence takes."""
    sentences = [Restriction(0.555, phrasing).sentence + "\n" for phrasing in phrasings]
    return max((len(_ids(tokenizer, sentence, special=False)) for sentence in sentences), default=0)
