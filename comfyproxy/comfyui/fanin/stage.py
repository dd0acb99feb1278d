"""Shows a client one prompt at a time, however many run at once.

The page knows one active job: ``execution_start`` sets it, ``executing`` without a node ends it whichever it
is, ``progress_state`` replaces what is shown, and an ending clears the active job though it names another
(``executionStore.ts``). So one story is told as it happens. When another one ends meanwhile, that is told as
a whole, from its start to its end, and then the first is taken up again.
"""

from collections.abc import Iterable

from comfyproxy.comfyui.fanin.features import Features
from comfyproxy.comfyui.fanin.frames import Frame, ProgressText, event
from comfyproxy.comfyui.fanin.story import Story
from comfyproxy.core.balancing.operations import Client

MAX_KEPT = 32 * 1024 * 1024
"""Octets of results that are kept to be told later, of all stories together."""

MAX_UNTOLD = 256
"""Stories that ended while no client was there, and are kept for it."""

MAX_REPEATED = 1000
"""Stories that are repeated at most."""

REPEAT_AFTER = 1.0
"""Seconds of nothing, after the last prompt of a client, before endings are repeated."""


class Stage:
    """The stories of one client, of which one is shown.

    A program that has queued several prompts may wait for one after the other, in that order: so one server
    runs them. Where several servers end them in another order, it passes over an ending that it waits for
    later. So to a client that is no page, once nothing of its own is left to run and while it stays, all that
    ended since the first early one is said again, in the order of submission (`repeat`).

    A page that comes back is told what ended meanwhile. A program is not, as by one server: it may take the
    first ending that it hears for that of the prompt that it is about to queue.

    ``features`` says whether a page was there, and how the client wants its texts.
    """

    def __init__(self, features: Features) -> None:
        self.client: Client | None = None
        self.is_page = False
        self.stories: dict[str, Story] = {}
        self._features = features
        self._shown: Story | None = None
        self._serial = 0
        self._early: list[Story] = []
        self._quiet_since = 0.0

    def story(self, prompt_id: str) -> Story:
        """The story of a prompt; a new one if there is none."""
        story = self.stories.get(prompt_id)
        if story is None:
            self._serial += 1
            story = self.stories[prompt_id] = Story(prompt_id, self._serial)
        return story

    def attach(self, client: Client) -> None:
        """``client`` is there, and knows nothing yet."""
        self.client = client
        self.is_page = False
        self._early.clear()

    def catch_up(self) -> None:
        """Tell the client what it missed, and show it what runs."""
        shown = self._shown
        if shown is None or not shown.is_ending_told:
            self._shown = None
        if self._is_for_page:
            for story in self.stories.values():
                story.told = 0
        self._settle(shown)

    def detach(self) -> None:
        """Nobody is there."""
        self.client = None

    def say(self, frame: Frame) -> None:
        """Send a message as it is."""
        if self.client is not None:
            self.client.send(frame.payload, frame.is_binary, frame.key)

    def begins(self, story: Story) -> None:
        """``story`` has begun."""
        if self._shown is None:
            self._settle()

    def passes(self, story: Story, frame: Frame) -> None:
        """``frame`` came, and ``story`` knows what it says."""
        if story is self._shown:
            self.say(frame)

    def closes(self, story: Story, frame: Frame) -> None:
        """``frame`` came, the ending of ``story``."""
        story.is_ending_told = story is self._shown and self.client is not None
        self.passes(story, frame)

    def keeps(self, story: Story, frame: Frame) -> None:
        """``frame`` came, a result of ``story``, which is to keep it."""
        is_seen = story is self._shown and self.client is not None
        # Who sees a picture has it. To keep it for those who come back would take much room.
        if not (is_seen and frame.is_binary):
            story.keep(frame)
            self._bound()
        if is_seen:
            story.told = len(story.kept)
        self.passes(story, frame)

    def says(self, story: Story, text: ProgressText) -> None:
        """``text`` came, about a node of ``story``."""
        if story is self._shown:
            self.say(self._text_frame(story, text))
        story.says(text)

    def is_shown(self, story: Story) -> bool:
        """Whether ``story`` is the one."""
        return story is self._shown

    def starts_over(self, story: Story) -> None:
        """``story`` will run again from its start: what was shown of it no longer holds."""
        story.restart()
        if story is self._shown:
            self._shown = None
            self.say(Frame(event("progress_state", {"prompt_id": story.prompt_id, "nodes": {}})))
            self._settle()

    def ends(self, story: Story, now: float) -> None:
        """The server of ``story`` has nothing more to say of it."""
        story.is_over = True
        story.ended_at = story.ended_at or now
        self._quiet_since = now
        if story is self._shown:
            self._shown = None
            if self.client is not None:
                self.say(story.last())
                self._finish(story)
        if self.client is None and not self._is_for_page:
            self.drop(story)
        self._settle()

    def drop(self, story: Story) -> None:
        """There is nothing to tell of ``story``, and nobody to tell it to."""
        self.stories.pop(story.prompt_id, None)

    def repeat(self, now: float) -> None:
        """Say again what a program may wait for, once it is quiet."""
        if self._early and not self.stories and now - self._quiet_since >= REPEAT_AFTER:
            early, self._early = self._early, []
            for story in sorted(early, key=lambda story: story.serial):
                story.told = 0
                self._tell(story.opening(), story.results(), story.closing())

    def becomes_page(self) -> None:
        """The client has said what it can, as the page does; it looks up for itself what has ended."""
        self.is_page = True
        self._early.clear()

    @property
    def _is_for_page(self) -> bool:
        """Whether the client, or the one before it, is a page."""
        return self._features.flags is not None

    def _settle(self, preferred: Story | None = None) -> None:
        """Tell of what is over; then show one that runs."""
        shown = self._shown
        if self.client is None:
            self._bound_untold()
            return
        if shown is not None and shown.ending:
            return
        over = [story for story in self.stories.values() if story.is_over]
        for story in sorted(over, key=lambda story: story.ended_at):
            if story.is_ending_told:
                self.say(story.last())
            else:
                self._tell(story.opening(), story.results(), self._texts(story), story.closing())
            if self.client is None:
                return
            self._finish(story)
        if shown is not None:
            self._resume(shown)
            return
        running = [story for story in self.stories.values() if story.has_begun]
        if running:
            self._show(preferred if preferred in running else running[0])

    def _show(self, story: Story) -> None:
        self._shown = story
        story.is_ending_told = bool(story.ending)
        self._tell(story.opening(), story.results(), self._texts(story), story.present(), story.closing())

    def _resume(self, story: Story) -> None:
        """``story`` was interrupted by another. The page shows the newest result of each node, whichever
        prompt it is of, so it gets those of ``story`` again; what a program collects does not come twice."""
        if self.is_page:
            story.told = 0
            self._tell(story.opening(), story.results(), self._texts(story), story.present())
        else:
            self._tell(story.opening(), story.present())

    def _tell(self, *parts: Iterable[Frame]) -> None:
        for part in parts:
            for frame in part:
                self.say(frame)

    def _texts(self, story: Story) -> Iterable[Frame]:
        return [self._text_frame(story, text) for text in story.texts.values()]

    def _text_frame(self, story: Story, text: ProgressText) -> Frame:
        named = self._features.texts_name_prompts
        if named is None:
            named = text.prompt_id is not None
        return text.frame(story.prompt_id if named else None)

    def _finish(self, story: Story) -> None:
        del self.stories[story.prompt_id]
        is_early = bool(self.stories) and next(iter(self.stories.values())).serial < story.serial
        if not self.is_page and (self._early or is_early):
            self._early.append(story)
            del self._early[:-MAX_REPEATED]

    def _bound(self) -> None:
        """Forget results until what is left may be kept: the largest story gives."""
        stories = [story for story in (*self._early, *self.stories.values()) if story.size]
        size = sum(story.size for story in stories)
        while size > MAX_KEPT:
            size -= max(stories, key=lambda story: story.size).shed()

    def _bound_untold(self) -> None:
        over = [story for story in self.stories.values() if story.is_over]
        for story in over[: max(0, len(over) - MAX_UNTOLD)]:
            self.drop(story)
