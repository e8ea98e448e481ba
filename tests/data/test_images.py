"""Decoding and colour modes against PIL and hand-computed values."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision import transforms, tv_tensors
from torchvision.datasets import FakeData
from torchvision.transforms import v2

from semtransforms.data.images import (
    UNDECODABLE,
    as_pixels,
    check_labels,
    encode_png,
    size_in_header,
    to_pil,
    to_rgb,
)
from semtransforms.data.raw import read_samples, take_off_transforms, unwrap_subsets, wrapped
from semtransforms.protect.making import carries_metadata

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chw(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def test_a_photograph_comes_out_in_order():
    """It is copied strip by strip; a strip at a wrong place would be protected, and published, as it is."""
    photograph = RNG.integers(0, 256, (701, 800, 3), dtype=np.uint8)  # two strips and a part of one
    pixels, alpha = to_rgb(Image.fromarray(photograph))
    assert torch.equal(pixels, chw(photograph))
    assert alpha is None
    assert np.array_equal(np.asarray(to_pil(pixels)), photograph)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_opaque_modes_convert_as_pil_does(mode):
    """A colour mode comes out in other colours than every other program shows."""
    image = Image.fromarray(RGB).convert(mode)
    pixels, alpha = to_rgb(image)
    assert torch.equal(pixels, chw(np.asarray(image.convert("RGB"))))
    assert alpha is None


def test_a_tiff_of_ycbcr_is_read_by_every_pillow():
    """Pillow 12.3, which Gradio asks for, says of the files that it writes itself that they are cut."""
    file, image = io.BytesIO(), Image.fromarray(RGB).convert("YCbCr")
    image.save(file, "TIFF")
    assert torch.equal(to_rgb(Image.open(file)).pixels, chw(np.asarray(image.convert("RGB"))))
    cut = io.BytesIO(file.getvalue()[:-9])
    with pytest.raises(OSError, match="truncated"):
        to_rgb(Image.open(cut))


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_alpha_is_kept_beside_the_pixels(mode):
    """Transparency is lost, or the colour under a transparent pixel changes."""
    rgba = np.dstack([RGB, RNG.integers(0, 256, (5, 7), dtype=np.uint8)])
    image = Image.fromarray(rgba).convert("LA") if mode != "RGBA" else Image.fromarray(rgba)
    image = image.convert(mode)
    expected = np.asarray(image.convert("RGBA"))
    pixels, alpha = to_rgb(image)
    assert torch.equal(pixels, chw(expected[..., :3]))
    assert torch.equal(alpha, torch.from_numpy(expected[..., 3].copy())[None])
    again = to_pil(pixels, alpha)
    assert again.mode == "RGBA"
    assert np.array_equal(np.asarray(again), expected)


def test_palette_with_transparency():
    """The transparent colour of a GIF or PNG palette becomes opaque."""
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.info["transparency"] = 2
    pixels, alpha = to_rgb(image)
    assert pixels[:, 0, 1].tolist() == [40, 50, 60]
    assert alpha[0].tolist() == [[255, 255], [0, 255]]


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.int32, "I")])
def test_16_bit_is_scaled_not_clipped(dtype, mode):
    """PIL's own conversion clips at 255: a 16-bit scan becomes white."""
    values = np.array([[0, 128, 129], [257, 30000, 65535]])
    image = Image.fromarray(values.astype(dtype))
    assert image.mode == mode
    expected = np.rint(values / 65535 * 255).astype(np.uint8)
    pixels, alpha = to_rgb(image)
    assert alpha is None
    for channel in pixels:
        assert np.array_equal(channel.numpy(), expected)
    if mode == "I;16":
        file = io.BytesIO()
        image.save(file, "PNG")
        assert np.array_equal(to_rgb(Image.open(file)).pixels[0].numpy(), expected)


def test_images_without_a_known_range_are_refused():
    """A float image is read with a guessed range, and the radius means nothing."""
    with pytest.raises(TypeError, match="mode F"):
        to_rgb(Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"70000.*0\.\.65535"):
        to_rgb(Image.fromarray(np.full((2, 2), 70000, np.int32)))


