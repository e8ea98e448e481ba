"""Wrap a dataset and train from a DataLoader, on scikit-learn's digits.

    python examples/wrap_dataset.py PRIVATE

PRIVATE keeps the noise: it is computed once, and read from there when the script runs again.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms.v2.functional import resize

from semtransforms import ProtectedDataset

if __name__ == "__main__":
    digits = load_digits()
    grey = torch.from_numpy(digits.images * (255 / 16)).byte()  # 8 x 8 pixels, 17 levels of ink
    images = resize(grey[:, None].repeat(1, 3, 1, 1), [32, 32])  # uint8 (1797, 3, 32, 32)
    dataset = TensorDataset(images, torch.from_numpy(digits.target))

    # the seed is known here, so that everyone gets the same figures; a real protection needs a secret one
    protected = ProtectedDataset(dataset, "sem-digits", seed=0, cache_dir=sys.argv[1])
    loader = DataLoader(protected, batch_size=64, shuffle=True)
    seen = sum(len(labels) for _, labels in loader)  # your training step goes here
    print(f"{seen} images; no pixel changed by more than {max(int(abs(protected.noise(i)).max()) for i in range(64))}")
