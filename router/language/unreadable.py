"""The one error of the reader: which phrase could not be read, where it stands, and what would read instead."""

from typing import Any


class Unreadable(ValueError):
    """A text, or a part of it, that says no budget. `at` counts characters of the text as it was given."""

    def __init__(self, phrase: str, at: tuple[int, int], message: str, hint: str) -> None:
        super().__init__(message)
        self.phrase = phrase
        self.at = at
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """All of it in one line."""
        said = f"{self.message} {self.hint}".strip()
        return f'"{self.phrase}": {said}' if self.phrase.strip() else said

    def as_dict(self) -> dict[str, Any]:
        return {"phrase": self.phrase, "at": list(self.at), "message": self.message, "hint": self.hint}
