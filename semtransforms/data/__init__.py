"""Bytes in, bytes out: images, labels, sources, and the store of noise."""
