"""ICC profiles written by hand after ICC.1:2001-04, and the colours that they mean computed with NumPy."""

import struct

import numpy as np

GAMMA = 563 / 256  # as Adobe RGB (1998) has it; u8Fixed8 holds it exactly
D50 = np.array([0.9642, 1.0, 0.8249])
# columns: red, green, blue primary as XYZ under D50
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def rgb_profile() -> bytes:
    """The colour space of Adobe RGB (1998)."""
    columns = {f"{name}XYZ": _xyz(ADOBE_RGB[:, k]) for k, name in enumerate("rgb")}
    return _profile("mntr", "RGB ", "XYZ ", {**columns, **{f"{name}TRC": _curve() for name in "rgb"}})


def grey_profile() -> bytes:
    """Grey whose light is the value to the power of ``GAMMA``."""
    return _profile("mntr", "GRAY", "XYZ ", {"kTRC": _curve()})


def cmyk_profile(corners: np.ndarray) -> bytes:
    """A press whose 16 mixtures of full inks have the colours ``corners``, uint8 (2, 2, 2, 2, 3): L, a and b."""
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (k % 4 == 0) for k in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners.tobytes() + identity * 3
    return _profile("prtr", "CMYK", "Lab ", {"A2B0": table})


def _profile(kind: str, space: str, connection: str, tags: dict[str, bytes]) -> bytes:
    text = b"text" + bytes(4) + b"none\0"
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {"desc": name, "cprt": text, "wtpt": _xyz(D50), **tags}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag.encode() + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"none", 0x02400000, kind.encode(), space.encode(), connection.encode()
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(D50) + bytes(48)
    assert len(header) == 128
    return header + table + body


def _fixed(numbers: np.ndarray) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(65536 * number) for number in numbers))


def _xyz(numbers: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(numbers)


def _curve() -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, 563)


def from_xyz(xyz: np.ndarray) -> np.ndarray:
    """Colours (..., 3) under D50 as sRGB levels, float."""
    light = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def from_adobe(pixels: np.ndarray) -> np.ndarray:
    """Levels (..., 3) of :func:`rgb_profile` as sRGB levels."""
    return from_xyz((pixels / 255) ** GAMMA @ ADOBE_RGB.T)


def from_grey(levels: np.ndarray) -> np.ndarray:
    """Levels (...) of :func:`grey_profile` as sRGB levels (..., 3)."""
    return from_xyz((levels[..., None] / 255) ** GAMMA * D50)


def from_lab(lab: np.ndarray) -> np.ndarray:
    """Bytes (..., 3) of L, a and b as sRGB levels."""
    lightness, a, b = lab[..., 0] * 100 / 255, lab[..., 1] - 128.0, lab[..., 2] - 128.0
    middle = (lightness + 16) / 116
    root = np.stack([middle + a / 500, middle, middle - b / 200], axis=-1)
    return from_xyz(np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29)) * D50)
