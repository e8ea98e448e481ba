"""The page in a browser, as a person uses it: a journey, a stop, two people, wrong files, a narrow and dark screen."""

import io
import re
import shutil
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from browsing import SECONDS, bomb_of_pixels, download, needs_a_browser, protect, visit
from owner import write_photographs
from PIL import Image
from quick_page import MINUTES

needs_a_browser()
pytestmark = [pytest.mark.processes]


def with_place(file: Path) -> None:
    """Write into a photograph where it was taken."""
    image = Image.open(file)
    exif = image.getexif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.9)})
    exif[0x8825] = exif.get_ifd(0x8825)
    exif[0x010E] = "secret place"
    image.save(file, exif=exif, quality=90)
    assert b"secret place" in file.read_bytes()


def test_from_three_photographs_to_a_copy(browser, address, tmp_path):
    """The whole journey: typed classes, a plan, protection, a verdict, and bytes within the bound of the originals."""
    photos = write_photographs(tmp_path / "photos", each=2)
    with_place(photos / "cat" / "0.jpg")
    files = [shutil.copy(file, tmp_path / f"{file.parent.name}-{file.name}") for file in sorted(photos.rglob("*.jpg"))]
    page = visit(browser, address)
    page.set_input_files("#pick-files", files[:3])
    page.wait_for_selector(".labels li >> nth=2")
    for file in files[:3]:
        page.get_by_label(f"What is on {file.name}?").fill(file.name.partition("-")[0])
    page.click("#use-labels")
    page.wait_for_selector(".compare")
    page.click("#plan")
    page.wait_for_selector("text=1 of the 2 classes have fewer than 2 photographs")
    page.set_input_files("#pick-files", files[3])
    page.get_by_label(f"What is on {files[3].name}?").fill("dog")
    page.click("#use-labels")
    page.wait_for_selector("text=Found: 4 photographs of 2 classes")

    page.click("#plan")
    page.wait_for_selector("text=Expected: fit")
    page.fill("#minutes input", str(MINUTES))
    page.click("#plan")
    page.wait_for_selector("text=Warning: a class has 2 photographs")
    slider = page.locator(".compare input")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".compare").evaluate("e => e.style.getPropertyValue('--at')") == "0%"

    protect(page)
    page.wait_for_selector("text=Done:")
    page.wait_for_selector("text=A small network that trained on")
    assert page.locator(".bars").count() == 4  # at two sizes, in colour and grey
    not_tried = page.inner_text("text=Trainers that an owner must know")
    assert "jpeg-75" in not_tried
    assert "greyscale" not in not_tried
    page.wait_for_selector("text=This is the copy that you publish")

    archive = download(page, "text=Protected copies as zip (4)")
    names = [f"published/{file.name.partition('-')[0]}/{file.stem}.png" for file in files]
    assert sorted(archive.namelist()) == sorted([*names, "published/protection.json"])
    for file, name in zip(files, names, strict=True):
        assert b"secret place" not in archive.read(name)
        clean, copy = np.array(Image.open(file)).astype(int), np.array(Image.open(io.BytesIO(archive.read(name))))
        assert 0 < np.abs(copy - clean).max() <= 8
        assert Image.open(io.BytesIO(archive.read(name))).getexif() == {}
    secret = download(page, "text=Private folder as zip").namelist()
    assert any(name.endswith("generator/config.json") for name in secret)
    assert not set(archive.namelist()) & set(secret)
    report = page.get_attribute("text=Open the full report", "href")
    answer = page.request.get(address + report)
    assert "What a trainer still learns" in answer.text()
    assert "sandbox" in answer.headers["content-security-policy"]

    page.reload()
    page.wait_for_selector("text=Done:")
    page.wait_for_selector("text=Found: 4 photographs of 2 classes")
    assert page.wrong == []
    page.context.close()


def test_the_page_listens_here_alone(address):
    """Whoever is in the same network would see, and protect with, what lies on the owner's machine."""
    port = int(re.search(r":(\d+)", address.removeprefix("http:"))[1])
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 5)  # this machine too, but another address


def test_stopped_and_left_it_goes_on(browser, address, tmp_path):
    """Who stops, or closes the tab in the middle of a fit and comes back, would begin anew or find nothing."""
    photos = write_photographs(tmp_path / "photos", each=4)
    page = visit(browser, address)
    page.set_input_files("#pick-folder", photos)
    page.wait_for_selector("text=Found: 8 photographs")
    protect(page, 20)
    page.wait_for_selector("text=/Fitting the noise: \\d+ of 60/")
    page.click("#stop")
    page.wait_for_selector("text=Stopped.")
    assert page.is_enabled("#start")
    protect(page)
    page.wait_for_selector("text=The fit of 20 minutes that was begun goes on.")

    context = page.context
    page.close()  # in the middle of it, and back at once
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(address)
    page.wait_for_selector("text=Found: 8 photographs")
    page.wait_for_selector("text=Done:")
    context.close()


