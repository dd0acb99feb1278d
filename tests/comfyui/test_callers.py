"""Who asks, whose a prompt is, and which backend is nearest to each."""

from collections import Counter
from collections.abc import Callable

import pytest

from comfyproxy.comfyui import callers as module
from comfyproxy.comfyui.callers import CALLER_KEY, Caller, Callers, Kind
from comfyproxy.comfyui.identity import fingerprint_in, mint_client_id
from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import AskAddress
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.core.http.http1 import RequestHead

MakeHead = Callable[..., RequestHead]
MakePool = Callable[..., Pool]
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool()


@pytest.fixture
def callers(pool: Pool) -> Callers:
    return Callers(pool)


def identify(
    callers: Callers, head: RequestHead, document: dict[str, object] | None = None, at: bytes = b"192.0.2.1"
) -> Caller:
    """Carry the operation out for a client at that address."""
    operation = callers.identify(head, document)
    try:
        step = next(operation)
        assert step == AskAddress()
        operation.send(at)
    except StopIteration as done:
        found: Caller = done.value
        return found
    raise AssertionError("it asks more")


def cookie_of(line: bytes) -> str:
    assert line.endswith(b"\r\n")
    assert line.startswith(b"Set-Cookie: ")
    return line.decode().removeprefix("Set-Cookie: ").partition(";")[0]


def test_a_browser_is_known_by_its_cookie_in_all_its_tabs(callers: Callers, make_head: MakeHead) -> None:
    first = identify(callers, make_head("GET", "/queue", f"Cookie: a=b; comfyproxy={TOKEN}"))
    second = identify(callers, make_head("GET", "/ws?clientId=tab2", f"Cookie: comfyproxy={TOKEN}"))
    assert first == second
    assert first.kind is Kind.BROWSER


def test_its_fingerprint_does_not_show_the_token(callers: Callers, make_head: MakeHead) -> None:
    caller = callers.browser(make_head("GET", "/", f"Cookie: comfyproxy={TOKEN}"))
    assert caller is not None
    assert len(caller.fingerprint) == 12
    assert caller.fingerprint not in TOKEN


@pytest.mark.parametrize("value", ["0123456789ab", TOKEN.upper(), TOKEN + "0", "", "x" * 32])
def test_what_is_no_token_names_nobody(callers: Callers, make_head: MakeHead, value: str) -> None:
    assert callers.browser(make_head("GET", "/", f"Cookie: comfyproxy={value}")) is None


def test_of_several_cookies_the_first_that_is_a_token_counts(callers: Callers, make_head: MakeHead) -> None:
    both = callers.browser(make_head("GET", "/", f"Cookie: comfyproxy=0123456789ab; comfyproxy={TOKEN}"))
    assert both == callers.browser(make_head("GET", "/", f"Cookie: comfyproxy={TOKEN}"))


def test_a_script_is_known_by_its_client_id(callers: Callers, make_head: MakeHead) -> None:
    socket = identify(callers, make_head("GET", "/ws?clientId=script"))
    submission = identify(callers, make_head("POST", "/prompt", length=2), {"client_id": "script"})
    assert socket == submission
    assert socket.kind is Kind.SCRIPT
    assert socket != identify(callers, make_head("GET", "/ws?clientId=other"))


def test_who_says_nothing_is_known_by_the_address(callers: Callers, make_head: MakeHead) -> None:
    head = make_head("POST", "/interrupt")
    assert identify(callers, head) == identify(callers, head)
    assert identify(callers, head).kind is Kind.ADDRESS
    assert identify(callers, head) != identify(callers, head, at=b"192.0.2.2")
    assert identify(callers, head, at=b"2001:db8::1") == identify(callers, head, at=b"2001:db8::2")
    assert identify(callers, head, at=b"") == identify(callers, head, at=b"")


def test_a_minted_client_id_says_whose_prompts_it_has(callers: Callers, pool: Pool) -> None:
    caller, _ = callers.greet()
    client = callers.mint(caller)
    assert len(client) == 32
    assert fingerprint_in(client) == caller.fingerprint
    assert Callers(pool).owner(client) == caller.fingerprint


