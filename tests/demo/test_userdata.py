"""Files of the page's user."""

import pytest

from comfyproxy.demo.userdata import UserData, normal_path


@pytest.fixture
def user() -> UserData:
    user = UserData()
    for path in ("workflows/b.json", "workflows/sub/a.json", "user.css"):
        user.save(path, b"{}", 1.0)
    return user


def paths(user: UserData, folder: str, recurse: bool) -> list[str] | None:
    found = user.listing(folder, recurse=recurse)
    return None if found is None else [kept.path for kept in found]


def test_a_listing_can_go_into_the_folders_below(user: UserData) -> None:
    assert paths(user, "workflows", False) == ["workflows/b.json"]
    assert paths(user, "workflows", True) == ["workflows/b.json", "workflows/sub/a.json"]
    assert paths(user, "", False) == ["user.css"]
    assert paths(user, "work", True) is None


def test_a_file_keeps_the_time_it_was_made(user: UserData) -> None:
    again = user.save("user.css", b"body {}", 2.5)
    assert again.info() == {"path": "user.css", "size": 7, "modified": 2500, "created": 1000}
    assert user.files["workflows/b.json"].info("workflows")["path"] == "b.json"


def test_a_file_that_moves_keeps_its_content(user: UserData) -> None:
    assert user.move("user.css", "old/user.css").data == b"{}"
    assert "user.css" not in user.files
    assert paths(user, "old", False) == ["old/user.css"]


def test_the_tree_has_folders_first(user: UserData) -> None:
    whole = user.tree("")
    assert whole is not None
    assert [(row["type"], row["path"]) for row in whole] == [
        ("directory", "workflows/sub"),
        ("directory", "workflows"),
        ("file", "workflows/sub/a.json"),
        ("file", "workflows/b.json"),
        ("file", "user.css"),
    ]
    below = user.tree("workflows")
    assert below is not None
    assert [row["path"] for row in below] == [
        "workflows/sub",
        "workflows/sub/a.json",
        "workflows/b.json",
    ]
    assert (user.tree("nowhere"), UserData().tree("")) == (None, [])


@pytest.mark.parametrize(
    ("given", "normal"),
    [("a/./b", "a/b"), ("", ""), (".", ""), ("../x", None), ("/x", None), ("a/../..", None)],
)
def test_paths_stay_in_the_users_folder(given: str, normal: str | None) -> None:
    assert normal_path(given) == normal
