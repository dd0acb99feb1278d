"""The three folders: names, numbers, and no way out."""

import pytest

from comfyproxy.demo.files import Files, OutsideFolder, split_annotation


@pytest.fixture
def files() -> Files:
    return Files()


def test_a_file_is_found_where_it_was_saved(files: Files) -> None:
    files.save("input", "a/b", "x.png", b"1", 5.0)
    stored = files.find("input", "a/./b", "x.png")
    assert stored is not None
    assert (stored.subfolder, stored.name, stored.path) == ("a/b", "x.png", "a/b/x.png")
    assert files.find("output", "a/b", "x.png") is None
    assert files.find("input", "", "x.png") is None


@pytest.mark.parametrize(
    ("subfolder", "name"),
    [("", "../x"), ("..", "x"), ("a", "../../x"), ("/etc", "x"), ("", "/x"), ("", "..")],
)
def test_nothing_leads_out_of_its_folder(files: Files, subfolder: str, name: str) -> None:
    with pytest.raises(OutsideFolder):
        files.save("input", subfolder, name, b"", 0.0)
    with pytest.raises(OutsideFolder):
        files.find("input", subfolder, name)


def test_an_upload_is_renamed_only_when_other_bytes_have_its_name(files: Files) -> None:
    assert files.upload_name("input", "", "u.png", b"one") == "u.png"
    files.save("input", "", "u.png", b"one", 0.0)
    assert files.upload_name("input", "", "u.png", b"one") == "u.png"
    assert files.upload_name("input", "", "u.png", b"two") == "u (1).png"
    files.save("input", "", "u (1).png", b"two", 0.0)
    assert files.upload_name("input", "", "u.png", b"three") == "u (2).png"
    assert files.upload_name("input", "", "u.png", b"two") == "u (1).png"
    assert files.upload_name("input", "sub", "u.png", b"two") == "u.png"


def test_outputs_are_counted_by_folder_and_prefix(files: Files) -> None:
    assert files.next_output("output", "a/demo") == ("a", "demo", 1)
    files.save("output", "a", "demo_00001_.png", b"", 0.0)
    files.save("output", "a", "demo_00007_.png", b"", 0.0)
    files.save("output", "a", "demonstration_00009_.png", b"", 0.0)
    assert files.next_output("output", "a/demo") == ("a", "demo", 8)
    assert files.next_output("output", "demo") == ("", "demo", 1)
    assert files.next_output("temp", "a/demo") == ("a", "demo", 1)


def test_two_servers_give_different_pictures_one_name() -> None:
    assert Files().next_output("output", "demo") == Files().next_output("output", "demo")


@pytest.mark.parametrize(
    ("given", "name", "folder"),
    [
        ("x.png", "x.png", None),
        ("x.png [output]", "x.png", "output"),
        ("a b.png [temp]", "a b.png", "temp"),
        ("x.png[input]", "x.png", "input"),
        ("x.png [models]", "x.png [models]", None),
    ],
)
def test_a_name_may_say_its_folder(given: str, name: str, folder: str | None) -> None:
    assert split_annotation(given) == (name, folder)


def test_a_load_image_input_names_a_file_of_any_folder(files: Files) -> None:
    files.save("input", "", "x.png", b"in", 0.0)
    files.save("output", "sub", "x.png", b"out", 0.0)
    found = [files.annotated(name) for name in ("x.png", "sub/x.png [output]", "y.png", "../x.png")]
    assert [stored and stored.data for stored in found] == [b"in", b"out", None, None]


def test_the_entity_tag_tells_two_servers_copies_apart(files: Files) -> None:
    here = files.save("input", "", "x.png", b"same", 1.0)
    there = Files().save("input", "", "x.png", b"same", 2.0)
    assert here.etag != there.etag


def test_a_listing_has_the_files_of_one_subfolder_oldest_first(files: Files) -> None:
    for subfolder, name in [("", "b"), ("", "a"), ("s", "c")]:
        files.save("input", subfolder, name, b"", 0.0)
    assert [stored.name for stored in files.listing("input")] == ["b", "a"]
    assert [stored.name for stored in files.listing("input", "s")] == ["c"]