def test_a_script_that_was_given_its_client_id_and_no_cookie_is_one_caller(
    callers: Callers, make_head: MakeHead
) -> None:
    caller, _ = callers.greet()
    client = callers.mint(caller)
    found = identify(callers, make_head("POST", "/prompt", length=2), {"client_id": client})
    assert found.fingerprint == caller.fingerprint


def test_a_client_id_that_carries_a_backends_fingerprint_is_nobody_elses(
    callers: Callers, pool: Pool
) -> None:
    one, other = (mint_client_id(pool.backends[0].fingerprint) for _ in range(2))
    assert callers.owner(one) != callers.owner(other)
    assert callers.owner(one) != pool.backends[0].fingerprint


def test_a_browser_may_use_an_id_that_was_not_minted_for_it(callers: Callers, make_head: MakeHead) -> None:
    browser = identify(callers, make_head("GET", "/ws?clientId=old", f"Cookie: comfyproxy={TOKEN}"))
    assert callers.owner("old") == browser.fingerprint
    other, line = callers.greet()
    identify(callers, make_head("GET", "/ws?clientId=old", f"Cookie: {cookie_of(line)}"))
    assert callers.owner("old") == other.fingerprint


def test_its_own_id_is_not_remembered(callers: Callers, make_head: MakeHead) -> None:
    caller, line = callers.greet()
    client = callers.mint(caller)
    identify(callers, make_head("GET", f"/ws?clientId={client}", f"Cookie: {cookie_of(line)}"))
    assert not callers._bound


def test_a_prompt_may_say_whose_it_is_where_its_client_id_does_not(callers: Callers) -> None:
    assert callers.owner("observer", {CALLER_KEY: "0123456789ab"}) == "0123456789ab"
    by_id = callers.owner("observer")
    for told in ("short", 7, None, "0123456789AB"):
        assert callers.owner("observer", {CALLER_KEY: told}) == by_id
    assert callers.owner("observer", "not an object") == by_id
    assert callers.owner("\ud800") != by_id


def test_who_says_nothing_speaks_for_the_scripts_at_its_address(
    callers: Callers, make_head: MakeHead
) -> None:
    script = identify(callers, make_head("GET", "/ws?clientId=script"))
    here, elsewhere = callers.at(b"192.0.2.1"), callers.at(b"192.0.2.2")
    assert callers.owns(here, script.fingerprint)
    assert not callers.owns(elsewhere, script.fingerprint)
    assert callers.owns(script, script.fingerprint)
    assert not callers.owns(script, here.fingerprint)


def test_it_does_not_speak_for_browsers(callers: Callers, make_head: MakeHead) -> None:
    browser = identify(callers, make_head("GET", "/queue", f"Cookie: comfyproxy={TOKEN}"))
    assert not callers.owns(callers.at(b"192.0.2.1"), browser.fingerprint)


