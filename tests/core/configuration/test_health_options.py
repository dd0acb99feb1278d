"""Options and fields of health belong together, one to one."""

from dataclasses import fields

from comfyproxy.core.config import HealthConfig
from comfyproxy.core.configuration.health_options import HEALTH_OPTIONS
from comfyproxy.core.configuration.option import HEALTH


def test_every_field_has_its_option_and_its_default() -> None:
    defaults = {option.key.removeprefix("probe_"): option.default for option in HEALTH_OPTIONS}
    assert list(defaults) == [one.name for one in fields(HealthConfig)]
    assert defaults.pop("probe") is None
    assert all(default == getattr(HealthConfig(), name) for name, default in defaults.items())


def test_each_pool_may_set_them() -> None:
    assert all(option.for_pools and option.section == HEALTH for option in HEALTH_OPTIONS)
