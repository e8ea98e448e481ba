"""Scripts from before the rooms import ``semtransforms.methods``: it is ``semtransforms.noise.methods``."""

import sys

from semtransforms.noise import methods

sys.modules[__name__] = methods
