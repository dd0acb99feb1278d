"""Routers that decide one thing, for tests of what an exchange makes of that."""

from comfyproxy.core.balancing.routing import Search


class PlainRouter:
    """Changes nothing of what it places; a subclass says where that goes."""

    drop = frozenset()
    message_key = None

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value


class Searching(PlainRouter):
    """Has every request looked for."""

    def route(self, head, body, now):
        return Search()
