"""One large model of bf16 and fp32 weights: sealing it, sealing it again, reading it in place; beside ext4 and peers."""
import itertools
import os
import shutil
import struct
import time

import corpus
import machine
import ours
import peers
import report

MIB = 1 << 20
MODEL = "large"


def pieces(dtype, mib):
    """`mib` pieces of 1 MiB of Gaussian weights, no two of which share a run of bytes.

    Gaussian numbers are slow to make: each piece is the same ones, turned, with other bits in their mantissas."""
    import random
    chance = random.Random(dtype)
    width, low = (2, b"\x7f\x00") if dtype == "BF16" else (4, b"\xff\xff\x7f\x00")
    block = corpus.encode(corpus.gaussian(chance, MIB // width), dtype)
    allowed = int.from_bytes(low * (MIB // width), "little")
    for _ in range(mib):
        turn = chance.randrange(MIB // width) * width
        turned = int.from_bytes(block[turn:] + block[:turn], "little")
        mask = int.from_bytes(chance.randbytes(1024) * 1024, "little") & allowed
        yield (turned ^ mask).to_bytes(MIB, "little")


def write_large(path, dtype, mib, weights=None):
    """One tensor of `mib` MiB, of new weights or of the next of these."""
    weights = weights or pieces(dtype, mib)
    header = f'{{"w":{{"dtype":"{dtype}","shape":[{mib << (19 if dtype == "BF16" else 18)}],"data_offsets":[0,{mib << 20}]}}}}'
    header += " " * (-len(header) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header.encode())
        out.writelines(itertools.islice(weights, mib))


def make_large(place, mib):
    """The same weights twice, as two versions with other names, and the directory of the first."""
    first, second = (os.path.join(place, MODEL, name) for name in ("v1", "v2"))
    os.makedirs(first), os.makedirs(second)
    for dtype in ("BF16", "F32"):
        write_large(os.path.join(first, f"{dtype}.safetensors"), dtype, mib // 2)
        shutil.copy(os.path.join(first, f"{dtype}.safetensors"), os.path.join(second, f"again-{dtype}.safetensors"))
    return first, second


def read_below(directory):
    buffer, total = bytearray(MIB), 0
    for name in machine.files_below(directory):
        if name != "metadata.json":
            with open(os.path.join(directory, name), "rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    total += count
    return total


def timed_read(directory, expected):
    began = time.perf_counter()
    total = read_below(directory)
    if total != expected:
        raise machine.BenchError(f"`{directory}` gave {total} bytes, expected {expected}")
    return total / MIB / (time.perf_counter() - began)


def read_twice(version, expected, stored, source):
    """MiB/s with nothing of what is stored in the page cache, and again; `version` was not read since it was mounted.

    The plain files are read before, and dropped: a virtual machine gives memory back that it does not use, and the
    next who needs it pays."""
    read_below(source)
    machine.forget(source)
    machine.forget(stored)
    return timed_read(version, expected), timed_read(version, expected)


def can(settings, *words):
    """Whether this modelfs knows an option of `mount`, or a verb."""
    try:
        return words[-1] in machine.run([settings.binary, *words[:-1], "--help"]).decode()
    except machine.BenchError:
        return False


def read_ours(store, point, first, settings):
    """Cold and again: served by the daemon, and, where this modelfs has them, from hot files."""
    found = {}
    cold = ["--hot-bytes", "0"] if can(settings, "mount", "--hot-bytes") else []
    for name, options in [("served", cold)] + ([("hot", [])] if can(settings, "warm") else []):
        store.mount(point, *options)
        try:
            version = store.version(point, MODEL, 1)
            if name == "hot":
                machine.run([*store.command, "warm", f"{MODEL}/v1"])
            found[name] = read_twice(version, machine.bytes_below(first), store.path, first)
            if name == "served":
                machine.require_same(first, version, "modelfs")
        finally:
            store.unmount(point)
    return found


def one_round(kind, first, second, place, settings):
    """What one store does: seals, then reads the first version through its mount."""
    below = os.path.join(place, kind.name)
    os.makedirs(below)
    try:
        store = kind(below, settings)
        read_below(first)
        sealing = machine.cost(lambda: (store.seal(first, 1), store.finish()))
        found = {"seal": sealing, "bytes": store.stored()}
        if kind is ours.Store or issubclass(kind, (peers.Restic, peers.Borg, peers.Casync, peers.Xet)):
            read_below(second)
            found["again"] = machine.cost(lambda: store.seal(second, 2))
        # Not below what is dropped from the page cache.
        point = os.path.join(place, "mount")
        if kind is ours.Store:
            found |= read_ours(store, point, first, settings)
        elif kind.mounts:
            store.mount(point)
            try:
                found["served"] = read_twice(store.version(point, MODEL, 1), machine.bytes_below(first), below, first)
            finally:
                store.unmount(point)
        return found
    finally:
        shutil.rmtree(below, ignore_errors=True)


def median(rounds, pick):
    values = sorted(pick(found) for found in rounds)
    return values[len(values) // 2] if len(values) % 2 else (values[len(values) // 2 - 1] + values[len(values) // 2]) / 2


def main(settings):
    kinds = [ours.Store] + [kind for kind in peers.chosen(settings) if kind not in (peers.Zstd19, peers.Zipnn)]
    out = report.Report(settings, "speed")
    with machine.temporary(settings.place) as place:
        machine.say(f"making {settings.mib} MiB of weights")
        first, second = make_large(place, settings.mib)
        rounds = {kind.name: [] for kind in kinds}
        plain = []
        for number in range(settings.rounds):
            plain.append(read_twice(first, machine.bytes_below(first), first, first))
            for kind in kinds:
                machine.say(f"round {number + 1}: {kind.name}")
                try:
                    rounds[kind.name].append(one_round(kind, first, second, place, settings))
                except machine.BenchError as error:
                    machine.say(f"{kind.name}: {error}")
        out.table("Sealing one large model", seal_rows(rounds, machine.bytes_below(first)),
                  "MB/s and times modelfs by the clock; CPU seconds per GB of all processors together. `again`: the same "
                  "weights under other names.")
        out.table("Reading it in place", read_rows(rounds, plain),
                  "MiB/s; / ext4: of reading the plain files in the same run. Cold: mounted anew, and nothing of the "
                  "store in the page cache.")


def seal_rows(rounds, logical):
    rows = []
    mine = median(rounds["modelfs"], lambda found: found["seal"].wall)
    for name, found in rounds.items():
        if found:
            wall = median(found, lambda got: got["seal"].wall)
            row = {"store": name, "stored / logical": found[0]["bytes"] / logical, "seal MB/s": logical / 1e6 / wall,
                   "time / modelfs": wall / mine, "CPU s/GB": median(found, lambda got: got["seal"].cpu) / logical * 1e9}
            again = median(found, lambda got: got["again"].wall) if "again" in found[0] else None
            row["again MB/s"] = logical / 1e6 / again if again else None
            row["again CPU s/GB"] = median(found, lambda got: got["again"].cpu) / logical * 1e9 if again else None
            rows.append(row)
    return rows


def read_rows(rounds, plain):
    base = [median(plain, lambda pair: pair[which]) for which in (0, 1)]
    rows = [{"store": "ext4", "cold": base[0], "cold / ext4": 1.0, "again": base[1], "again / ext4": 1.0}]
    for name, found in rounds.items():
        for how in ("served", "hot"):
            if found and how in found[0]:
                cold, again = (median(found, lambda got: got[how][which]) for which in (0, 1))
                rows.append({"store": f"{name}, {how}" if name == "modelfs" else name, "cold": cold,
                             "cold / ext4": cold / base[0], "again": again, "again / ext4": again / base[1]})
    served = next((row["cold"] for row in rows if row["store"] == "modelfs, served"), None)
    for row in rows:
        row["modelfs served / this, cold"] = served / row["cold"] if served else None
    return rows
