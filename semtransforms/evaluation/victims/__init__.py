"""The unauthorised trainer: fit a network on what was published, test it on clean images."""

from semtransforms.evaluation.victims.config import CUTS, VictimConfig, paper, quick
from semtransforms.evaluation.victims.training import VictimResult, train_victim

__all__ = ["CUTS", "VictimConfig", "VictimResult", "paper", "quick", "train_victim"]