@pytest.mark.parametrize(
    ("orientation", "by_hand"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: a.transpose(1, 0, 2)[:, ::-1]),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: a.transpose(1, 0, 2)[::-1]),
    ],
)
def test_exif_orientation_is_applied(orientation, by_hand):
    """A phone's photograph lies on its side once its EXIF is dropped."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", exif=exif)
    assert torch.equal(to_rgb(Image.open(file)).pixels, chw(by_hand(RGB)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "MPO"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_the_size_in_the_header_is_the_decoded_one(kind, orientation):
    """Noise of a photograph that lies on its side would be made for the wrong shape, or its file be decoded twice."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, kind, **({} if orientation is None or kind == "BMP" else {"exif": exif}))
    decoded = tuple(to_rgb(Image.open(file)).pixels.shape[1:])
    found = size_in_header(file.getvalue())
    unsaid = kind in ("TIFF", "BMP") or (kind == "PNG" and orientation is not None)
    assert found == (None if unsaid else decoded)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_cut_file_does_not_pass_by_its_header(kind, thumbnail):
    """A download that broke off shows after hours of noise, when its turn comes; a thumbnail's end is not its end."""
    pixels = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    small, file = io.BytesIO(), io.BytesIO()
    Image.fromarray(RGB).save(small, "JPEG")
    extra = {"exif": b"Exif\x00\x00" + small.getvalue()} if thumbnail and kind == "JPEG" else {}
    Image.fromarray(pixels).save(file, kind, **extra)
    data = file.getvalue()
    assert size_in_header(data) == (40, 40)
    assert all(size_in_header(data[:length]) is None for length in range(0, len(data) - 12, 37))


