"""Prompts that ended together with their server: no history has them, so the proxy remembers them."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from comfyproxy.comfyui.merging.known import Known

MAX_ENDINGS = 1000
MAX_BODIES = 32 * 1024 * 1024


class Endings:
    """The latest of them, as the merged lists take them; ``octets`` is what their submissions may have."""

    def __init__(self, size: int = MAX_ENDINGS, octets: int = MAX_BODIES) -> None:
        self._kept: OrderedDict[str, tuple[Known, str, int]] = OrderedDict()
        self._size = size
        self._left = octets

    def __iter__(self) -> Iterator[Known]:
        """The oldest first."""
        return (known for known, _, _ in tuple(self._kept.values()))

    def add(self, known: Known, owner: str, size: int) -> None:
        """Remember ``known`` of ``owner``, whose submission takes ``size`` octets."""
        self.remove(known.prompt_id)
        self._kept[known.prompt_id] = (known, owner, size)
        self._left -= size
        while len(self._kept) > self._size or (self._left < 0 and len(self._kept) > 1):
            self.remove(next(iter(self._kept)))

    def remove(self, prompt_id: str) -> bool:
        """Forget one; whether it was there."""
        kept = self._kept.pop(prompt_id, None)
        if kept is None:
            return False
        self._left += kept[2]
        return True

    def of(self, is_whose: Callable[[str], bool]) -> list[str]:
        """The ids of those of whose owner ``is_whose`` says so."""
        return [prompt_id for prompt_id, (_, owner, _) in self._kept.items() if is_whose(owner)]
