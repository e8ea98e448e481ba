"""The unauthorised trainer: fit a network on what was published, test it on clean images."""

from semtransforms.evaluation.victims.config import CUTS, VictimConfig, paper, quick
from semtransforms.evaluation.victims.training import VictimResult, train_victim
from semtransforms.evaluation.victims.transfer import FINE_TUNING, PROBE

__all__ = ["CUTS", "FINE_TUNING", "PROBE", "VictimConfig", "VictimResult", "paper", "quick", "train_victim"]