def test_a_wrong_checksum_does_not_pass_by_the_header():
    """A bit that flipped on the disk would end the run in the middle of its noise."""
    data = bytearray(encode_png(chw(RGB)))
    assert size_in_header(bytes(data)) == (5, 7)
    data[len(data) // 2] ^= 1
    assert size_in_header(bytes(data)) is None
    empty = encode_png(chw(RGB))[:33] + b"\x00\x00\x00\x00IEND\xaeB`\x82"  # a header, and no pixels
    assert size_in_header(empty) is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_pixels_are_not_taken_for_a_damaged_field():
    """Reading a PNG's EXIF decodes it; with that error swallowed, half a photograph would be published black."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    damaged = bytearray(file.getvalue())
    damaged[6000:6040] = bytes(255 - value for value in damaged[6000:6040])
    with pytest.raises((OSError, SyntaxError)):
        np.asarray(Image.open(io.BytesIO(damaged)))  # the oracle
    with pytest.raises((OSError, SyntaxError)):
        to_rgb(Image.open(io.BytesIO(damaged)))


def test_damaged_exif_does_not_lose_the_image():
    """One broken tag makes a readable photograph unreadable."""
    image = Image.fromarray(RGB)
    image.info["exif"] = b"Exif\x00\x00II*\x00garbage"
    assert torch.equal(to_rgb(image).pixels, chw(RGB))
    image.info["exif"] = b"nothing like EXIF"
    assert torch.equal(to_rgb(image).pixels, chw(RGB))


ORIENTATION = (0x0112, 3, 1, 6)  # tag, type, count, value: to be turned clockwise


def with_exif(jpeg, *fields):
    """The same file with these fields, whatever they say, as cameras write it: little-endian TIFF in front."""
    table = b"".join(struct.pack("<HHII", *field) for field in sorted(fields))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(fields)) + table + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpeg[2:]


@pytest.mark.filterwarnings("ignore")  # of Pillow's, about what it skips
@pytest.mark.parametrize("kind", [*range(14), 255])
def test_no_field_of_any_type_stops_or_turns_a_photograph(kind):
    """One odd field of one photograph ended the run with a traceback, and nothing was written."""
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "JPEG", quality=95)
    turned = chw(np.rot90(np.asarray(Image.open(file)), -1))
    tags = {*map(int, ExifTags.Base), *map(int, ExifTags.IFD), 0, 1, 2, 0xFFFF} - {-1, ORIENTATION[0]}
    for tag in sorted(tags):
        for count, value in ((1, 1), (9, 2**32 - 1)):
            odd = with_exif(file.getvalue(), ORIENTATION, (tag, kind, count, value))
            said = f"tag {tag:#x} of type {kind}, {count} from {value}"
            with Image.open(io.BytesIO(odd)) as image:
                assert carries_metadata(image), said
                assert torch.equal(to_rgb(image).pixels, turned), said
            assert size_in_header(odd) in (None, (7, 5)), said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*range(14), 255])
def test_an_orientation_of_any_type_is_one_or_none(kind):
    """The field that is read: text, fractions or many numbers where one should be."""
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "JPEG")
    for count, value in ((1, 6), (1, 9), (0, 0), (2, 6), (5, 8), (2**30, 8)):
        odd = with_exif(file.getvalue(), (ORIENTATION[0], kind, count, value))
        shape = tuple(to_rgb(Image.open(io.BytesIO(odd))).pixels.shape[1:])
        assert sorted(shape) == [5, 7]
        assert size_in_header(odd) in (None, shape)


def test_as_pixels_takes_every_accepted_type():
    """One of the accepted types gives other pixels than the rest."""
    tensor = chw(RGB)
    for image in (Image.fromarray(RGB), tensor, tv_tensors.Image(tensor), RGB):
        pixels = as_pixels(image)
        assert type(pixels) is torch.Tensor
        assert torch.equal(pixels, tensor)
    grey = RGB[..., 0]
    for image in (grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        assert torch.equal(as_pixels(image), chw(np.dstack([grey] * 3)))


def test_as_pixels_refuses_with_the_remedy():
    """Float images lose the exact bound; a batch or a channels-last tensor is taken for an image."""
    for image in (torch.rand(3, 4, 4), RGB.astype(np.float32), torch.full((3, 2, 2), torch.nan)):
        with pytest.raises(TypeError, match=r"uint8.*before the conversion to float"):
            as_pixels(image)
    for shape in [(4, 4, 3), (2, 3, 4, 4), (3, 0, 4)]:
        with pytest.raises(ValueError, match="image"):
            as_pixels(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(TypeError, match="str"):
        as_pixels("photo.png")


def test_png_gives_back_the_bytes_and_nothing_else():
    """What a user stores differs from what was protected, or carries metadata."""
    alpha = torch.from_numpy(RNG.integers(0, 256, (1, 5, 7), dtype=np.uint8))
    image = Image.open(io.BytesIO(encode_png(chw(RGB), alpha)))
    assert np.array_equal(np.asarray(image)[..., :3], RGB)
    assert np.array_equal(np.asarray(image)[..., 3], alpha[0].numpy())
    image = Image.open(io.BytesIO(encode_png(chw(RGB))))
    assert image.mode == "RGB"
    assert not image.info
    assert to_pil(chw(RGB)).format is None


def test_labels_are_checked():
    """A wrong label costs an hour of work before it is found, or protects as another class."""
    mixed = [torch.tensor(0), 2, np.int64(1)]
    for labels in ([0, 2, 1], torch.tensor([0, 2, 1]), np.array([0, 2, 1], np.uint8), mixed):
        checked = check_labels(labels, 3)
        assert checked.dtype == torch.int64
        assert checked.tolist() == [0, 2, 1]
    for labels, error, message in [
        ([0, 3], ValueError, r"0\.\.2, got 3 at index 1.*fit_generator.*label_map"),
        ([0, -1], ValueError, r"index 1 is missing, got -1"),
        ([0, None], ValueError, r"index 1 is missing"),
        ([0, 1.5], TypeError, r"1\.5 \(float\) at index 1"),
        (torch.tensor([0.0]), TypeError, "whole numbers"),
        ([0, float("nan")], TypeError, "whole numbers"),
        ([True], TypeError, "whole numbers"),
        (["cat"], TypeError, "'cat'"),
        ([0, [0, 1]], ValueError, r"one whole number per image, got \[0, 1\] at index 1"),
        (np.eye(2, dtype=int), ValueError, r"one whole number per image, .* \(2, 2\)"),
    ]:
        with pytest.raises(error, match=message):
            check_labels(labels, 3)


def test_read_samples_skips_the_transform_and_leaves_the_dataset_alone():
    """Noise is fitted on augmented or float images, or the user's dataset loses its transform."""
    transform = transforms.ToTensor()
    dataset = FakeData(
        size=2, image_size=(3, 4, 4), num_classes=3, transform=transform, target_transform=lambda label: label + 1
    )
    plain = FakeData(size=2, image_size=(3, 4, 4), num_classes=3)
    subset = torch.utils.data.Subset(torch.utils.data.Subset(dataset, [1, 0]), [1])
    for found, index in [(next(read_samples(dataset)), 0), (next(read_samples(subset)), 0)]:
        assert torch.equal(found[0], chw(np.asarray(plain[index][0])))
        assert found[1] == int(plain[index][1])
    assert dataset.transform is transform
    assert subset.dataset.dataset is dataset
    raw, apply = take_off_transforms(subset)
    assert raw is not subset
    image, label = apply(*raw[0])
    assert torch.equal(image, dataset[0][0])
    assert label == dataset[0][1]


def test_subsets_are_unwrapped_to_their_own_positions():
    """Positions counted from the end would be hashed as others: new images get the noise of old ones."""
    dataset = torch.utils.data.TensorDataset(torch.arange(20))
    outer = torch.utils.data.Subset(torch.utils.data.Subset(dataset, range(-10, 5)), [-1, 0, 3, -15])
    inner, rows = unwrap_subsets(outer, np.arange(4))
    assert inner is dataset
    assert rows.tolist() == [int(outer[index][0]) for index in range(4)] == [4, 10, 13, 10]
    assert list(wrapped(outer)) == [outer, outer.dataset, dataset]

    class Other(torch.utils.data.Subset):
        """May do anything with what it reads."""

    other = Other(dataset, [5, 6])
    assert unwrap_subsets(other, np.arange(2))[0] is other
    assert unwrap_subsets(other, np.arange(2), subclasses=True)[0] is dataset


class Plain:
    """A dataset as people write one: it calls its transforms without asking for None."""

    def __init__(self):
        self.transform = transforms.ToTensor()
        self.target_transform = str

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.transform(Image.fromarray(RGB)), self.target_transform(2)


class Joint(Plain):
    def __init__(self):
        self.transforms = v2.RandomHorizontalFlip(1.0)

    def __getitem__(self, index):
        return self.transforms(Image.fromarray(RGB), 2)


@pytest.mark.parametrize("kind", [Plain, Joint])
def test_datasets_that_call_their_transform_unasked(kind):
    """The common hand-written dataset fails with "'NoneType' object is not callable", or its workers do not start."""
    raw, apply = take_off_transforms(kind())
    for dataset in (raw, pickle.loads(pickle.dumps(raw))):  # spawn sends it to the workers as a pickle
        image, label = dataset[0]
        assert np.array_equal(np.asarray(image), RGB)
        assert label == 2
    expected = kind()[0]
    assert np.array_equal(np.asarray(apply(image, label)[0]), np.asarray(expected[0]))
    assert apply(image, label)[1] == expected[1]
    assert take_off_transforms(raw)[1] is None


def test_concatenated_transforms_are_refused():
    """Each part has its own transform: taking one for all trains on something else."""
    part = FakeData(size=1, image_size=(3, 4, 4), transform=transforms.ToTensor())
    with pytest.raises(TypeError, match="Protect each part"):
        take_off_transforms(torch.utils.data.ConcatDataset([part, part]))


def test_bad_samples_are_named():
    """An unreadable image among a million is not named."""
    good = Image.fromarray(RGB)
    file = io.BytesIO()
    good.save(file, "PNG")
    truncated = Image.open(io.BytesIO(file.getvalue()[:70]))
    for sample, error, message in [
        ((truncated, 0), ValueError, "index 1 does not decode"),
        ((torch.rand(3, 2, 2), 0), TypeError, "sample 1.*uint8"),
        ((good, None), ValueError, "index 1 is missing"),
        ((good, -1), ValueError, "index 1 is missing"),
        ((good, 0.5), TypeError, "dataset: .*whole numbers, got 0.5 .* at index 1"),
        ((good, np.array([3, 4])), TypeError, r"dataset: .*whole numbers, got array\(\[3, 4\]\) at index 1"),
        ((good, np.array([0.5])), TypeError, "dataset: .*whole numbers, got 0.5 .* at index 1"),
        ((good, "cat"), TypeError, "dataset: .*whole numbers, got 'cat' .* at index 1"),
        ((good, 0, 1), TypeError, "a tuple of 3.*map_fn"),
        ({"img": good, "label": 0}, TypeError, r"columns \['img', 'label'\].*map_fn"),
    ]:
        with pytest.raises(error, match=message):
            list(read_samples([(good, 0), sample]))


class Damaged(Image.Image):
    """A file whose decoder fails in its own way."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def load(self):
        raise self.error


@pytest.mark.parametrize(
    "kind",
    [OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, Image.DecompressionBombError],
)
def test_whatever_a_decoder_raises_names_the_image(kind):
    """A damaged chunk, a truncated header or a bomb ends a long run without saying which file it was."""
    assert issubclass(kind, UNDECODABLE)
    with pytest.raises(ValueError, match=r"index 0 does not decode \(by its decoder\)"):
        next(read_samples([(Damaged(kind("by its decoder")), 0)]))
