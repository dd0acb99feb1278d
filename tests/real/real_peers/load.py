"""A steady load of GET requests, for what happens meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

WAIT = 30.0
"""Seconds that a load may take to bring the answers that are waited for."""


class Load:
    """The answers that a load has got so far."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        """How often each text came with a status of 200."""
        self.failures: list[str] = []
        """What came instead: another status, or what the client raised."""
        self.cut = 0
        """How many answers broke off after their head, so that the client could tell."""
        self._progress = asyncio.Condition()

    def assert_nothing_lost(self, *, but_cut: bool = False) -> None:
        """Fail unless every request got its answer; with `but_cut`, answers that had begun may break off."""
        assert self.failures == []
        assert but_cut or not self.cut, f"{self.cut} answers broke off"

    async def answered(self, more: int) -> None:
        """Wait until so many more requests have ended, well or badly."""
        goal = self._ended + more
        await self._wait(lambda: self._ended >= goal, f"{more} more answers")

    async def answered_by(self, text: str, times: int = 1) -> None:
        """Wait until this text has been among the answers so often."""
        await self._wait(lambda: self.answers[text] >= times, f"{times} answers {text!r}")

    async def answered_without(self, text: str, more: int = 50) -> None:
        """Wait for so many more answers and fail if this text is among the last half of them.

        The first half is for requests that were on their way already.
        """
        await self.answered(more // 2)
        before = self.answers[text]
        await self.answered(more // 2)
        assert self.answers[text] == before, f"{text!r} still answers"

    @property
    def _ended(self) -> int:
        return self.answers.total() + len(self.failures) + self.cut

    async def _wait(self, done: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT), self._progress:
                await self._progress.wait_for(done)
        except TimeoutError:
            raise AssertionError(
                f"{WAIT:g} s waited for {what}; got {self.answers}, failures {self.failures}"
            ) from None

    async def repeat(self, session: aiohttp.ClientSession, url: str, stop: asyncio.Event) -> None:
        """Send one request after the other until `stop` is set; the last one is finished."""
        while not stop.is_set():
            try:
                async with session.get(url) as response:
                    text = await response.text()
                if response.status == 200:
                    self.answers[text] += 1
                else:
                    self.failures.append(f"{response.status} {text}")
            except aiohttp.ClientPayloadError:
                self.cut += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
            async with self._progress:
                self._progress.notify_all()


@asynccontextmanager
async def steady_load(url: str, *, clients: int) -> AsyncIterator[Load]:
    """Keep `clients` clients busy with GET requests of `url`; afterwards every request has ended."""
    load, stop = Load(), asyncio.Event()
    connector, timeout = aiohttp.TCPConnector(limit=clients), aiohttp.ClientTimeout(total=WAIT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        tasks = [asyncio.create_task(load.repeat(session, url, stop)) for _ in range(clients)]
        try:
            yield load
        finally:
            stop.set()
            await asyncio.gather(*tasks)