def test_only_so_much_is_remembered(
    callers: Callers, make_head: MakeHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    found = [identify(callers, make_head("GET", f"/ws?clientId=s{number}")) for number in range(3)]
    here = callers.at(b"192.0.2.1")
    assert [callers.owns(here, one.fingerprint) for one in found] == [False, True, True]


def test_pages_and_websockets_bring_the_cookie_to_those_without(
    callers: Callers, make_head: MakeHead
) -> None:
    socket = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    assert callers.is_due(make_head("GET", "/"))
    assert callers.is_due(make_head("GET", "/ws", *socket, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
    assert not callers.is_due(make_head("GET", "/queue"))
    assert not callers.is_due(make_head("GET", "/", f"Cookie: comfyproxy={TOKEN}"))
    assert callers.is_due(make_head("GET", "/", "Cookie: comfyproxy=0123456789ab"))


def test_the_backends_do_not_see_the_cookie(callers: Callers) -> None:
    assert callers.cookies(f"a=b; comfyproxy={TOKEN}".encode()) == b"a=b"


def test_a_page_and_what_comes_after_it_are_from_one_backend(
    callers: Callers, pool: Pool, make_head: MakeHead
) -> None:
    for backend in pool.backends * 5:
        cookie = cookie_of(callers.cookie_for(backend))
        caller = callers.browser(make_head("GET", "/scripts/app.js", f"Cookie: {cookie}"))
        assert caller is not None
        assert callers.affinity(caller.fingerprint) is backend


def test_tokens_that_were_tried_for_one_backend_do_for_another(make_pool: MakePool) -> None:
    drawn = []

    def random(size: int) -> bytes:
        drawn.append(size)
        return len(drawn).to_bytes(size)

    pool = make_pool()
    callers = Callers(pool, random=random)
    lines = [callers.cookie_for(backend) for backend in pool.backends * 20]
    assert len(set(lines)) == 60
    assert len(drawn) < 2 * len(lines)


def test_in_a_large_pool_the_search_for_a_token_ends(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIED_SCORES", 10)
    callers = Callers(make_pool("http://server[1-100]:8188"))
    assert cookie_of(callers.cookie_for(callers._pool.backends[7]))


def test_a_pool_without_servers_has_cookies_too(make_pool: MakePool) -> None:
    pool = make_pool()
    backend = pool.backends[0]
    pool.apply(diff(pool.addresses, ()))
    callers = Callers(pool)
    assert cookie_of(callers.cookie_for(backend))
    assert callers.affinity("0123456789ab") is None


def test_any_proxy_finds_the_same_backend_nearest(make_pool: MakePool) -> None:
    fingerprints = [f"{number:012x}" for number in range(50)]
    one = Callers(make_pool("http://server[1-9]:8188"))
    other = Callers(make_pool(" , ".join(f"http://server{number}:8188" for number in range(9, 0, -1))))
    nearest = [one.affinity(fingerprint) for fingerprint in fingerprints]
    assert [b and b.url for b in nearest] == [
        b and b.url for b in (other.affinity(fingerprint) for fingerprint in fingerprints)
    ]
    assert len({b and b.url for b in nearest}) == 9


def test_weights_are_shares(make_pool: MakePool) -> None:
    callers = Callers(Pool("main", parse_addresses("http://a:1 weight=3, http://b:1")))
    counted = Counter(callers.affinity(f"{number:012x}") for number in range(4000))
    shares = {backend.address.host: count / 4000 for backend, count in counted.items() if backend}
    assert shares["a"] == pytest.approx(0.75, abs=0.03)


def test_only_those_move_whose_backend_goes_and_they_come_back(callers: Callers, pool: Pool) -> None:
    fingerprints = [f"{number:012x}" for number in range(200)]
    before = {one: callers.affinity(one) for one in fingerprints}
    gone = pool.backends[1]
    pool.set_admin(gone, AdminState.DRAIN, 1.0)
    during = {one: callers.affinity(one) for one in fingerprints}
    assert all((during[one] is before[one]) is (before[one] is not gone) for one in fingerprints)
    pool.set_admin(gone, AdminState.READY, 2.0)
    assert {one: callers.affinity(one) for one in fingerprints} == before


def test_a_reload_is_noticed(callers: Callers, pool: Pool) -> None:
    before = {f"{number:012x}": callers.affinity(f"{number:012x}") for number in range(200)}
    pool.apply(diff(pool.addresses, parse_addresses("http://server[1-4]:8188")))
    moved = {callers.affinity(one) for one in before if callers.affinity(one) is not before[one]}
    assert moved == {pool.backends[3]}


def test_a_backup_is_nearest_only_where_no_other_is_left() -> None:
    pool = Pool("main", parse_addresses("http://a[1-6]:1 backup=1, http://b[1-6]:1"))
    callers = Callers(pool)
    backups, others = pool.backends[:6], pool.backends[6:]
    assert callers.affinity("0123456789ab") in others
    for backend in others:
        assert callers.affinity("0123456789ab") in others
        pool.set_admin(backend, AdminState.MAINT, 1.0)
    assert callers.affinity("0123456789ab") in backups
    for backend in backups:
        pool.set_admin(backend, AdminState.MAINT, 1.0)
    assert callers.affinity("0123456789ab") is None
