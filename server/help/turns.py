"""One model's stretch of a helped answer, and whom the loop asks: the ledger, and a policy that watches."""

from dataclasses import dataclass
from typing import Protocol

from router.session import Role
from server.answers import Usage
from server.help.watch import Looked
from server.help.wire import Segment


class Help(Protocol):
    """A help that was admitted; `server.help.calls` has the real one."""

    tokens: int
    usage: Usage
    usd: float
    counts: bool

    def settle(self, usage: Usage | None, written: int) -> None: ...
    def release(self) -> None: ...


class Calls(Protocol):
    async def admit(self, text_bytes: int, tokens: int) -> Help | None: ...


class Watching(Protocol):
    async def look(self, text: str, largest: tuple[float, ...]) -> Looked: ...


@dataclass(slots=True)
class Turn:
    """One model's stretch of the answer, from before it is called."""

    by: Role
    reason: str
    since: float
    used_before: int
    segment: Segment | None = None
    help: Help | None = None
    looked: Looked | None = None
    banned: int = 0
    """Tokens for which the student may not ask; then it is called anew."""
    begun: bool = False
