"""The daemon's resident memory while versions are sealed and many threads read."""
import os
import random
import shutil
import threading
import time

import machine
import ours
import report
import speed

MIB = 1 << 20


class Sampler(threading.Thread):
    """The largest resident size seen, and what it is now."""

    def __init__(self, store):
        super().__init__(daemon=True)
        self.store, self.ended, self.largest, self.series = store, threading.Event(), 0, []

    def run(self):
        while not self.ended.wait(0.05):
            now, _ = self.store.memory()
            self.largest = max(self.largest, now)
            self.series.append(now)

    def peak(self):
        """Since the last time that this was asked."""
        largest, self.largest = max(self.largest, self.store.memory()[0]), 0
        return largest / MIB


def read_share(paths, seed, budget, failed):
    """Reads pieces of 4 KiB to 8 MiB, at random and in a row, until the budget is spent; EIO or a short read is a failure."""
    chance = random.Random(seed)
    try:
        while not budget():
            path = chance.choice(paths)
            size = os.path.getsize(path)
            with open(path, "rb", buffering=0) as source:
                at = chance.randrange(size)
                for _ in range(chance.randrange(1, 64)):
                    count = min(1 << chance.randrange(12, 24), size - at)
                    if count <= 0 or budget():
                        break
                    budget.spend(count)
                    if len(os.pread(source.fileno(), count, at)) != count:
                        raise OSError(f"a short read of {path} at {at}")
                    at = at + count if chance.random() < 0.7 else chance.randrange(size)
    except OSError as error:
        failed.append(error)


class Budget:
    """What readers may read together, in bytes, or until when. Called: whether it is spent."""

    def __init__(self, bytes_left=None, ends=None):
        self.left, self.ends, self.lock = bytes_left, ends, threading.Lock()

    def __call__(self):
        return self.left is not None and self.left <= 0 or self.ends is not None and self.ends < time.monotonic()

    def spend(self, count):
        with self.lock:
            if self.left is not None:
                self.left -= count


def read_all(paths, readers, budget):
    failed = []
    threads = [threading.Thread(target=read_share, args=(paths, seed, budget, failed)) for seed in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise machine.BenchError(f"while {readers} threads read: {failed[0]}")


def drop_often(paths, ended):
    """What the kernel keeps of these files goes every second: the daemon must serve what is read."""
    while not ended.wait(1.0):
        for path in paths:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(settings):
    out = report.Report(settings, "memory")
    with machine.temporary(settings.place) as place:
        first, second = speed.make_large(place, settings.mib)
        shutil.rmtree(second)
        store = ours.Store(place, settings)
        # Hot files are read by the kernel: the daemon would have nothing to do.
        options = ["--hot-bytes", "0"] if speed.can(settings, "mount", "--hot-bytes") else []
        point = store.mount(os.path.join(place, "mount"), *options)
        try:
            measure(settings, out, store, point, first)
        finally:
            store.unmount(point)


def measure(settings, out, store, point, first):
    sampler = Sampler(store)
    sampler.start()
    rows = [{"while": "mounted, nothing done", "peak MiB": store.memory()[0] / MIB, "then MiB": store.memory()[0] / MIB}]

    def row(what, work):
        sampler.peak()
        work()
        peak = sampler.peak()
        rows.append({"while": what, "peak MiB": peak, "then MiB": store.memory()[0] / MIB})
        machine.say(f"{what}: peak {peak:.0f} MiB")

    def seal():
        os.makedirs(os.path.join(point, speed.MODEL), exist_ok=True)
        for name in machine.files_below(first):
            shutil.copy(os.path.join(first, name), os.path.join(point, speed.MODEL, "draft", name))
        with open(os.path.join(point, speed.MODEL, "snapshot"), "w") as control:
            control.write("memory")

    row(f"sealing {settings.mib} MiB", seal)
    version = store.version(point, speed.MODEL, 1)
    paths = [os.path.join(version, name) for name in machine.files_below(first)]
    ended = threading.Event()
    dropper = threading.Thread(target=drop_often, args=(paths, ended), daemon=True)
    dropper.start()
    many = settings.readers
    row(f"{many} threads read {settings.mib} MiB", lambda: read_all(paths, many, Budget(settings.mib * MIB)))

    def both():
        sealing = threading.Thread(target=lambda: seal_others(point, first, settings.seals))
        sealing.start()
        read_all(paths, many, Budget(settings.seals * settings.mib * MIB))
        sealing.join()

    row(f"sealing {settings.seals} times {settings.mib} MiB while {many} threads read as much", both)
    if settings.minutes:
        for part in range(10):
            ends = time.monotonic() + settings.minutes * 6
            row(f"{many} threads read at random, part {part + 1} of 10 of {settings.minutes:g} minutes",
                lambda: read_all(paths, many, Budget(ends=ends)))
    ended.set()
    sampler.ended.set()
    dropper.join()
    sampler.join()
    out.table("Resident memory of the daemon", rows, "No hot files, and what the kernel keeps of them is dropped every "
              "second: the daemon serves what is read.")


def seal_others(point, first, count):
    """Seals other weights of the same size into other models, one after the other."""
    for number in range(1, count + 1):
        model = os.path.join(point, f"other{number}")
        os.makedirs(model)
        other = bytes((byte + number) % 256 for byte in range(256))
        for name in machine.files_below(first):
            with open(os.path.join(first, name), "rb") as source, open(os.path.join(model, "draft", name), "wb") as out:
                # The header says where the tensors are.
                out.write(source.read(MIB))
                while piece := source.read(MIB):
                    out.write(piece.translate(other))
        with open(os.path.join(model, "snapshot"), "w") as control:
            control.write("memory")
