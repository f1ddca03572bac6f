"""Tests which file extensions a module's name may omit, and the list of all spellings of a module's
URL."""

import pytest

from definitions.extensions import CODE_EXTENSIONS, EXECUTABLE_EXTENSIONS, module_spellings, stem

MODULE = "http://localhost:4201/ada/site/post"
SPELLINGS = [MODULE, f"{MODULE}.tsx", f"{MODULE}.ts", f"{MODULE}.jsx", f"{MODULE}.js"]


@pytest.mark.parametrize("extension", EXECUTABLE_EXTENSIONS)
def test_the_stem_of_a_module_lacks_its_last_extension(extension: str) -> None:
    assert stem(f"a/post{extension}") == "a/post"
    assert stem(f"a/post.js{extension}") == "a/post.js"


@pytest.mark.parametrize("path", ["post", "post.json", "post.mts", "post.mjs", "post.cts", "tsx"])
def test_the_stem_of_any_other_file_is_its_whole_path(path: str) -> None:
    assert stem(path) == path


def test_mts_mjs_and_cts_files_are_code_but_need_their_extension() -> None:
    assert [each for each in CODE_EXTENSIONS if stem(f"a{each}") != "a"] == [".mts", ".mjs", ".cts"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_spellings_of_a_module_have_the_same_spellings(spelling: str) -> None:
    assert module_spellings(spelling) == SPELLINGS


def test_a_module_with_two_extensions_is_among_its_own_spellings() -> None:
    for spelling in (f"{MODULE}.ts.tsx", f"{MODULE}.js.ts"):
        assert spelling in module_spellings(spelling)
