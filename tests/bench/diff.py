"""What it costs to compare two versions of one large model of which a share changed: time, and what is read for it."""
import json
import os
import random
import time

import machine
import ours
import report
import speed

MIB = 1 << 20
MODEL = "large"
TENSOR_MIB = 4
HEAD_BYTES = 64 << 10
# The last bits of a bf16's mantissa, as a later epoch changes them.
TOUCH = int.from_bytes(b"\x03\x00" * (MIB // 2), "little")


def header(count):
    """The header of `count` tensors and a small head."""
    tensors, end = {}, 0
    for name, size in [*((f"layer.{number}.weight", TENSOR_MIB * MIB) for number in range(count)), ("head.weight", HEAD_BYTES)]:
        tensors[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_model(path, count, changed, head):
    """A model of `count` tensors, those numbered in `changed` other than in the first version; `head`: a byte of its own."""
    with open(path, "wb") as out:
        out.write(header(count))
        for number, piece in enumerate(speed.pieces("BF16", count * TENSOR_MIB)):
            if number // TENSOR_MIB in changed:
                piece = (int.from_bytes(piece, "little") ^ TOUCH).to_bytes(MIB, "little")
            out.write(piece)
        out.write(bytes([head, 0x3c]) * (HEAD_BYTES // 2))


def steps(count):
    """(what changed, the tensors that did, bytes of what did) of each version after the first."""
    order = random.Random(5).sample(range(count), count)
    yield "the head only", set(), HEAD_BYTES
    for percent in (1, 5, 20):
        changed = set(order[:max(1, round(count * percent / 100))])
        yield f"{percent} %", changed, len(changed) * TENSOR_MIB * MIB


def seal_all(store, below, count):
    """The first version, then one for each step that differs from it in that step only."""
    source = os.path.join(below, MODEL, "source")
    os.makedirs(source)
    path = os.path.join(source, "model.safetensors")
    write_model(path, count, set(), 0)
    store.seal(source, 1)
    for number, (what, changed, _) in enumerate(steps(count), 2):
        machine.say(f"sealing: {what}")
        write_model(path, count, changed, int(not changed))
        store.seal(source, number)
    os.remove(path)


def bytes_read_by(daemon):
    """Bytes that a process got from read calls so far."""
    lines = dict(line.split(": ") for line in open(f"/proc/{daemon.pid}/io"))
    return int(lines["rchar"])


def one_round(store, point, count):
    """Seconds, bytes read as the report has it, and bytes of the store that the daemon read, of each pair."""
    store.mount(point)
    try:
        machine.run([*store.command, "diff", f"{MODEL}/v1", f"{MODEL}/v1", "--json"])
        found = []
        for number, _ in enumerate(steps(count), 2):
            before, began = bytes_read_by(store.daemon), time.perf_counter()
            said = json.loads(machine.run([*store.command, "diff", f"{MODEL}/v1", f"{MODEL}/v{number}", "--json"]))
            found.append({"wall": time.perf_counter() - began, "read": said["bytes_read"],
                          "stored": bytes_read_by(store.daemon) - before})
        return found
    finally:
        store.unmount(point)


def main(settings):
    count = max(20, settings.mib // TENSOR_MIB)
    out = report.Report(settings, "diff")
    with machine.temporary(settings.place) as place:
        store = ours.Store(place, settings)
        seal_all(store, place, count)
        rounds = [one_round(store, os.path.join(place, "mount"), count) for _ in range(settings.rounds)]
    rows = []
    for step, (what, _, changed) in enumerate(steps(count)):
        of_step = [found[step] for found in rounds]
        rows.append({"changed": what, "MiB": changed / MIB, "read / changed": of_step[0]["read"] / changed,
                     "of the store / changed": speed.median(of_step, lambda found: found["stored"]) / changed,
                     "seconds": speed.median(of_step, lambda found: found["wall"])})
    out.table(f"Comparing two versions of {count * TENSOR_MIB} MiB of bf16 weights", rows,
              "By the clock, from the command to its report, of a mount that was asked for something else before. Both "
              "sides of what changed are read: twice its bytes, of the store less, since it is compressed.")
