"""Stand-ins for torchvision, torchaudio and spandrel, put on the PYTHONPATH of a real ComfyUI.

ComfyUI imports all three when it starts, but they have no build for the CPU-only torch that these tests use.
No workflow of the tests calls into them, so a module that answers every attribute with a class is enough for
ComfyUI's own nodes to import. Python imports a module named `sitecustomize` by itself at start-up, which
leaves ComfyUI's `main.py` untouched.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

STAND_INS = frozenset({"torchvision", "torchaudio", "spandrel"})


class StandIn(ModuleType):
    """A module in which every public name exists: a submodule if imported, else an empty class."""

    __path__: Sequence[str] = ()
    __version__ = "0.0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_in = type(name, (), {"__doc__": f"Stands in for {self.__name__}.{name}."})
        setattr(self, name, stand_in)
        return stand_in


class StandInFinder(MetaPathFinder, Loader):
    """Finds and makes the stand-in modules; everything else is left to Python's own finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


sys.meta_path.insert(0, StandInFinder())
