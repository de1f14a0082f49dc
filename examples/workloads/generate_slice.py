#!/usr/bin/env python3
"""Write a slice file of pseudo-random bytes, the same for the same size and seed everywhere.

    python generate_slice.py big.slice --bytes 64MiB --seed 7

The bytes are SHAKE-128 of the seed and the number of each MiB, so a shorter slice is the beginning
of a longer one. The file appears complete or not at all. Needs nothing but Python's own library.
"""

import argparse
import hashlib
import os
import re
import sys

BLOCK_BYTES = 1_048_576
SUFFIXES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_size(text: str) -> int:
    """Bytes from a whole number with an optional suffix KiB, MiB or GiB."""
    match = re.fullmatch(r"([0-9]{1,18}) ?(|KiB|MiB|GiB)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: give a whole number of bytes, or of KiB, MiB or GiB"
        )
    return int(match[1]) * SUFFIXES[match[2]]


def write_slice(path: str, length: int, seed: int, *, force: bool) -> None:
    """Write the slice beside its place, then move it there.

    Raises FileExistsError when something is there already and `force` is not set.
    """
    if not force and os.path.lexists(path):
        raise FileExistsError(path)
    # The process number keeps two runs for the same path out of each other's way.
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "xb") as output:
        try:
            for block, start in enumerate(range(0, length, BLOCK_BYTES)):
                count = min(BLOCK_BYTES, length - start)
                output.write(hashlib.shake_128(f"{seed}/{block}".encode()).digest(count))
            output.flush()
            os.fsync(output.fileno())
            if force:
                os.replace(temporary, path)
            else:
                # Unlike a rename, a link never takes the place of a file that came up meanwhile.
                os.link(temporary, path)
        finally:
            if os.path.lexists(temporary):
                os.unlink(temporary)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a slice file of pseudo-random bytes, alike for one size and seed."
    )
    parser.add_argument("path", metavar="PATH", help="the file to write")
    parser.add_argument(
        "--bytes",
        required=True,
        type=parse_size,
        metavar="N",
        help="its length: bytes, or with a suffix KiB, MiB, GiB",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    options = parser.parse_args()
    try:
        write_slice(options.path, options.bytes, options.seed, force=options.force)
    except FileExistsError:
        parser.error(f"{options.path} exists: give --force to replace it")
    except OSError as error:
        sys.exit(f"{parser.prog}: error: {options.path}: {error.strerror}")
    print(options.bytes, options.path)


if __name__ == "__main__":
    main()
