"""An index of a large image folder: the names that were found, and when to look again.

An entry of a directory cannot come, go or be renamed without the directory's times changing, so
these and its inode number tell whether its names are still those. What is inside the images is not
kept, and need not be: they are read anew whenever they are shown.

The file is a magic line, the CRC-32 of the rest, a header in JSON, and the names as one block. It
is only a help: one that is missing, damaged, half written or of another version counts as none, and
where it can be written neither beside the images nor in the user's cache, there will be none.
"""

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..io.files import replace_file
from .files import reading

MAGIC = b"minidl index 1\n"
PREFIX = struct.Struct("<II")  # CRC-32 of what follows it, and the length of the header
# What was changed less than this before it was read may change again within the same tick of the
# file system's clock: two seconds on some, and the clock of a file server may go wrong by more.
SETTLED = 5 * 10**9  # nanoseconds

Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Listing:
    """What a folder held when it was read.

    ``names`` are those of its images, as the file system spells them, each ended by a zero byte;
    ``signature`` is None if the folder had just been changed.
    """

    folder: str  # below the split's, with slashes
    signature: Signature | None
    names: bytes
    subfolders: tuple[str, ...] = ()


def signature(path: Path) -> Signature | None:
    """What changes whenever a name in the folder does; None if it changed only just now."""
    status = os.stat(path)
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if settled else None


def read_index(folder: Path) -> dict[str, Listing]:
    """What is known of ``folder``, by the names of the folders below it; empty if nothing is.

    >>> read_index(Path("no/such/folder"))
    {}
    """
    found = [path for path in _places(folder) if path.is_file()]
    for path in sorted(found, key=os.path.getmtime, reverse=True):
        try:
            with reading(path) as (file, size):
                content = file.read(size)
            return {listing.folder: listing for listing in _unpack(content)}
        except (DataError, ValueError):  # as good as none
            continue
    return {}


def write_index(folder: Path, listings: Iterable[Listing]) -> None:
    """Keep ``listings`` for :func:`read_index`, beside ``folder`` or in the user's cache."""
    content = _pack(listings)
    for path in _places(folder):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda temporary: temporary.write_bytes(content))
            return
        except OSError:  # a data set that is not ours to write in, or a full disk
            continue


def _places(folder: Path) -> list[Path]:
    folder = folder.resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    places = [folder.parent / f".{folder.name}.minidl-index"]
    if os.path.isabs(cache):  # not so for a user without a home
        places.append(Path(cache, "minidl", f"{name}.minidl-index"))
    return places


def _pack(listings: Iterable[Listing]) -> bytes:
    listings = list(listings)
    rows = [[part.folder, part.signature, len(part.names), part.subfolders] for part in listings]
    header = json.dumps(rows).encode()
    body = header + b"".join(part.names for part in listings)
    return MAGIC + PREFIX.pack(zlib.crc32(body), len(header)) + body


def _unpack(content: bytes) -> list[Listing]:
    """The reverse of `_pack`; ValueError for anything that it did not write."""
    begin = len(MAGIC) + PREFIX.size
    if not content.startswith(MAGIC) or len(content) < begin:
        raise ValueError("not an index of this version")
    checksum, length = PREFIX.unpack_from(content, len(MAGIC))
    if zlib.crc32(memoryview(content)[begin:]) != checksum:
        raise ValueError("damaged index")
    listings = []
    position = begin + length
    for folder, signed, size, subfolders in json.loads(content[begin:position]):
        names = content[position : position + size]
        listings.append(Listing(folder, signed and tuple(signed), names, tuple(subfolders)))
        position += size
    return listings
