"""Whether a person's id, answers or scores stand in the bytes of a file; packed ones are unpacked."""

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO

from poleng_assets.core.privacy.file_erasure import open_plain
from poleng_assets.core.privacy.subject import Person

CHUNK = 1 << 22
# All answers side by side, in two bytes for each letter, are shorter.
MARKS_LENGTH = 4096


def file_mentions(path: Path, person: Person) -> bool:
    """Whether a person stands in the bytes of a file; never, when nothing tells them from others."""
    if not person.recognisable and not person.marks:
        return False
    if zipfile.is_zipfile(path) and _zip_mentions(path, person):
        return True
    try:
        with open_plain(path) as plain:
            if stream_mentions(plain, person):
                return True
    except (OSError, EOFError, zlib.error):
        pass  # it is not packed as its name says, or damaged: its bytes as they are are looked at
    with path.open("rb") as file:
        return stream_mentions(file, person)


def stream_mentions(stream: IO[bytes], person: Person) -> bool:
    """Search a stream in windows; a word at the end of one is judged in the next, where it is complete."""
    around = 4
    window, cut, last = b"", False, False
    while not last:
        chunk = stream.read(CHUNK)
        last = not chunk
        window += chunk
        if person.marks and person.marks.in_bytes(window):
            return True
        # The literal is found many times faster than the pattern.
        if person.recognisable and any(literal in window for literal in person.literals):
            for match in person.bytes_pattern.finditer(window):
                if (match.start() >= around or not cut) and (match.end() <= len(window) - around or last):
                    return True
        longest = max(person.longest, MARKS_LENGTH if person.marks else 0)
        cut = cut or len(window) > longest + 2 * around
        window = window[-(longest + 2 * around) :]
    return False


def _zip_mentions(path: Path, person: Person) -> bool:
    try:
        with zipfile.ZipFile(path) as packed:
            for member in packed.infolist():
                if person.mentioned_in(member.filename):
                    return True
                if member.flag_bits & 1:
                    continue  # encrypted: the proof names it
                with packed.open(member) as file:
                    if stream_mentions(file, person):
                        return True
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error, lzma.LZMAError):
        pass  # damaged: what can be read of it is looked into elsewhere, and the rest named
    return False
