"""Visitors: what is theirs alone, what goes when they leave, and what a stop costs."""

import sys
import threading
import time
from pathlib import Path

import pytest
from owner import tree, write_photographs

from semtransforms.app.visitors import Visitor, Visitors, Wish

QUICK = (sys.executable, str(Path(__file__).with_name("quick_page.py")), "worker")


def bring(visitor: Visitor) -> None:
    write_photographs(visitor.photographs, each=2)
    for name in ("private", "published"):
        (visitor.folder / name).mkdir()
        (visitor.folder / name / "file").write_bytes(b"x")


def remaining(visitor: Visitor) -> set[str]:
    return {path.name for path in visitor.folder.iterdir()} if visitor.folder.is_dir() else set()


@pytest.mark.parametrize(("keeps", "left"), [(True, {"private", "published"}), (False, set())])
def test_what_was_brought_goes_with_its_owner(tmp_path, keeps, left):
    """On a public machine a generator that is left behind undoes the protection of whoever has gone."""
    visitors = Visitors(tmp_path / "root", keeps=keeps, worker=())
    with visitors.open():
        one, two = visitors.enter(None, "a"), visitors.enter(None, "b")
        bring(one)
        bring(two)
        visitors.leave("a")
        visitors.sweep(after=60)
        assert "photographs" in remaining(one)  # a page that is loaded again comes back
        visitors.enter(one.token, "c")
        visitors.sweep(after=0)
        assert "photographs" in remaining(one)
        visitors.leave("c")
        visitors.sweep(after=0)
        assert remaining(one) == left
        assert "photographs" in remaining(two)
        with pytest.raises(ValueError, match="Load it again"):
            visitors.get(one.token)
        again = visitors.enter(one.token, "d")
        assert (again.folder == one.folder) is keeps
    assert remaining(two) == left  # the page has ended


def test_nobody_comes_to_anothers_by_guessing(tmp_path):
    """A token that is no token of ours would lead out of the folder, or into another visitor's."""
    visitors = Visitors(tmp_path / "root", keeps=True, worker=())
    with visitors.open():
        one = visitors.enter(None, "a")
        bring(one)
        for token in ("", "..", one.folder.name, one.token[:-1], "A" * 22):
            assert visitors.enter(token, "b").folder != one.folder
        assert one.token not in " ".join(path.name for path in visitors.root.iterdir())
        with (
            pytest.raises(ValueError, match="another process"),
            Visitors(tmp_path / "root", keeps=True, worker=()).open(),
        ):
            pass


def test_what_a_killed_page_left_behind_goes(tmp_path):
    """Photographs of somebody who left long ago would lie there for ever."""
    killed = Visitor("", tmp_path / "root" / "visitors" / ("0123" * 8))
    bring(killed)
    with Visitors(tmp_path / "root", keeps=True, worker=()).open():
        assert remaining(killed) == {"private", "published"}


def test_other_classes_and_radii_get_another_generator(tmp_path):
    """Noise is made for a class and a radius: the journey refuses another's generator, and the visitor is stuck."""
    visitor = Visitor("", tmp_path)
    write_photographs(visitor.photographs, each=2)
    places = [visitor.private(Wish()), visitor.private(Wish(rho_u=4)), visitor.published(Wish())]
    places += [visitor.published(Wish(visibility=0)), visitor.published(Wish(format="jpeg"))]
    assert visitor.private(Wish(visibility=0)) == places[0]
    (visitor.photographs / "eel").mkdir()
    assert len({*places, visitor.private(Wish())}) == 6


@pytest.mark.processes
def test_a_stop_goes_on_with_the_same_generator(tmp_path):
    """Who stops, or closes the tab, would lose twenty minutes, or publish noise of two generators."""
    turn = threading.Lock()
    visitor = Visitor("", tmp_path / "visitor")
    write_photographs(visitor.photographs, each=4)
    visitor.protect(Wish(), 20, QUICK, turn)
    job, private = visitor.job, visitor.private(Wish())
    while not list(private.rglob("checkpoint.safetensors")):
        assert job.is_running, job.error
        time.sleep(0.02)
    job.stop()
    while job.is_running:
        time.sleep(0.02)
    assert job.is_stopped
    assert (job.result, job.error) == (None, None)
    (plan,) = private.rglob("plan.json")
    kept = plan.read_bytes()
    visitor.protect(Wish(), 5, QUICK, turn)
    while visitor.job.is_running:
        time.sleep(0.05)
    assert visitor.job.error is None
    assert "The fit of 20 minutes that was begun goes on." in visitor.job.lines
    assert plan.read_bytes() == kept
    assert visitor.job.result["failed"] == []
    assert len(tree(visitor.published(Wish()))) == 9
    assert visitor.job.bar.total == visitor.job.bar.done


@pytest.mark.processes
def test_what_goes_wrong_is_told(tmp_path):
    """A job that ends without a word leaves the page waiting for ever."""
    visitor = Visitor("", tmp_path / "visitor")
    write_photographs(visitor.photographs, each=1)
    for worker, word in (
        (QUICK, "fewer than 2"),
        ((sys.executable, "-c", "raise SystemExit(7)"), "code 7"),
        (("no-such",), "no-such"),
    ):
        visitor.protect(Wish(), 1, worker, threading.Lock())
        while visitor.job.is_running:
            time.sleep(0.05)
        assert word in visitor.job.error


def test_one_works_at_a_time(tmp_path):
    """Two fits on two cores take twice the planned minutes and twice the memory."""
    turn, visitor = threading.Lock(), Visitor("", tmp_path)
    with turn:
        visitor.protect(Wish(), 1, ("no-such",), turn)
        deadline = time.monotonic() + 10
        while not visitor.job.waits and time.monotonic() < deadline:
            time.sleep(0.02)
        assert visitor.job.waits
        visitor.job.stop()
    while visitor.job.is_running:
        time.sleep(0.02)
    assert visitor.job.error is None


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_not_of_visitors_stays(tmp_path: Path, keeps: bool):
    """`--cache-dir ~` would delete the owner's documents; a public page, what they keep of their own one."""
    kept = tmp_path / "Documents" / "photographs" / "thesis.jpg", tmp_path / "visitors" / "0" / "private" / "seed.json"
    own = tmp_path / "visitors" / ("a" * 32) / "private" / "seed.json"
    for file in (*kept, own):
        file.parent.mkdir(parents=True)
        file.touch()
    with Visitors(tmp_path, keeps=keeps, worker=()).open():
        pass
    assert all(file.exists() for file in (*kept, own))
