"""Whether the quotes of a text are as RFC 4180 has them."""

import numpy as np


class Quotes:
    """Looks through a text, block by block, whether its quotes are as RFC 4180 has them.

    A quote opens at the beginning of a field and closes at its end; within, it is doubled. A doubled quote
    is read as a closing and an opening one.
    """

    def __init__(self, delimiter: str) -> None:
        self._edges = np.zeros(256, dtype=bool)
        self._edges[[ord(sign) for sign in (delimiter, "\r", "\n", '"')]] = True
        self._seen = 0
        self._tail = b"\n"  # the sign before those that were not looked at yet, and the last of these
        self.are_plain = True

    @property
    def is_open(self) -> bool:
        """Return whether a quote that was opened is not closed yet."""
        return self._seen % 2 == 1

    def look_at(self, block: bytes) -> None:
        """Look at all but the last sign, whose neighbour is not known yet."""
        if not block or not self.are_plain:
            return
        if b'"' not in block and b'"' not in self._tail:
            self._tail = (self._tail + block)[-2:]
            return
        signs = np.frombuffer(self._tail + block, dtype=np.uint8)
        positions = np.flatnonzero(signs[1:-1] == ord('"')) + 1
        opens = (self._seen + np.arange(len(positions))) % 2 == 0
        neighbours = np.where(opens, signs[positions - 1], signs[positions + 1])
        self.are_plain = bool(self._edges[neighbours].all())
        self._seen += len(positions)
        self._tail = (self._tail + block)[-2:]

    def end(self) -> None:
        """Look at the last sign, too."""
        self.look_at(b"\n")
