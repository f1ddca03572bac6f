"""Tests the conversion of a card's path to its file's path, and back."""

import pytest

from reindex.reading.card_paths import card_of, file_of, is_card_file, named_card


@pytest.mark.parametrize("card", ["ada", "people/ada", "a.b", "a.json", "http://localhost/x/é"])
def test_a_card_path_maps_to_its_file_and_back(card: str) -> None:
    assert file_of(card) == f"{card}.json"
    assert card_of(file_of(card)) == card
    assert is_card_file(file_of(card))


@pytest.mark.parametrize("path", ["ada", "post.tsx", "json", "a.json.md", "a.JSON", "a.json/"])
def test_a_file_without_json_extension_is_no_card_and_keeps_its_path(path: str) -> None:
    assert not is_card_file(path)
    assert card_of(path) == path


@pytest.mark.parametrize(
    ("path", "card"),
    [("", "index"), ("a/", "a/index"), ("a", "a"), ("index", "index"), ("a/b.json", "a/b.json")],
)
def test_a_folder_path_names_its_index_card(path: str, card: str) -> None:
    assert named_card(path) == card
