"""Names of results: different for every picture, and possible as files on every system."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from effdet_deploy.detection.naming import LONGEST, Names, places_of, safe_name, shortened


def test_files_are_named_from_their_common_folder():
    pictures = [Path("set/a.png"), Path("set/deep/b.c.jpg")]
    places = places_of(pictures)
    assert [places[each].file for each in pictures] == ["a.png", "deep/b.c.jpg"]
    assert [places[each].stem for each in pictures] == ["a", "deep/b.c"]
    assert places_of([Path("set/deep/b.jpg")])[Path("set/deep/b.jpg")].file == "b.jpg"
    assert places_of([]) == {}


def test_paths_with_two_dots_are_resolved_before_they_are_compared(tmp_path):
    pictures = [tmp_path / "x" / ".." / "a.png", tmp_path / "y" / "b.png"]
    assert [each.file for each in places_of(pictures).values()] == ["a.png", "y/b.png"]


def test_pictures_whose_names_differ_only_in_suffix_or_case_have_stems_of_their_own():
    pictures = [Path("s/a.png"), Path("s/a.jpg"), Path("s/A.gif"), Path("s/a-2.png")]
    stems = [each.stem for each in places_of(pictures).values()]
    assert stems[:2] == ["a", "a-2"]
    assert len({each.casefold() for each in stems}) == 4


def test_picture_ids_are_the_numbers_in_cocos_names_or_count_from_one():
    numbered = [Path("000000000139.jpg"), Path("000000000285.jpg")]
    assert [each.number for each in places_of(numbered).values()] == [139, 285]
    for others in (["1.jpg", "b.jpg"], ["1.jpg", "x/01.jpg"], ["²3.jpg", "4.jpg"]):
        found = places_of([Path(each) for each in others])
        assert [each.number for each in found.values()] == [1, 2]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6)
    )
)
def test_no_name_is_given_twice(wanted):
    names = Names()
    given_names = [names.free(each, ".txt").casefold() for each in wanted]
    assert len(set(given_names)) == len(given_names)


@given(st.text())
def test_a_class_of_any_name_has_a_folder_that_can_be_made(name):
    safe = safe_name(name)
    assert safe
    assert safe not in {".", ".."}
    assert safe == safe_name(safe)
    assert not set(safe) & set('<>:"/\\|?*\n\r\t\0')
    assert safe[-1] not in ". "
    assert len(os.fsencode(safe)) <= 255


def test_names_of_windows_devices_are_changed():
    assert [safe_name(each) for each in ("CON", "nul.x", "com1", "contact")] == [
        *("_CON", "_nul.x", "_com1"),
        "contact",
    ]


def test_long_names_are_cut_between_characters():
    cut = shortened("folder/" + "像" * 100)
    assert cut == "folder/" + "像" * (LONGEST // 3)
