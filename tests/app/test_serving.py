"""What the page shows and sends, what it says of itself, and what a full disk leaves; without a browser."""

import errno
import html
import io
import os
import re
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from owner import write_photographs
from PIL import Image
from typer.testing import CliRunner

from semtransforms.app import looking, serving, showing
from semtransforms.app import visitors as holding
from semtransforms.app.jobs import Bar, Job
from semtransforms.app.visitors import Visitors, Wish
from semtransforms.cli import app
from semtransforms.evaluation.report.page import STYLE


@pytest.fixture
def visitors(tmp_path: Path):
    visitors = Visitors(tmp_path / "root", keeps=True, worker=())
    with visitors.open():
        yield visitors


def picture(visitor, name: str) -> np.ndarray:
    return np.array(Image.open(visitor.shown / name)).astype(int)


def test_the_preview_is_of_the_photograph_within_the_radius(visitors):
    """A preview that shows other pixels, or more noise than is published, tells an owner nothing."""
    visitor = visitors.enter(None, "a")
    write_photographs(visitor.photographs, each=2, sizes=((900, 600), (64, 80)))
    assert looking.choices(looking.find(visitor))[0] == ("cat/0.jpg", 0)
    seen = {}
    for wish in (Wish(8), Wish(2), Wish(8, visibility=0)):
        shown = looking.show(visitor, 0, wish)
        clean, copy, noise = (picture(visitor, name) for name in shown.files)
        whole = np.array(Image.open(visitor.photographs / "cat" / "0.jpg")).astype(int)
        assert np.array_equal(clean, whole[30:570, 90:810])  # the middle, pixel for pixel
        change = copy - clean
        assert 0 < np.abs(change).max() <= wish.rho_u
        assert np.array_equal(noise, np.clip(128 + 16 * change, 0, 255))
        assert f"up to {np.abs(change).max()} of 255" in shown.numbers
        seen[wish] = np.sqrt((change**2).mean())
        assert f"{seen[wish]:.1f} root mean square" in shown.numbers
        assert not shown.is_published
    assert seen[Wish(8)] > 6  # near the bound, as that of a whole fit is
    assert seen[Wish(2)] < 2
    small = looking.show(visitor, 1, Wish(8))
    assert small.size == (64, 80)


def test_how_long_it_takes_is_said_meanwhile(visitors):
    """A bar that does not say when it ends is watched for twenty minutes."""
    visitor = visitors.enter(None, "a")
    visitor.job = Job({}, bar=Bar("fit sem-plus", 100, 400, 2.5))
    told = showing.work(visitor, [])
    assert "Fitting the noise: 100 of 400" in told
    assert "about 2 min left in this step" in told  # 300 of them, 2.5 a second
    assert 'max="400" value="100"' in told
    visitor.job.waits = True
    assert "another visitor's photographs" in html.unescape(showing.work(visitor, [])).lower()


