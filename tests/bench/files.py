"""Memory of one version with very many files: sealed, listed, read, compared, checked and exported.

Each command's peak is that of its process without a daemon; the daemon's peak is counted anew for each line.
"""
import os
import shutil

import machine
import ours
import report
import scale

MIB = 1 << 20
MODEL = "files"


class Rows:
    """One line for each thing that is done; the peak beside that of doing nothing."""

    def __init__(self, store, count):
        self.store, self.count, self.rows = store, count, []

    def add(self, what, seconds, peak):
        self.rows.append({"what": what, "seconds": seconds, "peak MiB": peak / MIB, "bytes a file": peak / self.count})
        machine.say(f"{what}: {seconds:.1f} s, peak {peak / MIB:.0f} MiB")

    def command(self, what, *words):
        self.add(what, *machine.run_measured([*self.store.command, *words]))

    def daemon(self, what, work):
        self.store.forget_peak()
        seconds = scale.seconds(work)
        now, most = self.store.memory()
        self.add(what, seconds, most)
        self.rows[-1]["then MiB"] = now / MIB


def by_commands(found, place, source):
    store = found.store
    found.add("snapshot", *store.seal_measured(source, 1))
    with open(os.path.join(source, "d0000", "f0000"), "a") as out:
        out.write("changed")
    found.add("snapshot, one file changed", *store.seal_measured(source, 2))
    first, second = f"{MODEL}/v1", f"{MODEL}/v2"
    found.command("show", "show", first)
    found.command("diff, one file changed", "diff", first, second)
    found.command("verify", "verify")
    found.command("export", "export", first, os.path.join(place, "out"))
    shutil.rmtree(os.path.join(place, "out"))


def by_mount(found, place, source):
    store = found.store
    point = store.mount(os.path.join(place, "mount"))
    try:
        version = store.version(point, MODEL, 1)
        read = scale.quietly
        found.daemon("mounted: stat of the version", read("stat", version))
        found.daemon("mounted: find, all of them", read("find", version))
        found.daemon("mounted: ls -lR, all of them", read("ls", "-lR", version))
        found.daemon("mounted: cat of 1,000 files", read("bash", "-c", f"cat {version}/d0000/*"))
        found.daemon("mounted: cat of metadata.json", read("cat", os.path.join(version, "metadata.json")))
        found.daemon("mounted: cat of status.json", read("cat", os.path.join(point, ".modelfs", "status.json")))
    finally:
        store.unmount(point)
    point = store.mount(os.path.join(place, "mount"))
    try:
        model = os.path.join(point, "drafted")
        os.mkdir(model)
        found.daemon("mounted: cp -r into a draft", read("cp", "-r", source + "/.", os.path.join(model, "draft")))
        found.daemon("mounted: snapshot of the draft", read("bash", "-c", f"echo many > {model}/snapshot"))
    finally:
        store.unmount(point)


def main(settings):
    out = report.Report(settings, "files")
    with machine.temporary(settings.place) as place:
        source = os.path.join(place, MODEL, "v1")
        scale.make_files(source, settings.files)
        found = Rows(ours.Store(place, settings), settings.files)
        by_commands(found, place, source)
        by_mount(found, place, source)
        out.table(f"Resident memory, {settings.files:,} files in one version", found.rows)
