"""Protect a Hugging Face dataset with `datasets.map`, in two processes.

    python examples/huggingface_map.py PHOTOS PUBLISHED GENERATOR

PHOTOS is an image folder with a sub-folder for each class. PUBLISHED becomes a dataset for `datasets.load_from_disk`.
"""

import secrets
import sys

import multiprocess  # what datasets starts its processes with
from datasets import load_dataset

from semtransforms import SEMProtect

if __name__ == "__main__":
    photos, published, generator = sys.argv[1:]
    multiprocess.set_start_method("spawn", force=True)  # a forked process can hang once torch has used threads
    dataset = load_dataset("imagefolder", data_dir=photos, split="train")
    protect = SEMProtect.from_pretrained(generator, seed=secrets.randbits(63)).map_fn("image", "label")
    protected = dataset.map(protect, batched=True, with_rank=True, num_proc=2)  # one GPU for each process, if there are
    protected.save_to_disk(published)
