#!/usr/bin/env python3
"""assemble.py MEMBERS TARGET: makes a TigerBeetle data file of an unpacked snapshot.

The way back for somebody who has no bkp: bkp-format(5), BY HAND, says how to get to MEMBERS, the
folder that the backups of a chain were unpacked into, oldest first. Needs Python 3 alone. It does
not check what it places: unseal.py has authenticated every byte before.
"""
import json
import os
import sys


def main(members, target):
    with open(os.path.join(members, "layout.json")) as file:
        layout = json.load(file)
    zones = layout["zones"]

    def read(*name):
        with open(os.path.join(members, *name), "rb") as file:
            return file.read()

    # Create-only: what stands at the target is never overwritten.
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(out, layout["file_bytes"])
    headers = read("wal_headers")
    os.pwrite(out, headers, zones["wal_headers"])
    # Every slot gets its header; the log's own slots get the whole prepare right after.
    for slot in range(1024):
        os.pwrite(out, headers[slot * 256 : slot * 256 + 256], zones["wal_prepares"] + (slot << 20))
    for op, _ in layout["wal"]:
        os.pwrite(out, read("wal", str(op)), zones["wal_prepares"] + (op % 1024 << 20))
    for slot, _ in layout["replies"]:
        os.pwrite(out, read("replies", str(slot)), zones["client_replies"] + (slot << 20))
    for address, _ in layout["grid"]:
        os.pwrite(out, read("grid", str(address)), zones["grid"] + ((address - 1) << 19))
    os.fsync(out)
    # The superblock last: until then the file cannot be mistaken for a whole one.
    superblock = bytearray(read("superblock"))
    for copy, offset in enumerate(zones["superblock_copies"]):
        superblock[32:34] = copy.to_bytes(2, "little")
        os.pwrite(out, bytes(superblock), offset)
    os.fsync(out)
    os.close(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