def test_all_that_is_read_stands_in_one_file():
    """Who translates it would miss a sentence that a template or the script has of its own."""
    folder = Path(showing.__file__).parent
    for file in sorted((folder / "sections").glob("*.jinja")):
        text = re.sub(r"\{[{%].*?[%}]\}", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search("[A-Za-z]{2}", re.sub("<[^>]*>|&nbsp;", "", text)), file.name
        assert re.findall(r'(?:alt|title|placeholder|aria-label)="([^"]+)"', text) == [], file.name
    for file in ("page.py", "page.js"):
        sentences = re.findall(r"""(["'`])([A-Z][a-z]+ [a-z ]+)\1""", (folder / file).read_text(encoding="utf-8"))
        assert sentences == [], file


def test_page_and_report_have_one_stylesheet():
    """Two designs of one thing drift apart, and one of them is forgotten in the dark."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'semtransforms[app]'")
    from semtransforms.app.page import head

    style = STYLE.read_text(encoding="utf-8")
    assert "color-scheme: light dark" in style
    assert style in head()


def test_a_thumbnail_opens_what_is_refused_nowhere_else(tmp_path):
    """A picture beside a field is decoded before anybody has looked at the file."""
    file = tmp_path / "a.png"
    Image.new("RGB", (300, 400)).save(file)
    assert max(Image.open(io.BytesIO(looking.thumbnail(file))).size) == 160
    file.write_bytes(b"<html>")
    with pytest.raises(OSError, match="cannot identify"):
        looking.thumbnail(file)


def test_what_is_missing_or_taken_is_said_in_a_line(tmp_path, monkeypatch, visitors):
    """A traceback of Gradio's, or of an import, tells nobody what to install or choose."""
    with monkeypatch.context() as patched:
        patched.setattr(serving, "find_spec", lambda _: None)
        result = CliRunner().invoke(app, ["app", "--cache-dir", str(tmp_path / "other")])
        assert result.exit_code == 2
        assert "pip install 'semtransforms[app]'" in result.stderr
        assert not (tmp_path / "other").exists()
    pytest.importorskip("gradio", reason="needs gradio: pip install 'semtransforms[app]'")
    result = CliRunner().invoke(app, ["app", "--cache-dir", str(visitors.root.parent)])
    assert result.exit_code == 2
    assert "is being written by another process" in result.stderr


@pytest.mark.parametrize("shared", [None, "https://as-if.gradio.live"])
def test_what_a_tunnel_means_is_said_and_when_there_is_none(shared, monkeypatch, tmp_path):
    """Without a network Gradio opens none, and who waits for visitors at the address of this machine waits for ever."""
    gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'semtransforms[app]'")
    monkeypatch.setenv("GRADIO_SHARE", "True")  # no flag
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda _: None)
    given: dict[str, Any] = {}

    def launch(self, **options):
        given.update(options)
        return None, "http://127.0.0.1:7860/", shared if options["share"] else None

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    said: list[str] = []
    serving.serve(root=tmp_path / "here", say=said.append)
    assert said == ["The page: http://127.0.0.1:7860/ (Ctrl-C ends it)"]
    assert (given["share"], given["server_name"]) == (False, "127.0.0.1")
    said.clear()
    serving.serve(root=tmp_path / "there", share=True, say=said.append)
    assert given["share"] is True
    assert "whole internet" in said[0]
    assert ("there is no tunnel" in " ".join(said)) is (shared is None)
    assert (shared or "http://127.0.0.1:7860/") in said[-1]
    assert (tmp_path / "there" / "public-visitors").is_dir()  # all of a visitor's goes with them


@pytest.fixture
def routes():
    pytest.importorskip("starlette", reason="comes with gradio: pip install 'semtransforms[app]'")
    from semtransforms.app import routes

    return routes


@pytest.fixture
def client(routes, visitors):
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    return TestClient(Starlette(routes=routes.routes(visitors)))


