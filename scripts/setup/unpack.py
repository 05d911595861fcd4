#!/usr/bin/env python3
"""Unpacks some files of a wheel or an npm package.

Must not check where they come from: the archive's SHA-256 was compared before.

    unpack.py ARCHIVE INTO FOLDER PATTERN...

Files in FOLDER of the archive whose path below it matches a PATTERN (`*` also matches `/`) go to the same path below
INTO. A pattern that matches nothing is an error.
"""

import shutil
import sys
import tarfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path


def main(archive, into, folder, *patterns):
    unmatched = set(patterns)
    for name, open_member in members(archive):
        inside = name[len(folder) + 1 :]
        matching = {pattern for pattern in patterns if fnmatchcase(inside, pattern)}
        if not name.startswith(folder + "/") or not matching:
            continue
        unmatched -= matching
        write(open_member, Path(into, inside))
    if unmatched:
        sys.exit(f"{archive} holds nothing like {', '.join(sorted(unmatched))} in {folder}")


def members(archive):
    """Name of each file in the archive, and a function that opens it."""
    if archive.endswith(".whl"):
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, lambda info=info: wheel.open(info)
    else:
        with tarfile.open(archive) as package:
            for info in package:
                if info.isfile():
                    yield info.name, lambda info=info: package.extractfile(info)


def write(open_member, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_member() as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


if __name__ == "__main__":
    main(*sys.argv[1:])
