"""Minted ids: valid UUIDs, random enough, and readable by anybody who has the pool."""

from uuid import RFC_4122, UUID, uuid1, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.identity import fingerprint_in, mint_client_id, mint_prompt_id

FINGERPRINT = "0123456789ab"
fingerprints = st.text("0123456789abcdef", min_size=12, max_size=12)
octets = st.binary(min_size=10, max_size=10)


@given(octets, fingerprints)
def test_a_minted_prompt_id_is_a_canonical_uuid_of_version_8(random: bytes, fingerprint: str) -> None:
    minted = mint_prompt_id(fingerprint, lambda count: random[:count])
    assert str(UUID(minted)) == minted
    assert (UUID(minted).version, UUID(minted).variant) == (8, RFC_4122)


@given(octets, fingerprints)
def test_a_minted_id_carries_its_fingerprint(random: bytes, fingerprint: str) -> None:
    assert fingerprint_in(mint_prompt_id(fingerprint, lambda count: random)) == fingerprint
    assert fingerprint_in(mint_client_id(fingerprint, lambda count: random)) == fingerprint


def test_a_client_id_is_the_same_in_comfyuis_own_form() -> None:
    prompt = mint_prompt_id(FINGERPRINT, bytes)
    client = mint_client_id(FINGERPRINT, bytes)
    assert prompt == "00000000-0000-8000-8000-0123456789ab"
    assert client == UUID(prompt).hex


def test_the_random_bits_come_first_and_are_at_least_seventy() -> None:
    plain = UUID(mint_prompt_id(FINGERPRINT, bytes)).int
    seen = 0
    for bit in range(80):
        one_bit = (1 << bit).to_bytes(10, "big")
        changed = plain ^ UUID(mint_prompt_id(FINGERPRINT, {10: one_bit}.__getitem__)).int
        assert changed & 0xFFFF_FFFF_FFFF == 0
        seen |= changed
    assert seen.bit_count() == 74
    assert seen >> 96 == 0xFFFF_FFFF


def test_ids_are_random_unless_told_otherwise() -> None:
    assert len({mint_prompt_id(FINGERPRINT)[:8] for _ in range(20)}) > 10
    assert mint_client_id(FINGERPRINT) != mint_client_id(FINGERPRINT)


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "abc",
        str(uuid4()),
        uuid4().hex,
        str(uuid1()),
        "00000000-0000-8000-8000-0123456789AB",
        "00000000-0000-8000-8000-0123456789ab\n",
        "00000000-0000-8000-8000-0123456789ag",
        "00000000-0000-8000-c000-0123456789ab",
        "00000000-0000-7000-8000-0123456789ab",
        "00000000-0000-8000-80000123456789ab",
        "000000000000-8000-8000-0123456789ab",
        "{00000000-0000-8000-8000-0123456789ab}",
        "\ud800",
    ],
)
def test_what_is_no_minted_id_carries_no_fingerprint(identifier: str) -> None:
    assert fingerprint_in(identifier) is None
