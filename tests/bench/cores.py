"""Sealing and reading one large model of bf16 weights on 1, 2, 4, … processors, readers and daemon together."""
import os
import shutil
import statistics

import machine
import ours
import report
import speed

# The first read of a round pays for memory that the machine had not used for a while.
READS = 3


def counts(limit):
    """1, 2, 4, … and as many as there are."""
    found = [1]
    while found[-1] < limit:
        found.append(min(2 * found[-1], limit))
    return found


def write_shards(directory, mib, shards):
    """One model of bf16 weights in so many files, about as long, no two of which share anything."""
    weights = speed.pieces("BF16", mib)
    for number in range(shards):
        name = f"weights-{number + 1:05}-of-{shards:05}.safetensors"
        share = mib * (number + 1) // shards - mib * number // shards
        speed.write_large(os.path.join(directory, name), "BF16", share, weights)


def one_round(source, place, settings):
    """Costs of sealing into a new store, and of reading the version in place."""
    below = os.path.join(place, "round")
    os.makedirs(below)
    try:
        store = ours.Store(below, settings)
        speed.read_below(source)
        sealing = machine.cost(lambda: store.seal(source, 1))
        point = store.mount(os.path.join(below, "mount"), "--hot-bytes", "0")
        try:
            version = store.version(point, speed.MODEL, 1)
            readings = [cold_read(store, version, source) for _ in range(READS)]
        finally:
            store.unmount(point)
        return {"seal": sealing, "read": machine.median_cost(readings)}
    finally:
        shutil.rmtree(below, ignore_errors=True)


def cold_read(store, version, source):
    """Reads a version of which neither the plain nor the stored bytes are in the page cache, as `speed.read_twice`."""
    speed.read_below(source)
    for directory in (source, version, os.path.join(store.path, "packs")):
        machine.forget(directory)
    burnt = store.cpu_seconds()
    reading = machine.cost(lambda: speed.timed_read(version, machine.bytes_below(source)))
    return reading._replace(cpu=reading.cpu + store.cpu_seconds() - burnt)


def main(settings):
    allowed = sorted(os.sched_getaffinity(0))
    if not 1 <= settings.shards <= settings.mib:
        raise machine.BenchError(f"--shards {settings.shards}: expected 1 to {settings.mib}, a MiB for each")
    out = report.Report(settings, "cores")
    with machine.temporary(settings.place) as place:
        source = os.path.join(place, speed.MODEL, "v1")
        os.makedirs(source)
        machine.say(f"making {settings.mib} MiB of weights")
        write_shards(source, settings.mib, settings.shards)
        rounds = {count: [] for count in counts(len(allowed))}
        try:
            for number in range(settings.rounds):
                for count, found in rounds.items():
                    machine.say(f"round {number + 1}: {count} of {len(allowed)} processors")
                    os.sched_setaffinity(0, allowed[:count])
                    found.append(one_round(source, place, settings))
        finally:
            os.sched_setaffinity(0, allowed)
        out.table("One large model, by processors", rows(rounds, machine.bytes_below(source)),
                  f"bf16 weights; files: {settings.shards}. / 1: times the speed on one. Sealing: what is read is in the page "
                  "cache. Reading: through the mount, from the packs, with nothing in the page cache. CPU: seconds of all "
                  "processes together.")


def rows(rounds, logical):
    def median(found, what, part):
        return statistics.median(getattr(got[what], part) for got in found)

    base = {what: median(rounds[1], what, "wall") for what in ("seal", "read")}
    return [{"processors": count,
             **{title: value for what in ("seal", "read") for title, value in (
                 (f"{what} MB/s", logical / 1e6 / median(found, what, "wall")),
                 (f"{what} / 1", base[what] / median(found, what, "wall")),
                 (f"{what} CPU s/GB", median(found, what, "cpu") / logical * 1e9))}}
            for count, found in rounds.items()]
