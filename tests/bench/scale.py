"""How a store behaves that is large in number: many models and versions, many files in one version.

A store of bytes rather than of names is told on paper, from what one chunk costs.
"""
import glob
import os
import shutil
import subprocess
import sys
import time

import machine
import ours
import report
import speed

MIB = 1 << 20
FILES_A_DIRECTORY = 1_000
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def quietly(*command):
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def remove(path):
    path = path.rstrip("/")
    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


class Mounted:
    """Mounts, measures, unmounts; each measurement becomes a row."""

    def __init__(self, store, point):
        self.store, self.point, self.rows = store, point, []

    def add(self, what, spent=None, note=""):
        now, most = self.store.memory() if self.store.daemon else (None, None)
        self.rows.append({"what": what, "seconds": spent, "daemon MiB": now and now / MIB, "peak MiB": most and most / MIB,
                          "note": note})
        machine.say(f"{what}: {spent if spent is None else round(spent, 3)} s")

    def open(self, what):
        machine.drop_caches()
        self.add(what, seconds(lambda: self.store.mount(self.point)))

    def close(self):
        self.store.unmount(self.point)
        self.store.daemon = None

    def time(self, what, *command):
        self.add(what, seconds(quietly(*command)))


def fill(store, settings):
    """Through the library, not synced: see fill.rs."""
    program = [settings.filler] if settings.filler else ["cargo", "bench", "--quiet", "--locked", "--bench", "fill", "--"]
    command = [*program, store.path, str(settings.models), str(settings.versions)]
    if not shutil.which(command[0]):
        raise machine.BenchError(f"no `{command[0]}`: the store is filled by a program of this package")
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def many_versions(settings, place):
    store = ours.Store(place, settings)
    spent = seconds(lambda: fill(store, settings))
    found = Mounted(store, os.path.join(place, "mount"))
    total = settings.models * settings.versions
    found.add("filling it, without syncing", spent, f"{total / spent:,.0f} versions/s")
    found.open("open the first time, which makes the catalog")
    middle = os.path.join(found.point, f"m{settings.models // 2:05}")
    found.time("ls of the root", "ls", "-f", found.point)
    found.time("ls -l of the root", "ls", "-l", found.point)
    found.time("ls -l of the root, again", "ls", "-l", found.point)
    found.time("ls -l of one model", "ls", "-l", middle)
    found.time("cat of one file", "cat", os.path.join(middle, "v1", "weights.bin"))
    found.time("cat of 1,000 files", "bash", "-c", f"cat {found.point}/m00*/v1/weights.bin | head -c 100000 | wc -c")
    before = store.parts()
    found.time("one more version", "bash", "-c",
               f"echo more > {middle}/draft/more && echo more > {middle}/snapshot")
    after = store.parts()
    found.close()
    for what, lost in (("open again", None), ("open without the checkpoint", "checkpoint"), ("open without the catalog", "")):
        if lost is not None:
            remove(os.path.join(store.path, "catalog", lost))
        found.open(f"{what}, page cache dropped")
        found.close()
    each = {name: after[name] - before[name] for name in ("packs", "manifests", "history")}
    each["catalog"] = after["catalog"] // total
    found.add("bytes a small version", None, ", ".join(f"{name} {size:,}" for name, size in each.items()))
    return found.rows


