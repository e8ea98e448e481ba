"""Very many strings in one block of memory: in a list each takes 60 bytes beside its letters."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from operator import index
from typing import overload


class Strings(Sequence[str]):
    """Strings that are only ever added to; names of files too that are no text.

    Args:
        strings: the first ones.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._letters, self._ends = bytearray(), array("Q", [0])
        self.extend(strings)

    def extend(self, strings: Iterable[str]) -> None:
        """Add strings at the end."""
        for each in strings:
            self._letters += each.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._letters))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        number = range(len(self))[index(place)]
        return self._letters[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows
