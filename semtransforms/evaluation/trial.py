"""One run of an evaluation: from a victim and a copy to the record of what came of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semtransforms.core.hardware import describe_machine, pick_device
from semtransforms.data.loading import Labelled
from semtransforms.data.photographs import Photographs
from semtransforms.evaluation.records import Record
from semtransforms.evaluation.runs import Run
from semtransforms.evaluation.victims import VictimResult, train_victim


@dataclass(frozen=True)
class Trial:
    """What the runs of an evaluation share.

    Args:
        clean: the owner's images and labels.
        tests: clean images of the same classes.
        facts: of the data, as all records have them.
    """

    clean: Labelled | Photographs
    tests: Labelled | Photographs
    facts: dict[str, Any]

    def record(self, run: Run, checkpoint: Path | None, *, device: Any, progress: bool) -> Record:
        """Train one victim on one copy.

        Args:
            run: which.
            checkpoint, device, progress: as for :func:`semtransforms.evaluation.victims.train_victim`.
        """
        result = train_victim(
            run.copy.images,
            self.clean.labels,
            run.config,
            test_images=self.tests.images,
            test_labels=self.tests.labels,
            countermeasures=run.countermeasures,
            clean=self.clean.images,
            checkpoint=checkpoint,
            settings=run.settings,
            device=device,
            progress=progress,
        )
        return _record(run, result, self.facts, device)


def _record(run: Run, result: VictimResult, facts: dict[str, Any], device: Any) -> Record:
    values = asdict(result)
    del values["train_loss"]
    config = run.config
    return Record(
        **facts,
        **run.copy.origin,
        **values,
        copy=run.copy.name,
        victim=run.victim,
        network=run.settings["network"],
        train_steps=config.train_steps,
        rho_a=config.rho_a,
        norm=config.norm,
        train_size=config.train_size,
        crop=None if config.train_size is None else config.crop,
        pretrained=run.settings.get("pretrained"),
        transfer=run.settings.get("transfer"),
        settings=json.dumps(run.settings, sort_keys=True),
        countermeasure=run.countermeasure,
        seed=config.seed,
        robust_rho=config.rho_a or None,
        **describe_machine(pick_device(device)),
    )
