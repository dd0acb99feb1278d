"""Options and fields of placement prompt belong together, one to one."""

from dataclasses import fields

from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.configuration.comfyui_options import COMFYUI_OPTIONS
from comfyproxy.core.configuration.option import COMFYUI


def test_every_field_has_its_option_and_its_default() -> None:
    defaults = {option.key: option.default for option in COMFYUI_OPTIONS}
    assert list(defaults) == [one.name for one in fields(ComfyUIConfig)]
    assert defaults.pop("home") is None
    assert all(default == getattr(ComfyUIConfig(), name) for name, default in defaults.items())


def test_each_pool_may_set_them() -> None:
    assert all(option.for_pools and option.section == COMFYUI for option in COMFYUI_OPTIONS)
