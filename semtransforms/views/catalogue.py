"""The catalogue of image changes: what trainers do to an image, and what T shows the noise so that it survives them.

Each is a function of float images (N, 3, H, W) in [0, 1], image by image. T takes them as its members
(``views/members.py``), the trainer's countermeasures apply them to stored images and round to bytes. kornia does the
filters, and is imported by those that it does: who makes class-wise noise calls none of them. JPEG lies in
``views/jpeg.py``; colour jitter and more are kornia's augmentations themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def greyscale(images: Tensor) -> Tensor:
    """Luminance in all three channels, by the weights 0.299, 0.587 and 0.114, which PIL has too."""
    import kornia.color

    grey: Tensor = kornia.color.rgb_to_grayscale(images)
    return grey.expand(images.shape)


def mean(images: Tensor) -> Tensor:
    """The mean of each 3 x 3 window."""
    import kornia.filters

    blurred: Tensor = kornia.filters.box_blur(images, 3)
    return blurred


def median(images: Tensor) -> Tensor:
    """The median of each 3 x 3 window."""
    import kornia.filters

    blurred: Tensor = kornia.filters.median_blur(images, 3)
    return blurred


def gaussian(images: Tensor) -> Tensor:
    """A Gaussian window of 3 x 3; its sigma of 0.8 px is what OpenCV derives from that size."""
    import kornia.filters

    blurred: Tensor = kornia.filters.gaussian_blur2d(images, (3, 3), (0.8, 0.8))
    return blurred


def bilateral(images: Tensor) -> Tensor:
    """The mean of each 3 x 3 window, weighted by distance (sigma 1.5 px) and by difference in colour."""
    import kornia.filters

    # neighbours that noise of 8/255 can part (2 * 8/255 in each of 3 channels, summed) still weigh exp(-1/2)
    blurred: Tensor = kornia.filters.bilateral_blur(images, 3, sigma_color=0.2, sigma_space=(1.5, 1.5))
    return blurred


def shrink(images: Tensor) -> Tensor:
    """To half the size and back."""
    half = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(half, size=images.shape[2:], mode="bilinear", align_corners=False)


def channel_norm(images: Tensor) -> Tensor:
    """Each channel of each image shifted and scaled to a mean of 1/2 and a standard deviation of 1/4."""
    spread = images.std((2, 3), keepdim=True, correction=0).clamp_min(1 / 255)  # a flat channel stays flat
    return ((images - images.mean((2, 3), keepdim=True)) / (4 * spread) + 0.5).clamp(0, 1)


def yuv_norm(images: Tensor) -> Tensor:
    """Luminance and two differences of colour (YUV), whitened as :func:`channel_norm` does; they are the channels."""
    import kornia.color

    return channel_norm(kornia.color.rgb_to_yuv(images))


def lab_norm(images: Tensor) -> Tensor:
    """Lightness and two opponent colours (CIE L*a*b*), whitened likewise."""
    import kornia.color

    # about the range of a channel of RGB each, for what counts as flat
    return channel_norm(kornia.color.rgb_to_lab(images) / 100)


def low_pass(images: Tensor) -> Tensor:
    """The spatial frequencies up to half of the highest (Fourier, the image taken as periodic)."""
    return _frequencies(images, 0, 1 / 2)


def band_pass(images: Tensor) -> Tensor:
    """The spatial frequencies from an eighth to half of the highest, and the mean."""
    return _frequencies(images, 1 / 8, 1 / 2)


def _frequencies(images: Tensor, low: float, high: float) -> Tensor:
    """Those from ``low`` to ``high``, as shares of the highest along an axis, and the mean; clamped."""
    height, width = images.shape[2:]
    rows = 2 * torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = 2 * torch.fft.rfftfreq(width, device=images.device)
    radius = torch.hypot(rows, columns)
    kept = ((radius >= low) | (radius == 0)) & (radius <= high)
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * kept, s=(height, width))
    return found.clamp(0, 1)


@torch.no_grad()
def denoise(images: Tensor) -> Tensor:
    """Total-variation denoising: the image near the given one that varies least (Rudin, Osher and Fatemi 1992).

    Minimises ``|x - images|^2 / 2 + weight * TV(x)``, kornia's anisotropic TV, by subgradient steps of size
    2 / (k + 2) and an average weighted by k (Lacoste-Julien et al. 2012), within a few per cent of the minimum.
    """
    from kornia.losses import total_variation

    # 3/255 takes most of +-8 levels off photographs: mean square error 61 -> 30; 1, 2, 4, 8: 42, 33, 33, 60
    weight, steps = 3 / 255, 30
    point, average = images, images
    for k in range(steps):
        with torch.enable_grad():
            leaf = point.detach().requires_grad_()
            slope = torch.autograd.grad(total_variation(leaf).sum(), leaf)[0]
        point = torch.lerp(point, images - weight * slope, 2 / (k + 2))
        average = torch.lerp(average, point, 2 / (k + 2))
    return average.clamp(0, 1)


def blind_denoise(images: Tensor) -> Tensor:
    """Denoising that finds out how strong the noise is: small coefficients of cosines are set to 0 (Yu, Sapiro 2011).

    Of each window of 8 x 8 px, after an orthonormal change of colours, and the mean of all windows that a pixel is in.
    Small is what is under three times the standard deviation of the noise of that image and colour, which the median of
    the finest diagonal differences tells (Donoho and Johnstone 1994). Images under 8 px stay as they are.
    """
    side = 8
    if min(images.shape[2:]) < side:
        return images
    places = torch.arange(side, device=images.device, dtype=images.dtype)
    cosines = torch.cos(torch.pi / side * (places + 0.5) * places[:, None]) * (2 / side) ** 0.5
    cosines[0] /= 2**0.5
    waves = (cosines[:, None, :, None] * cosines[None, :, None, :]).reshape(-1, 1, side, side)
    of_colours = images.new_tensor([[2, 2, 2], [6**0.5, 0, -(6**0.5)], [2**0.5, -(8**0.5), 2**0.5]]) / 12**0.5
    planes = torch.einsum("dc,nchw->ndhw", of_colours, images).flatten(0, 1)[:, None]
    even = planes[:, :, : images.shape[2] // 2 * 2, : images.shape[3] // 2 * 2]
    diagonal = (even[..., ::2, ::2] - even[..., ::2, 1::2] - even[..., 1::2, ::2] + even[..., 1::2, 1::2]) / 2
    spread = diagonal.abs().flatten(1).median(1).values / 0.6745
    found = F.conv2d(planes, waves)
    kept = found.abs() >= 3 * spread[:, None, None, None]
    kept[:, 0] = True  # the mean of a window is no noise
    windows = F.conv_transpose2d(torch.ones_like(found[:1, :1]), torch.ones_like(waves[:1]))  # that a pixel is in
    cleaned = (F.conv_transpose2d(found * kept, waves) / windows).view(images.shape)
    return torch.einsum("dc,ndhw->nchw", of_colours, cleaned).clamp(0, 1)


def truncate(images: Tensor, bits: int | Tensor) -> Tensor:
    """The upper bits of each byte, as image shortcut squeezing reduces them (Liu et al. 2023): cut off, not rounded.

    Feature squeezing (Xu et al. 2018) rounds to 2**B levels spread over 0..255 instead; the difference is a shift to
    darker, which equally processed test images share.

    Args:
        images: float (N, 3, H, W) in [0, 1].
        bits: how many are kept, 1..8; a tensor that broadcasts to the images for some of each.
    """
    step = 2.0 ** (8 - bits)
    # a hair more, since 128/255 in float32 times 255 is not quite 128
    return ((255 * images + 1e-3) / step).floor() * step / 255


CHANGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "greyscale": greyscale,
    "mean": mean,
    "median": median,
    "gaussian": gaussian,
    "bilateral": bilateral,
    "shrink": shrink,
    "channel-norm": channel_norm,
    "yuv-norm": yuv_norm,
    "lab-norm": lab_norm,
    "low-pass": low_pass,
    "band-pass": band_pass,
    "denoise": denoise,
    "blind-denoise": blind_denoise,
}
