"""Scripts from before the rooms import ``semtransforms.images``: it is ``semtransforms.data.images``."""

import sys

from semtransforms.data import images

sys.modules[__name__] = images