def test_two_people_see_nothing_of_each_other(browser, address, tmp_path):
    """One visitor's photographs, generator or seed in another's hands undo the protection."""
    photos = write_photographs(tmp_path / "photos", each=2)
    one, two = (visit(browser, address) for _ in range(2))
    one.set_input_files("#pick-folder", photos)
    one.wait_for_selector(".compare")
    picture = one.get_attribute(".compare img", "src")
    assert one.request.get(address + picture).ok
    two.reload()
    two.wait_for_selector("text=No photographs yet.")
    assert two.locator(".compare").count() == 0
    token, other = (each.get_attribute("#drop", "data-base") for each in (one, two))
    assert token != other
    assert two.request.get(address + picture.replace(token, other)).status == 404
    assert two.request.get(address + f"{other}/shown/..%2f..%2fphotographs%2fcat%2f0.jpg").status == 404
    one.close()
    deadline = time.monotonic() + 30
    while two.request.get(address + picture).ok and time.monotonic() < deadline:
        time.sleep(0.2)
    assert two.request.get(address + picture).status == 404  # deleted, since its owner left
    two.context.close()


def test_wrong_files_are_told_and_the_others_protected(browser, address, root, tmp_path):
    """One broken file among hundreds would stop everything, or be left out without a word."""
    photos = write_photographs(tmp_path / "photos", each=2)
    odd = 'it\'s "my" <b>🐈.jpg'
    shutil.copy(photos / "cat" / "0.jpg", photos / "cat" / odd)
    (photos / "dog" / "page.jpg").write_bytes(b"<html><script>alert(1)</script></html>")
    (photos / "dog" / "huge.png").write_bytes(bomb_of_pixels(100_000))
    (photos / "dog" / "notes.txt").write_text("x")
    slip = tmp_path / "slip.zip"
    with zipfile.ZipFile(slip, "w") as archive:
        archive.writestr("../../evil.png", b"x")
    page = visit(browser, address)
    page.set_input_files("#pick-folder", photos)
    page.wait_for_selector("text=Found: 5 photographs of 2 classes")
    page.set_input_files("#pick-files", slip)
    page.wait_for_selector("text=Its name leads elsewhere")
    told = page.inner_text("body")
    assert "dog/page.jpg (it is no image of a known format)" in told
    assert "100000x100000 are 10000.0 megapixels" in told
    assert "notes.txt. By its name it is no image" in told
    assert str(root) not in told
    assert list(root.parent.rglob("evil*")) == []
    page.get_by_label("JPEG, a fifth as large").check()
    page.wait_for_selector("#quality")
    protect(page)
    page.wait_for_selector("text=Done:")
    told = page.inner_text("body")
    assert "Not protected: dog/page.jpg" in told
    assert "as measured: JPEG adds its own changes" in told
    archive = download(page, "text=Protected copies as zip (5)")
    assert f"published/cat/{odd}" in archive.namelist()
    page.click("#delete")
    page.wait_for_selector("text=Everything of yours is deleted.")
    page.wait_for_selector("text=No photographs yet.")
    assert page.wrong == []
    page.context.close()


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_dark_and_by_keyboard(browser, address, tmp_path, scheme):
    """A page that scrolls sideways on a telephone, blinds at night, or has fields without a name, is closed again."""
    photos = write_photographs(tmp_path / "photos", each=2, sizes=((900, 400), (500, 700)))
    page = visit(browser, address, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.set_input_files("#pick-folder", photos)
    page.wait_for_selector(".compare")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground, ink = (
        page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{kind}")
        for part, kind in (("body", "backgroundColor"), ("h1", "color"))
    )
    assert (brightness(ground) < brightness(ink)) is (scheme == "dark")
    assert abs(brightness(ground) - brightness(ink)) > 150
    assert page.evaluate("[...document.images].filter(e => !e.alt && e.offsetParent).map(e => e.src)") == []
    nameless = """[...document.querySelectorAll('input, select, textarea, button')].filter(e => e.offsetParent
      && !(e.labels && e.labels.length) && !e.ariaLabel && !e.innerText.trim() && !e.title).map(e => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.id || (e.closest('[id]') || e).id)(document.activeElement)"))
    assert {"pick-files", "pick-folder", "plan", "start", "delete"} <= reached
    page.context.close()