def test_a_full_disk_is_told_and_leaves_nothing(routes, client, visitors, monkeypatch):
    """Half a photograph would be protected and published as if it were whole."""
    visitor = visitors.enter(None, "a")
    sent = f"/semtransforms/{visitor.token}/bring?batch=1&path=cat/1.png"
    assert client.post(sent, content=b"whole").status_code == 204

    async def fill(stream, file: Path, *_) -> bool:
        file.write_bytes(b"ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(routes, "_receive", fill)
    assert client.post(sent.replace("1.png", "2.png"), content=b"half").status_code == 204
    assert [path.name for path in visitor.folder.rglob("*") if path.is_file()] == ["1.png"]
    (note,) = visitor.notes
    assert "2.png" in note
    assert "Free space on the disk" in note


def test_no_more_than_was_allowed(routes, client, visitors, monkeypatch):
    """One visitor could fill the disk for all."""
    monkeypatch.setattr("semtransforms.app.visitors.MOST_BYTES", 1_000)
    visitor = visitors.enter(None, "a")
    for name in ("1.png", "2.png"):
        client.post(f"/semtransforms/{visitor.token}/bring?batch=1&path=cat/{name}", content=bytes(600))
    visitor.sort_in()
    assert visitor.classes == ["cat"]
    assert [path.name for path in visitor.photographs.rglob("*.png")] == ["1.png"]
    assert "2.png" in visitor.notes[0]
    assert client.post("/semtransforms/nobody/bring?path=1.png", content=b"x").status_code == 404


def test_all_visitors_together_are_bounded(routes, monkeypatch, tmp_path):
    """Each has a bound of their own; twenty of them would fill the disk of a public page all the same."""
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    monkeypatch.setattr(holding, "MOST_TOGETHER", 3_300)
    monkeypatch.setattr(holding, "MOST_VISITORS", 3)
    for keeps in (False, True):
        visitors = Visitors(tmp_path / str(keeps), keeps=keeps, worker=())
        with visitors.open():
            client = TestClient(Starlette(routes=routes.routes(visitors)))
            all_three = [visitors.enter(None, name) for name in "abc"]
            for visitor in all_three:
                for name in ("1.png", "2.png"):
                    client.post(f"/semtransforms/{visitor.token}/bring?batch=1&path=cat/{name}", content=bytes(600))
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("cat/3.png", bytes(600))
            last = all_three[2]
            client.post(f"/semtransforms/{last.token}/bring?batch=1&path=3.zip", content=archive.getvalue())
            last.sort_in()
            found = sorted(path.name for path in visitors.root.rglob("*.png"))
            if keeps:  # one's own machine, whose disk is the bound
                assert found == ["1.png"] * 3 + ["2.png"] * 3 + ["3.png"]
                continue
            assert found == ["1.png"] * 3 + ["2.png"] * 2
            note, of_archive = last.notes
            assert "2.png, since all visitors together fill" in note
            assert "Come back later" in note
            assert "Bring fewer photographs" in of_archive
            with pytest.raises(ValueError, match="3 visitors are here, the most"):
                visitors.enter(None, "d")
            assert visitors.enter(last.token, "d") is last  # who is here may load the page again
            all_three[0].forget_all()
            visitors.weigh()
            client.post(f"/semtransforms/{last.token}/bring?batch=2&path=dog/2.png", content=bytes(600))
            last.sort_in()
            assert last.classes == ["cat", "dog"]


def test_a_protection_that_fills_a_public_page_is_stopped(monkeypatch, tmp_path):
    """Copies are larger than what was brought; one visitor's would take the room of all, and of the machine."""
    monkeypatch.setattr(holding, "MOST_TOGETHER", 3_000)
    visitors = Visitors(tmp_path, keeps=False, worker=(sys.executable, "-c", "input(); input()"))
    with visitors.open():
        visitor = visitors.enter(None, "a")
        (copies := visitor.published(Wish())).mkdir(parents=True)
        visitor.protect(Wish(), 1, visitors.worker, visitors.turn)
        (copies / "1.png").write_bytes(bytes(2_000))
        visitors.weigh()
        assert visitor.is_busy
        (copies / "2.png").write_bytes(bytes(2_000))
        visitors.weigh()
        while visitor.is_busy:
            time.sleep(0.02)
        assert "all visitors together fill" in visitor.job.error
        assert "all visitors together fill" in showing.work(visitor, [])


def test_a_folder_comes_whole_through_a_stream(routes, tmp_path):
    """An archive that is made while it is sent, and cannot be unpacked, is found out at home."""
    for name, data in (('cat/🐈 "1".png', b"x" * 3_000_000), ("dog/2.png", b""), ("protection.json", b"{}")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    parts = list(routes.zipped(tmp_path, "published"))
    assert max(map(len, parts)) < 2_000_000  # however large the folder is
    archive = zipfile.ZipFile(io.BytesIO(b"".join(parts)))
    assert archive.testzip() is None
    assert {name: len(archive.read(name)) for name in archive.namelist()} == {
        "published/cat/🐈 \"1\".png": 3_000_000, "published/dog/2.png": 0, "published/protection.json": 2,
    }  # fmt: skip
