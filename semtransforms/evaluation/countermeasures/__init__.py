"""What an unauthorised trainer does about the noise: once to the stored images, or to every training batch."""

from semtransforms.evaluation.countermeasures.base import (
    Countermeasure,
    apply_at_test,
    apply_before_resize,
    apply_stored,
)
from semtransforms.evaluation.countermeasures.dvae import DVAE
from semtransforms.evaluation.countermeasures.informed import InformedTrainer, PublishedGenerator
from semtransforms.evaluation.countermeasures.learned import Learned, let_learn
from semtransforms.evaluation.countermeasures.names import KNOWN, parse_countermeasure
from semtransforms.evaluation.countermeasures.pairs import HoldsPairs
from semtransforms.evaluation.countermeasures.partial import CleanOnly, CleanShare, ProtectedClasses
from semtransforms.evaluation.countermeasures.stored import ImageMap, Purifier

__all__ = [
    "DVAE",
    "KNOWN",
    "CleanOnly",
    "CleanShare",
    "Countermeasure",
    "HoldsPairs",
    "ImageMap",
    "InformedTrainer",
    "Learned",
    "ProtectedClasses",
    "PublishedGenerator",
    "Purifier",
    "apply_at_test",
    "apply_before_resize",
    "apply_stored",
    "let_learn",
    "parse_countermeasure",
]
