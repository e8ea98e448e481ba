"""Who leaves in the middle, stays away too long, fills the disk, or comes through a tunnel."""

import io
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from browsing import ELSEWHERE, SECONDS, download, enter, needs_a_browser, protect, serving, visit
from owner import write_photographs
from PIL import Image

from semtransforms.app import texts

needs_a_browser()
pytestmark = [pytest.mark.processes]


def wait_until(holds) -> None:
    deadline = time.monotonic() + SECONDS / 1000
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def brought(root: Path) -> list[Path]:
    while True:
        try:
            return [path for path in root.rglob("*") if path.suffix == ".jpg"]
        except FileNotFoundError:  # a folder was removed while it was gone through
            continue


def test_closed_in_the_middle_of_a_fit(browser, served, tmp_path):
    """A fit that nobody waits for would keep the machine busy; what it has reached would be lost with the tab."""
    photos = write_photographs(tmp_path / "photos", each=4)
    server = psutil.Process(served.process.pid)
    page = visit(browser, served.address)
    page.set_input_files("#pick-folder", photos)
    page.wait_for_selector("text=Found: 8 photographs")
    protect(page, 20)
    page.wait_for_selector("text=/Fitting the noise: \\d+ of 60/")
    assert server.children()
    wait_until(lambda: list(served.root.rglob("checkpoint.safetensors")))
    context = page.context
    page.close()
    wait_until(lambda: not brought(served.root))
    wait_until(lambda: not server.children())
    assert list(served.root.rglob("checkpoint.safetensors"))  # what was reached stays, and the seed with it

    page = enter(context, served.address)
    page.wait_for_selector("text=No photographs yet.")
    page.set_input_files("#pick-folder", photos)
    page.wait_for_selector("text=Found: 8 photographs")
    protect(page)
    page.wait_for_selector("text=The fit of 20 minutes that was begun goes on.")
    page.click("#delete")  # in the middle of it, too
    page.wait_for_selector("text=Everything of yours is deleted.")
    assert not list(served.root.rglob("checkpoint.safetensors"))
    assert page.wrong == []
    context.close()


def drop(page, *places: Path) -> None:
    """Let go of files and folders over the page, as from a file manager."""
    box = page.locator("#drop").bounding_box()
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session = page.context.new_cdp_session(page)
    dragged = {"items": [], "files": [str(place) for place in places], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **middle, "data": dragged})


def test_dropped_as_from_a_file_manager(browser, served, tmp_path):
    """A folder that is dropped lost its classes, or a zip beside a file made a class of the folder that holds all."""
    photos = write_photographs(tmp_path / "photos", each=2)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "photos")
    page = visit(browser, served.address)
    drop(page, photos)
    page.wait_for_selector("text=Found: 4 photographs of 2 classes")
    drop(page, Path(shutil.copy(photos / "cat" / "0.jpg", tmp_path / "loose.jpg")), Path(packed))
    page.get_by_label("What is on loose.jpg?").fill("eel")
    page.click("#use-labels")
    page.wait_for_selector("text=Found: 5 photographs of 3 classes")
    page.context.close()


def test_who_was_away_for_too_long_is_told(browser, served, tmp_path):
    """A laptop that slept: each button would say "Error", and nobody would know that the photographs are gone."""
    page = visit(browser, served.address)
    page.set_input_files("#pick-folder", write_photographs(tmp_path / "photos", each=2))
    page.wait_for_selector(".compare")  # what is asked for now, a sleep would cut off
    page.evaluate("window.stop()")  # ends the line by which the page knows that somebody is there
    wait_until(lambda: not brought(served.root))
    page.click("#plan")
    page.wait_for_selector(f"text={texts.GONE}")
    page.reload()
    page.wait_for_selector("text=No photographs yet.")
    page.context.close()


def has_a_disk_of_its_own() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_a_disk_of_its_own(), reason="needs unshare (util-linux) that may mount a tmpfs")
def test_a_disk_that_is_full(browser, tmp_path):
    """Half a photograph, a fit that is lost, or a stack of calls: on a full disk each line says what to do, in turn."""
    photos = write_photographs(tmp_path / "photos", each=4, sizes=((300, 200), (200, 300)))
    size = sum(file.stat().st_size for file in photos.rglob("*.jpg"))
    mounted = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=20m tmpfs "$3" && exec "$@"')
    # the shell's own name, then the command: the root is the third word behind it
    with serving(tmp_path / "page", behind=(*mounted, "sh")) as served:
        disk = Path(f"/proc/{served.process.pid}/root") / served.root.relative_to("/")
        filler = disk / "filler"

        def fill(left: int) -> None:
            """Leave so many bytes of the disk free."""
            filler.unlink(missing_ok=True)
            with filler.open("wb") as written:
                while (free := free_bytes(disk)) > left + 4096:
                    written.write(bytes(min(1 << 20, free - left - 4096)))
                    written.flush()

        page = visit(browser, served.address)
        fill(size // 2)
        page.set_input_files("#pick-folder", photos)
        page.wait_for_selector("text=It cannot be written (No space left on device). Free space on the disk")
        assert 0 < len(brought(disk)) < 8
        assert list(disk.rglob("arriving-*")) == []
        for file in brought(disk):  # those that are there are whole
            assert file.read_bytes() == (photos / file.parent.name / file.name).read_bytes()
        filler.unlink()
        page.set_input_files("#pick-folder", photos)  # again, as the page says
        page.wait_for_selector("text=Found: 8 photographs")

        protect(page, 20)
        page.wait_for_selector("text=/Fitting the noise: \\d+ of 60/")
        fill(0)
        page.wait_for_selector("text=/Not finished: .*No space left on device.*/")
        filler.unlink()
        protect(page)
        page.wait_for_selector("text=The fit of 20 minutes that was begun goes on.")
        page.wait_for_selector("text=Done:")
        archive = download(page, "text=Protected copies as zip (8)")
        check_copies(archive, photos)
        assert page.wrong == []
        page.context.close()


def free_bytes(folder: Path) -> int:
    return psutil.disk_usage(str(folder)).free


def check_copies(archive: zipfile.ZipFile, photos: Path) -> None:
    for file in sorted(photos.rglob("*.jpg")):
        copy = Image.open(io.BytesIO(archive.read(f"published/{file.parent.name}/{file.stem}.png")))
        change = np.abs(np.array(copy).astype(int) - np.array(Image.open(file)))
        assert 0 < change.max() <= 8


def test_through_a_tunnel(browser, tmp_path):
    """``--share``: the page under another name, where everything of a visitor goes with them, and it says so.

    Gradio's own page for it takes its script from elsewhere, which could send away what visitors bring.
    """
    photos = write_photographs(tmp_path / "photos", each=2)
    with serving(tmp_path / "page", f"http://{ELSEWHERE}") as served:
        assert served.address == f"https://{ELSEWHERE}"
        assert any("whole internet" in line for line in served.said)
        (port,) = {
            each.laddr.port for each in psutil.Process(served.process.pid).net_connections() if each.status == "LISTEN"
        }
        page = visit(browser, f"http://{ELSEWHERE}:{port}/")
        page.wait_for_selector(f"text={texts.PUBLIC}")
        page.wait_for_selector("text=no public page should protect on request with the generator of a real protection")
        page.set_input_files("#pick-folder", photos)
        page.wait_for_selector(".compare")
        assert str(served.root) not in page.content()
        (folder,) = (served.root / "public-visitors").iterdir()
        (folder / "private").mkdir()
        page.close()
        wait_until(lambda: not folder.exists())
        assert page.wrong == []
        page.context.close()
