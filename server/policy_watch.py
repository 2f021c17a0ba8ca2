"""Takes up what `tw policy` says, in a running worker: new policies are loaded beside the old ones, requests begin with
the new one from then on, and a policy is closed when the last request that began with it has ended."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from server.alarms import Alarms
from server.deciding import Decider
from server.in_service import InService
from server.policy_store import PolicyStore, PolicyStoreError, Serving
from server.scoring.scorer import Scorer, ScoringFailed

log = logging.getLogger(__name__)

Start = Callable[[str, bool], Awaitable[Scorer]]
"""(version, acts) -> its scorer, loaded. What does not act runs at low priority. Raises ScoringFailed, OSError."""


class PolicyWatch:
    """One per worker."""

    def __init__(self, store: PolicyStore, decider: Decider, start: Start, alarms: Alarms) -> None:
        self._store = store
        self._decider = decider
        self._start = start
        self._alarms = alarms
        self._stamp: tuple[int, int] | None = None
        self._retiring: dict[asyncio.Task[None], InService] = {}
        self.problem: str | None = None
        """Why what `tw policy` said last could not be taken up."""
        self.manifests: dict[str, dict[str, Any]] = {}
        """Of the policies at work."""

    async def look(self) -> None:
        """Takes up what has changed since the last look. On any failure the policies at work go on."""
        stamp = self._store.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self.problem = None
        try:
            serving = self._store.serving()
            if serving is not None:
                await self._take_up(serving)
        except (PolicyStoreError, ScoringFailed, OSError) as error:
            self.problem = str(error)
            log.error("the policies at work stay as they are: %s", error)  # noqa: TRY400

    async def _take_up(self, wanted: Serving) -> None:
        decider = self._decider
        at_work = [each for each in (decider.serving, decider.canary, decider.shadow) if each is not None]
        known = {each.version: each for each in at_work}
        started: dict[str, InService] = {}

        async def policy(version: str, *, acts: bool) -> InService:
            found = known.get(version)
            # A shadow's process has low priority, so one that is to act from now on is started anew.
            if found is None or (acts and found is decider.shadow):
                found = started[version] = InService(await self._start(version, acts))
            return found

        try:
            serving = await policy(wanted.version, acts=True)
            canary = None if wanted.canary is None else await policy(wanted.canary, acts=True)
            shadow = None if wanted.shadow is None else await policy(wanted.shadow, acts=False)
        except BaseException:
            for each in started.values():
                await each.scorer.close()
            raise
        other = serving is not decider.serving or canary is not decider.canary
        decider.take_policies(serving, canary, wanted.canary_share, shadow)
        if other:
            self._alarms.forget_qualities()
        self._read_manifests()
        for each in at_work:
            if each not in (serving, canary, shadow):
                task = asyncio.ensure_future(each.retire())
                self._retiring[task] = each
                task.add_done_callback(self._retiring.pop)
        log.info("policies at work: %s", wanted)

    def _read_manifests(self) -> None:
        decider = self._decider
        self.manifests = {}
        for each in (decider.serving, decider.canary, decider.shadow):
            if each is not None:
                with contextlib.suppress(PolicyStoreError):
                    self.manifests[each.version] = self._store.manifest(each.version)

    def seen(self) -> None:
        """What is at work already is what the store says now."""
        self._stamp = self._store.stamp()
        self._read_manifests()

    async def close(self) -> None:
        """Closes every policy, whoever might still ask it."""
        for task, policy in list(self._retiring.items()):
            task.cancel()
            await policy.scorer.close()
        decider = self._decider
        for each in (decider.serving, decider.canary, decider.shadow):
            if each is not None:
                await each.scorer.close()
