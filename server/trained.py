"""What a student that `tw distill wheels` has trained says beside its weights, in `wheels.json`, about how it asks for
help: the settings that serving it needs, so that nobody has to write them down a second time. docs/help.md."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE = "wheels.json"
_TEACHER_TOKENS = 1024
"""Of one answer: the sentence is what bounds help, and the default number of helps is meant for longer ones."""


class UnreadableWheels(ValueError):
    """`wheels.json` is there, and cannot be used; the message says which file, what is wrong and what to do."""


class _Wheels(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    token: Annotated[str, Field(min_length=1)]
    token_id: Annotated[int, Field(ge=0)]
    segment: Annotated[int, Field(ge=1, le=1024)]
    levels: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)]
    phrasings: Annotated[tuple[Annotated[str, Field(pattern=r"\{share\}")], ...], Field(min_length=1)]
    separator: str = "\n"
    by: Literal["student", "policy"] = "student"


def trained_to_ask(model: str | None) -> bool:
    """Whether `model` is the directory of a student that was trained to ask."""
    return model is not None and (Path(model).expanduser() / FILE).is_file()


def help_of(model: str) -> dict[str, Any]:
    """Settings `help.*` by name, as the student in the directory `model` was trained. Raises UnreadableWheels."""
    file = Path(model).expanduser() / FILE
    try:
        wheels = _Wheels.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UnreadableWheels(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnreadableWheels(
            f"{file}: {where + ': ' if where else ''}{first['msg']}; `tw distill wheels` writes this file beside the "
            "weights: take it from there, or remove it and say [help] yourself (docs/help.md)"
        ) from None
    percents = {round(100 * level) for level in wheels.levels if abs(100 * level - round(100 * level)) < 1e-6}
    return {
        "by": wheels.by,
        "token": wheels.token,
        "token_id": wheels.token_id,
        "tokens": wheels.segment,
        "max_segments": max(16, _TEACHER_TOKENS // wheels.segment),
        "retry_tokens": max(4, 2 * wheels.segment),
        "restriction": wheels.phrasings[0].replace("{share}", "{percent}%") + wheels.separator + "{prompt}",
        # A sentence says whole per cents.
        "levels": tuple(sorted(percents)),
    }
