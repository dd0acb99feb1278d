"""The sample tap.conf at the top: it works as it stands, and what it says in comments is so."""

import re
import shutil
from pathlib import Path

import pytest

from comfyproxy.core.config import Config, PoolConfig, RouteConfig
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.configuration.option import Option
from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.core.configuration.settings import Settings
from comfyproxy.core.configuration.tapconf import parse_tap_conf
from comfyproxy.service.sources import Sources

SAMPLE = Path(__file__).parent.parent / "tap.conf"
IN_TAP_CONF = [option for option in OPTIONS if option.in_tap_conf]

# Options that have no default to show, or one that depends on another.
EXAMPLES = {"file", "static", "frontend", "trusted_proxy", "placement", "probe", "sticky_secret", "home"}


def statements(pattern: str) -> dict[str, str]:
    """The lines of the part for one pool that set a key, by that key."""
    one_pool, _, _ = SAMPLE.read_text().partition("## Several pools")
    return {found[1]: found[0] for found in re.finditer(pattern, one_pool, re.MULTILINE)}


def test_it_works_as_it_stands_and_changes_no_default(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path)
    loaded = Sources({}, {}, str(tmp_path)).load()
    assert loaded.warnings == ()
    assert loaded.config == Config(
        pools={"default": PoolConfig("default", (Address("http", "127.0.0.1", 8188),))},
        routes=(RouteConfig("/", pool="default"),),
    )


def test_it_has_every_option() -> None:
    shown = {**statements(r"^(\w+) = .*$"), **statements(r"^#(\w+) = .*$")}
    assert set(shown) == {option.key for option in IN_TAP_CONF}


@pytest.mark.parametrize("option", IN_TAP_CONF, ids=lambda option: option.name)
def test_what_it_shows_in_a_comment_is_the_default_and_can_be_written(option: Option) -> None:
    shown = {**statements(r"^(\w+) = .*$"), **statements(r"^#(\w+) = .*$")}[option.key].removeprefix("#")
    value = Settings([parse_tap_conf(shown, "tap.conf", "/").options]).value(option.key)
    assert value == option.default or option.key in EXAMPLES


def test_its_pools_and_routes_work_without_their_comment_signs(tmp_path: Path) -> None:
    one_pool, _, several = SAMPLE.read_text().partition("## Several pools")
    uncommented = re.sub(r"^#(?![ #])", "", several, flags=re.MULTILINE)
    (tmp_path / "tap.conf").write_text(f"{one_pool}# {uncommented}")
    (tmp_path / "gpu.txt").write_text("http://gpu[1-4]:8188\n")
    (tmp_path / "gallery").mkdir()
    config = Sources({}, {}, str(tmp_path)).load().config
    assert {name: (pool.app, len(pool.addresses)) for name, pool in config.pools.items()} == {
        "gpu": ("comfyui", 4),
        "llm": ("http", 2),
    }
    assert [(route.prefix, route.pool, route.timeouts.response) for route in config.routes] == [
        ("/v1", "llm", 7200),
        ("/gallery", None, 1800),
        ("/", "gpu", 1800),
    ]
