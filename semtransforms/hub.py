"""Scripts from before the rooms import ``semtransforms.hub``: it is ``semtransforms.generators.names``."""

import sys

from semtransforms.generators import names

sys.modules[__name__] = names
