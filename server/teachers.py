"""The teachers of a worker where there are several: their names, and which of them can be relied on.

With one teacher nothing here has a say: no breaker stands before it, and nobody is asked in its place.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from policies.policy import TeacherScore
from router.breaker import SOUND, Breaker, failed, may_probe, probed, succeeded
from server.served_models import plain
from server.upstream import Upstream

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Teacher:
    label: str
    upstream: Upstream
    breaker: Breaker = SOUND
    trying: bool = False
    """It is set aside, and a request tries whether it answers again."""
    reachable: bool = False
    served: tuple[str, ...] = ()
    """What its server calls its models."""

    @property
    def names(self) -> tuple[str, ...]:
        """Under which a policy or a client may know it. Of a server of many models, of which one is meant, that one."""
        served = self.served if self.upstream.settings.name is None else ()
        return tuple(dict.fromkeys((self.label, self.upstream.name, *served)))

    @property
    def state(self) -> str:
        return "set aside" if self.breaker.aside else "ok" if self.reachable else "unreachable"


class Teachers:
    """In the order of the settings; the first is the default. One per worker."""

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        now: Callable[[], float] = time.monotonic,
        tell: Callable[[Teacher], None] = lambda _: None,
    ) -> None:
        self.all = tuple(teachers)
        self._tell = tell
        """Hears of one that is set aside, or asked again."""
        self._now = now
        self._matches: dict[tuple[str, ...], dict[str, Teacher]] = {}

    def __len__(self) -> int:
        return len(self.all)

    def named(self, name: str) -> Teacher | None:
        """By its label, or by a name that its server gave."""
        return next((each for each in self.all if each.label == name), None) or next(
            (each for each in self.all if name in each.names), None
        )

    def available(self) -> list[Teacher]:
        """Those that can be asked now: one that is set aside lets a request through now and then, which tries it."""
        now = self._now()
        return [
            each for each in self.all if not each.breaker.aside or (may_probe(each.breaker, now) and not each.trying)
        ]

    def match(self, names: Iterable[str]) -> dict[str, Teacher]:
        """Which teacher a policy means by each of its names. Where it knows none of those served by name, names may
        just be written in another way, and the first it knows is taken for the first served, and so on."""
        key = tuple(names)
        found = self._matches.get(key)
        if found is None:
            found = {}
            for name in key:
                means = [each for each in self.all if plain(each.label) == plain(name)]
                means += [each for each in self.all if plain(name) in map(plain, each.names)]
                if means:
                    found[name] = means[0]
            if not found:
                found = dict(zip(key, self.all, strict=False))
            self._matches[key] = found
        return found

    def forget_names(self) -> None:
        """A server has said what it calls its models."""
        self._matches.clear()

    def offered(self, scores: Sequence[TeacherScore]) -> list[tuple[TeacherScore, Teacher]]:
        """Of what a policy scored, the teachers that can be asked now."""
        mine = self.match(score.name for score in scores)
        now = set(map(id, self.available()))
        return [(score, mine[score.name]) for score in scores if score.name in mine and id(mine[score.name]) in now]

    # What calls show

    def called(self, teacher: Teacher) -> None:
        teacher.trying = teacher.breaker.aside

    def answered(self, teacher: Teacher) -> None:
        self._learn(teacher, good=True)

    def failed(self, teacher: Teacher) -> None:
        self._learn(teacher, good=False)

    def let_go(self, teacher: Teacher) -> None:
        """A call has ended without showing anything: the client left, or was wrong."""
        teacher.trying = False

    def _learn(self, teacher: Teacher, *, good: bool) -> None:
        before, now = teacher.breaker, self._now()
        teacher.trying = False
        if before.aside:
            teacher.breaker = probed(before, now, good=good)
            if not teacher.breaker.aside:
                log.warning("teacher %s answers again and is asked again", teacher.label)
                self._tell(teacher)
            return
        teacher.breaker = succeeded(before) if good else failed(before, now)
        if teacher.breaker.aside:
            log.error("teacher %s is set aside: it fails again and again; others are asked instead", teacher.label)
            self._tell(teacher)
