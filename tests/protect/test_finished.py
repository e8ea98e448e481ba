"""The list of finished files on the disk: a dictionary, but for its memory."""

from __future__ import annotations

import random

import pytest

from semtransforms.protect import finished
from semtransforms.protect.finished import Finished


def test_it_answers_as_a_dictionary_does(monkeypatch: pytest.MonkeyPatch):
    """A file that is forgotten is made anew; one that is not stays in a copy from which its owner took it."""
    monkeypatch.setattr(finished, "_AT_ONCE", 7)
    draw, ours, wanted = random.Random(0), Finished(), {}
    names = [f"cat/{number:03d}.png" for number in range(300)] + ["cat/\udcff.png", "'; --"]
    names += [f"CAT/{number:03d}.png" for number in range(100)] + ["cat/ö.png", "cat/Ö.png"]
    for round_ in range(4):
        for name in draw.choices(names, k=250):
            ours[name] = wanted[name] = f"{name!r} {round_}"
        assert all(ours.get(name) == wanted.get(name) for name in names)
        assert sorted(ours.lines()) == sorted(wanted.values())
        kept = draw.sample(sorted(wanted), 60)
        gone = dict(ours.keep_only(kept))
        assert sorted(gone) == sorted(wanted.keys() - set(kept))
        # one and the same file where case does not count: to remove the one would take the other
        alike = {name: [each for each in kept if each.lower() == name.lower()] for name in gone}
        assert all(twin in alike[name] if alike[name] else twin is None for name, twin in gone.items())
        wanted = {name: wanted[name] for name in kept}
    assert [name for name, _ in ours.keep_only([])] == sorted(wanted)
    assert not list(ours.lines())
    ours.close()


def test_a_full_folder_for_temporary_files_is_told():
    """A traceback of SQLite's, after a week of work."""
    ours = Finished()
    ours._table.execute("PRAGMA max_page_count = 20")

    def fill() -> None:
        for number in range(10_000):
            ours[f"{number}.png"] = "x" * 100

    with pytest.raises(OSError, match=r"finished files cannot be kept .*full.* TMPDIR"):
        fill()
