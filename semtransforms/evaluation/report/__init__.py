"""What the runs of an evaluation say: their averages, a verdict in words, a page and a Markdown document."""

from semtransforms.evaluation.report.report import EvaluationReport

__all__ = ["EvaluationReport"]
