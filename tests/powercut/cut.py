#!/usr/bin/env python3
"""Cuts the power of a disk at many points of a workload and looks at what is left.

    tests/powercut/cut.py --cuts 200 [--torn]       the store of modelfs: churn.py beside this file
    tests/powercut/cut.py --self-test               shows that the laboratory finds what it looks for

How: qemu-storage-daemon serves a disk image as a file and logs each write and flush (`blklogwrites`); a loop
device and ext4 lie on that. The workload runs once and prints `ack TEXT` for each promise that it was given.
Afterwards the disk is made again as it was after some number of log entries, mounted, and the check is run
with every promise that had been given by then on its standard input. With --torn, what was written after the
last flush before the cut arrives or not by the toss of a coin, write by write, as in a disk's cache.

Both commands run with DISK set to the mounted directory. Needs root, qemu-utils and loop devices.
Exit: 0 every check passed, 1 some did not, 2 the laboratory could not be set up.
"""

import argparse
import os
import random
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))

# Flags of a log entry, as in the kernel's dm-log-writes, whose format QEMU writes.
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
CHECK_SECONDS = 120


class NoLab(Exception):
    """The laboratory itself does not work; says nothing about the store."""


@dataclass
class Entry:
    """One request that reached the disk: `data_at` is the place of its bytes in the log file."""

    sector: int
    sectors: int
    flags: int
    data_at: int

    @property
    def flushes(self):
        return bool(self.flags & FLUSH)

    @property
    def writes(self):
        return self.sectors > 0 and not self.flags & (DISCARD | MARK)


@dataclass
class Recording:
    """What a workload did to the disk, and after how many entries it was promised what."""

    entries: list
    promises: list = field(default_factory=list)


def command(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise NoLab(f"{shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


class Disk:
    """An image on a loop device, mounted at `point` while the block runs."""

    def __init__(self, image, point):
        self.image, self.point, self.loop = image, point, None

    def __enter__(self):
        self.loop = command("losetup", "--find", "--show", self.image)
        try:
            command("mount", "-t", "ext4", self.loop, self.point)
        except NoLab:
            command("losetup", "--detach", self.loop)
            raise
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.point])
        subprocess.run(["losetup", "--detach", self.loop])


class Lab:
    """The files of one run, below one temporary directory."""

    def __init__(self, mib):
        roomy = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.root = tempfile.mkdtemp(prefix="powercut-", dir=roomy)
        self.mib = mib
        for name in ("disk", "after"):
            os.mkdir(self.path(name))

    def path(self, name):
        return os.path.join(self.root, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root, ignore_errors=True)

    def _empty(self, name, mib):
        with open(self.path(name), "wb") as image:
            image.truncate(mib << 20)

    def record(self, workload):
        """Runs the workload on a fresh disk; the log of it."""
        self._empty("now.img", self.mib)
        command("mkfs.ext4", "-q", self.path("now.img"))
        command("cp", "--sparse=always", self.path("now.img"), self.path("blank.img"))
        self._empty("log.img", self.mib * 32)
        self._empty("served.img", 0)
        server = subprocess.Popen(
            [
                "qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=image,filename={self.path('now.img')}",
                "--blockdev", f"driver=file,node-name=log,filename={self.path('log.img')}",
                "--blockdev", "driver=blklogwrites,node-name=logged,file=image,log=log,"
                f"log-sector-size={SECTOR},log-super-update-interval=1",
                "--export", f"type=fuse,id=served,node-name=logged,mountpoint={self.path('served.img')},writable=on",
            ]
        )
        try:
            self._wait_until_served(server)
            promises = self._run(workload)
        finally:
            server.terminate()
            server.wait()
        return Recording(list(self._entries()), promises)

    def _wait_until_served(self, server):
        for _ in range(200):
            if server.poll() is not None:
                raise NoLab(f"qemu-storage-daemon ended with {server.returncode}")
            if os.path.getsize(self.path("served.img")) == self.mib << 20:
                return
            time.sleep(0.05)
        raise NoLab("qemu-storage-daemon does not serve the image")

    def _run(self, workload):
        promises = []
        with Disk(self.path("served.img"), self.path("disk")), open(self.path("log.img"), "rb") as log:
            run = subprocess.Popen(
                ["bash", "-c", workload], stdout=subprocess.PIPE, text=True, env={**os.environ, "DISK": self.path("disk")}
            )
            for line in run.stdout:
                if line.startswith("ack "):
                    # The count in the log's header: everything up to it had reached the disk.
                    count = struct.unpack("<Q", os.pread(log.fileno(), 8, 16))[0]
                    promises.append((count, line[4:].rstrip("\n")))
            if run.wait():
                raise NoLab(f"the workload ended with {run.returncode}, no power cut was near")
        return promises

    def _entries(self):
        with open(self.path("log.img"), "rb") as log:
            _magic, _version, count, sector_bytes = struct.unpack("<QQQI", log.read(28))
            at = sector_bytes
            for _ in range(count):
                log.seek(at)
                sector, sectors, flags, _data = struct.unpack("<QQQQ", log.read(32))
                at += sector_bytes
                yield Entry(sector, sectors, flags, at)
                if not flags & DISCARD:
                    at += sectors * sector_bytes

    def cuts(self, recording, points, torn, chance):
        """For each point, in order, makes `cut.img` as a cut after that many entries leaves it."""
        command("cp", "--sparse=always", self.path("blank.img"), self.path("safe.img"))
        applied = 0
        with open(self.path("log.img"), "rb") as log:
            for point in points:
                # Only what a flush came after is on the disk for certain; that part grows with the points.
                certain = point
                if torn:
                    flushes = [i for i in range(applied, point) if recording.entries[i].flushes]
                    certain = flushes[-1] if flushes else applied
                with open(self.path("safe.img"), "r+b") as image:
                    self._apply(log, image, recording.entries[applied:certain])
                applied = certain
                # A new file each time: another mount namespace may still hold the last one mounted.
                if os.path.exists(self.path("cut.img")):
                    os.remove(self.path("cut.img"))
                command("cp", "--sparse=always", self.path("safe.img"), self.path("cut.img"))
                rest = recording.entries[applied:point]
                arrived = [entry for entry in rest if entry.flags & FUA or chance.random() < 0.5]
                with open(self.path("cut.img"), "r+b") as image:
                    self._apply(log, image, arrived)
                yield point

    @staticmethod
    def _apply(log, image, entries):
        for entry in entries:
            if entry.writes:
                log.seek(entry.data_at)
                image.seek(entry.sector * SECTOR)
                image.write(log.read(entry.sectors * SECTOR))

    def check(self, due, check):
        """What is wrong with `cut.img`; an empty text when nothing is."""
        try:
            with Disk(self.path("cut.img"), self.path("after")):
                seen = subprocess.run(
                    ["bash", "-c", check], input="".join(f"{text}\n" for text in due), text=True, capture_output=True,
                    timeout=CHECK_SECONDS, env={**os.environ, "DISK": self.path("after")},
                )
        except NoLab as why:
            return f"the disk does not mount: {why}"
        except subprocess.TimeoutExpired:
            return f"the check did not end in {CHECK_SECONDS} s"
        return "" if seen.returncode == 0 else (seen.stdout + seen.stderr).strip() or "the check said nothing"


