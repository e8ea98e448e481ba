"""Networks of timm and torchvision by name, and weights that others trained: for trainers, and for noise."""