def make_files(source, count):
    """As many small files, all different, 1,000 a directory; those that are there stay."""
    for directory in range((count + FILES_A_DIRECTORY - 1) // FILES_A_DIRECTORY):
        below = os.path.join(source, f"d{directory:04}")
        if os.path.exists(below):
            continue
        os.makedirs(below)
        for number in range(min(count - directory * FILES_A_DIRECTORY, FILES_A_DIRECTORY)):
            with open(os.path.join(below, f"f{number:04}"), "wb", buffering=0) as out:
                out.write(b"%d/%d" % (directory, number))


def seal_cold(store, source, found, count):
    machine.drop_caches()
    spent, most = store.seal_measured(source, 1)
    found.rows.append({"what": f"seal of {count:,}, page cache dropped", "seconds": spent, "daemon MiB": None,
                       "peak MiB": most / MIB, "note": f"{count / spent:,.0f} files/s"})
    machine.say(f"sealed {count:,}: {spent:.1f} s, {most / MIB:.0f} MiB")


def many_files(settings, place):
    source = os.path.join(place, "files", "v1")
    store = ours.Store(place, settings)
    found = Mounted(store, os.path.join(place, "mount"))
    part = settings.files // 4 // FILES_A_DIRECTORY * FILES_A_DIRECTORY
    if part:
        make_files(source, part)
        other = os.path.join(place, "part")
        os.makedirs(other)
        seal_cold(ours.Store(other, settings), source, found, part)
        shutil.rmtree(other)
    make_files(source, settings.files)
    seal_cold(store, source, found, settings.files)
    found.open("open, page cache dropped")
    version = store.version(found.point, "files", 1)
    one = os.path.join(version, "d0000")
    found.time("ls -l of a directory of 1,000", "ls", "-l", one)
    found.time("cat of one file", "cat", os.path.join(one, "f0000"))
    for what, *command in (("find, all of them", "find"), ("ls -lR, all of them", "ls", "-lR")):
        for where, path in (("", version), (", ext4", source)):
            machine.drop_caches()
            found.time(f"{what}{where}, page cache dropped", *command, path)
            found.time(f"{what}{where}, again", *command, path)
    found.time("cat of 1,000 files", "bash", "-c", f"cat {one}/* | wc -c")
    found.time("cat of 1,000 files, ext4", "bash", "-c", f"cat {os.path.join(source, 'd0000')}/* | wc -c")
    found.close()
    parts = store.parts()
    found.add("bytes a file", None, ", ".join(f"{name} {parts[name] / settings.files:,.1f}"
                                             for name in ("packs", "manifests", "catalog")))
    return found.rows


def on_paper(settings, place):
    """What 100 GB of weights would cost beside their own bytes, from a store of --mib."""
    first, _ = speed.make_large(place, settings.mib)
    below = os.path.join(place, "paper")
    os.makedirs(below)
    store = ours.Store(below, settings)
    store.seal(first, 1)
    logical, parts = machine.bytes_below(first), store.parts()
    chunks = logical / MIB
    index = parts["manifests"] + parts["history"] + parts["rest"]
    rows = [{"what": "chunks of 1 MiB", "measured": f"{chunks:,.0f}", "at 100 GB": f"{100e9 / MIB:,.0f}"}]
    for what, size in (("stored", store.stored()), ("packs", parts["packs"]), ("manifests, history and the rest", index),
                       ("catalog", parts["catalog"])):
        rows.append({"what": what, "measured": f"{size:,.0f} B, {size / chunks:,.1f} a chunk",
                     "at 100 GB": f"{size / logical * 100e9 / 1e6:,.1f} MB"})
    rows.append({"what": "packs, files", "measured": len(glob.glob(f"{store.path}/packs/*/*")),
                 "at 100 GB": f"{len(glob.glob(f'{store.path}/packs/*/*')) / logical * 100e9:,.0f}"})
    point = store.mount(os.path.join(below, "mount"))
    rows.append({"what": "daemon after open, MiB", "measured": store.memory()[0] / MIB, "at 100 GB": "-"})
    store.unmount(point)
    return rows


def main(settings):
    out = report.Report(settings, "scale")
    for title, measure, wanted in (
            (f"{settings.models:,} models of {settings.versions:,} versions", many_versions, settings.models),
            (f"{settings.files:,} files in one version", many_files, settings.files),
            ("100 GB on paper", on_paper, settings.mib)):
        if wanted:
            with machine.temporary(settings.place) as place:
                out.table(title, measure(settings, place))