def experiment(want, workload, check):
    """Runs everything once; (cuts, broken, promises)."""
    with Lab(want.mib) as lab:
        recording = lab.record(workload)
        count = len(recording.entries)
        chance = random.Random(want.seed)
        points = sorted(chance.sample(range(count + 1), min(want.cuts, count + 1)))
        broken, begun = 0, time.monotonic()
        for point in lab.cuts(recording, points, want.torn, chance):
            due = [text for reached, text in recording.promises if reached <= point]
            wrong = lab.check(due, check)
            if wrong:
                broken += 1
                if not want.quiet:
                    print(f"cut after {point} of {count} entries, {len(due)} promises: {wrong[-600:]}", flush=True)
        spent = (time.monotonic() - begun) / max(1, len(points))
        kind = "torn" if want.torn else "prefix"
        print(
            f"{len(recording.promises)} promises, {count} entries, {len(points)} cuts ({kind}, seed {want.seed}), "
            f"{broken} broken, {spent:.2f} s a cut",
            flush=True,
        )
        return len(points), broken, len(recording.promises)


def self_test(want):
    """A workload that syncs must come through, one that does not must be caught."""
    synced = """for n in $(seq 12); do
      printf %s "$n" > "$DISK/.t"; sync "$DISK/.t"; mv "$DISK/.t" "$DISK/$n"; sync "$DISK"; echo "ack $n"; done"""
    hasty = """for n in $(seq 40); do
      printf %s "$n" > "$DISK/.t"; mv "$DISK/.t" "$DISK/$n"; echo "ack $n"; done; sync; sleep 0.2; sync"""
    check = 'while read -r n; do [ "$(cat "$DISK/$n")" = "$n" ] || { echo "lost $n"; exit 1; }; done'
    want.quiet = True
    for torn in (False, True):
        want.torn = torn
        _, broken, promises = experiment(want, synced, check)
        if broken or not promises:
            raise NoLab("a workload that syncs what it promises was found to lose it")
        if not experiment(want, hasty, check)[1]:
            raise NoLab("a workload that promises without a sync was not caught")
    return 0


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--cuts", type=int, default=100, help="how many points to look at (default 100)")
    ask.add_argument("--torn", action="store_true", help="lose single writes since the last flush")
    ask.add_argument("--mib", type=int, default=64, help="size of the disk (default 64)")
    ask.add_argument("--seed", type=int, default=1, help="which points, which writes (default 1)")
    ask.add_argument("--workload", help="a command for bash (default: churn.py work)")
    ask.add_argument("--check", help="a command for bash (default: churn.py check)")
    ask.add_argument("--quiet", action="store_true", help="only the last line")
    ask.add_argument("--self-test", action="store_true", help="try the laboratory on itself")
    want = ask.parse_args()
    for tool in ("qemu-storage-daemon", "mkfs.ext4", "losetup"):
        if not shutil.which(tool):
            raise NoLab(f"`{tool}` is missing: apt-get install qemu-utils e2fsprogs util-linux")
    if os.geteuid() != 0:
        raise NoLab("needs root: it mounts loop devices")
    if want.self_test:
        return self_test(want)
    churn = shlex.quote(os.path.join(HERE, "churn.py"))
    cuts, broken, promises = experiment(want, want.workload or f"{churn} work", want.check or f"{churn} check")
    return 1 if broken or not cuts or not promises else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NoLab as why:
        print(f"tests/powercut/cut.py: {why}", file=sys.stderr)
        sys.exit(2)
