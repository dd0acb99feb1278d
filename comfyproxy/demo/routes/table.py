"""All routes of one server, put together."""

from collections.abc import Callable, Iterator
from typing import Protocol

from comfyproxy.demo.machine import Machine
from comfyproxy.demo.routes.files import FileRoutes
from comfyproxy.demo.routes.installation import InstallationRoutes
from comfyproxy.demo.routes.internal import InternalRoutes
from comfyproxy.demo.routes.jobs import JobRoutes
from comfyproxy.demo.routes.prompts import PromptRoutes
from comfyproxy.demo.routes.users import UserRoutes
from comfyproxy.demo.routing import Route, Routes


class RouteGroup(Protocol):
    """The routes about one thing."""

    def routes(self) -> Iterator[Route]:
        """Its lines of the table."""


def all_routes(machine: Machine) -> Routes:
    """The whole table of one server."""
    groups: list[Callable[[Machine], RouteGroup]] = [
        PromptRoutes,
        FileRoutes,
        InstallationRoutes,
        UserRoutes,
        InternalRoutes,
    ]
    if machine.installation.jobs_api:
        groups.append(JobRoutes)
    return Routes(route for group in groups for route in group(machine).routes())
