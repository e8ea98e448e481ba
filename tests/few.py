"""A few images for the scripts of ``examples/reproduce``."""

import torch


class Part:
    """Images of ten classes, with the table and rows of the scripts' own class of that name."""

    classes = tuple("0123456789")

    def __init__(self, count: int, seed: int, size: tuple[int, int] = (40, 32)) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, 3, *size), generator=draw).to(torch.uint8)
        self.table, self.rows = {"label": [k % 10 for k in range(count)]}, list(range(count))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.images[index], self.table["label"][index]
