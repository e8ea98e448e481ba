"""The metrics of the noise as texts."""

from __future__ import annotations

from collections.abc import Mapping

_METRICS = {
    "published_linf": ("largest change of a value in the published photographs, grey levels", "{:.0f}"),
    "published_rms": ("root mean square of the change there, grey levels", "{:.2f}"),
    "measured_at": ("size at which trainers have the images, px; what follows is measured there", "{:.0f}"),
    "psnr": ("PSNR of the images changed, dB", "{:.1f}"),
    "ssim": ("SSIM (1: identical)", "{:.3f}"),
    "linf": ("largest change of a value, grey levels", "{:.0f}"),
    "l2": ("ℓ2 norm of an image's change (pixel range 1)", "{:.2f}"),
    "share_at_bound": ("values changed by the bound", "{:.1%}"),
    "share_changed": ("values changed at all", "{:.1%}"),
    "unchanged_images": ("images not changed", "{:,.0f}"),
    "spectrum_low": ("power per frequency, periods over 8 pixels (white noise: a third)", "{:.1%}"),
    "spectrum_mid": ("the same, over 4 to 8 pixels", "{:.1%}"),
    "spectrum_high": ("the same, up to 4 pixels", "{:.1%}"),
    "linear_accuracy": ("accuracy of a linear model on the noise alone", "{:.1%}"),
    "guess_rate": ("accuracy of naming the most frequent label", "{:.1%}"),
    "surrogate_robustness": ("robustness of the surrogate R_θ (Eq. 8; 0 is the most)", "{:.3f}"),
    "noise_robustness": ("robustness of the noise R_δᵘ (Eq. 9; 0 is the most)", "{:.3f}"),
}


def noise_table(noise: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, dict[str, str]]]:
    """Write the metrics of the noise as texts, one row per metric.

    Args:
        noise: copy -> metric -> value; ``None`` where it is not defined.

    Returns:
        (the metric in words, copy -> value as a text); what a copy lacks is missing.
    """
    rows = []
    for key in dict.fromkeys(key for metrics in noise.values() for key in metrics):
        words, form = _METRICS.get(key, (key.replace("_", " "), "{:.4g}"))
        values = {copy: metrics[key] for copy, metrics in noise.items() if key in metrics}
        texts = {c: "not defined" if v is None else form.format(v).replace("%", " %") for c, v in values.items()}
        rows.append((words, texts))
    return rows
