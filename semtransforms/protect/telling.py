"""What a protection did, in lines for its owner: the command line prints them, the page shows them."""

from __future__ import annotations

from semtransforms.data.listing import hidden_below
from semtransforms.data.remote import Place
from semtransforms.data.sources import Source
from semtransforms.protect.formats import FORMATS
from semtransforms.protect.publish import Outcome

_NEXT_TIME = {False: "The same command takes them.", True: "The same command with another OUT takes all."}


def describe_outcome(outcome: Outcome, out: Place, format: str, source: Source) -> list[str]:
    """Say what was done, and what must stay private; what failed stands in the outcome.

    Args:
        outcome: of ``protect_source``.
        out: where the copies are.
        format: their format.
        source: the clean images.

    Returns:
        Sentences.
    """
    found = f", {outcome.found} were finished before" if outcome.found else ""
    lines = [f"{outcome.written} images protected{found}: {out}"]
    if outcome.removed:
        lines.append(f"{outcome.removed} copies removed: their images are no longer in SOURCE under that name.")
    lines.append(
        "Metadata (EXIF, GPS, ICC profiles, comments, text) is not copied; "
        f"{outcome.with_metadata} of these images had some."
    )
    if outcome.converted:
        lines.append(f"{outcome.converted} images had another colour profile and were converted to sRGB.")
    if outcome.profile_ignored:
        lines.append(f"{outcome.profile_ignored} images have a colour profile that cannot be used; it was ignored.")
    if outcome.without_alpha:
        lines.append(f"{outcome.without_alpha} images lost their transparency: JPEG has none.")
    if outcome.empty:
        lines.append(
            f"{len(outcome.empty)} classes have no image ({outcome.empty[0]} first), and no folder in {out}: "
            "ImageFolder refuses empty ones, and numbers those that are there anew, from 0. The labels of SOURCE stand "
            "in metadata.csv, which `datasets` and semtransforms read."
        )
    if outcome.since:
        lines.append(
            f"{len(outcome.since)} images have come into SOURCE since it was listed, {outcome.since[0]} first, and are "
            f"not protected. {_NEXT_TIME[FORMATS[format].packed]}"
        )
    if source.other_columns:
        lines.append(f"Columns not copied: {', '.join(source.other_columns)}.")
    if source.other_files:
        lines.append(
            f"{len(source.other_files)} files were not read, {source.other_files[0]} first: no image's suffix."
        )
    hidden = hidden_below(source.folder) if source.folder is not None and source.files else []
    if hidden:
        lines.append(f"{len(hidden)} hidden files were not read, {hidden[0]} first: no photographs, or thrown away.")
    if format == "noise":
        lines.append("This is the noise: whoever has it can subtract it. Keep it private.")
    lines.append(f"The seed is in {outcome.private}. Keep it private: with it the noise can be computed.")
    apart = f"by up to {outcome.difference.largest} grey levels, {outcome.difference.rms:.1f} root mean square"
    if format == "jpeg":
        lines.append(
            f"The decoded files differ from the decoded originals {apart}, as measured: JPEG adds its own "
            "changes to the noise, whose bound rho_u no longer holds."
        )
    else:
        lines.append(f"The protected images differ from the originals {apart}.")
    return lines
