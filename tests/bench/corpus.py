"""A small corpus of version histories, made with the standard library: no download, the same bytes every time.

Laid out as FAMILY/v1/FILE, FAMILY/v2/FILE, …, which is also what --corpus expects. The weights are Gaussian, and what
changes from version to version is modelled on fine-tunes: all weights a little, the head only, the upper layers only,
a product of two thin matrices, a longer header, a new name.
"""
import array
import json
import os
import random
import struct

WIDTH = 256
LAYERS = 4
VOCABULARY = 4096
SIGMA = 0.02
DTYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


def gaussian(chance, count, sigma=SIGMA):
    return array.array("f", (chance.gauss(0.0, sigma) for _ in range(count)))


def encode(weights, dtype):
    if dtype == "F32":
        return weights.tobytes()
    if dtype == "F16":
        return struct.pack(f"<{len(weights)}e", *weights)
    bits = array.array("I", weights.tobytes())
    # To the nearest, ties to even, as every trainer rounds.
    return array.array("H", ((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits)).tobytes()


def write_safetensors(path, tensors, dtype, notes=None):
    """`tensors`: name -> (shape, weights)."""
    header, data, end = {"__metadata__": {"format": "pt", **(notes or {})}}, [], 0
    for name, (shape, weights) in tensors.items():
        data.append(encode(weights, dtype))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data[-1])]}
        end += len(data[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.writelines(data)


def base_model(chance):
    tensors = {"embed.weight": ([VOCABULARY, WIDTH], gaussian(chance, VOCABULARY * WIDTH))}
    for layer in range(LAYERS):
        for part in ("query", "key", "value", "output"):
            tensors[f"layer.{layer}.{part}.weight"] = ([WIDTH, WIDTH], gaussian(chance, WIDTH * WIDTH))
            tensors[f"layer.{layer}.{part}.bias"] = ([WIDTH], gaussian(chance, WIDTH))
    tensors["head.weight"] = ([16, WIDTH], gaussian(chance, 16 * WIDTH))
    return tensors


def tuned(chance, tensors, share, is_touched):
    """Adds noise of `share` of the deviation to the tensors that `is_touched` names."""
    return {name: (shape, array.array("f", map(float.__add__, map(float, weights),
                                                (chance.gauss(0.0, SIGMA * share) for _ in weights))))
            if is_touched(name) else (shape, weights)
            for name, (shape, weights) in tensors.items()}


def low_rank(chance, tensors, rank=4):
    changed = dict(tensors)
    for layer in range(LAYERS):
        name = f"layer.{layer}.query.weight"
        weights = array.array("f", tensors[name][1])
        left, right = (gaussian(chance, rank * WIDTH) for _ in range(2))
        for row in range(WIDTH):
            for part in range(rank):
                factor = left[row * rank + part]
                for column in range(WIDTH):
                    weights[row * WIDTH + column] += factor * right[part * WIDTH + column]
        changed[name] = ([WIDTH, WIDTH], weights)
    return changed


def tuned_histories(place, chance):
    history = [base_model(chance)]
    history.append(tuned(chance, history[-1], 0.01, lambda name: True))
    history.append(tuned(chance, history[-1], 0.002, lambda name: True))
    history.append(tuned(chance, history[-1], 0.5, lambda name: name.startswith("head")))
    history.append(tuned(chance, history[-1], 0.005, lambda name: name.startswith(("head", "layer.3"))))
    history.append(low_rank(chance, history[-1]))
    history += [history[-1], history[-1]]
    for family, dtype in DTYPES.items():
        for number, tensors in enumerate(history, 1):
            name = "renamed.safetensors" if number == 8 else "model.safetensors"
            notes = {"licence": "apache-2.0", "note": "written after training"} if number >= 7 else None
            write_safetensors(f"{place}/tuned-{family}/v{number}/{name}", tensors, dtype, notes)


def tree(chance, number):
    nodes = 127
    return {"id": number, "left": [2 * i + 1 for i in range(nodes // 2)], "right": [2 * i + 2 for i in range(nodes // 2)],
            "feature": [chance.randrange(12) for _ in range(nodes // 2)],
            "threshold": [round(chance.gauss(0, 10), 4) for _ in range(nodes // 2)],
            "value": [round(chance.gauss(0, 0.1), 9) for _ in range(nodes)]}


def tree_history(place, chance):
    """Each version has the trees of the one before and some more, as text; the sixth is trained anew."""
    trees = []
    for number in range(1, 9):
        trees = [] if number == 6 else trees
        trees = trees + [tree(chance, len(trees) + i) for i in range(60 + 20 * number if not trees else 20)]
        directory = f"{place}/trees-json/v{number}"
        os.makedirs(directory)
        with open(f"{directory}/model.json", "w") as out:
            json.dump({"version": [1, 0], "count": len(trees), "trees": trees}, out)
        with open(f"{directory}/metrics.json", "w") as out:
            json.dump({"auc": round(0.9 + 0.003 * number, 4), "trees": len(trees)}, out)


def make(place, seed=1):
    chance = random.Random(seed)
    tuned_histories(place, chance)
    tree_history(place, chance)


def make_gaussian(place, mib=16, seed=2):
    """One version of plain Gaussian weights in each type of float, and one whose header grows by 4 KiB."""
    chance = random.Random(seed)
    weights = gaussian(chance, mib << 18)
    for family, dtype in DTYPES.items():
        count = len(weights) if dtype == "F32" else 2 * len(weights)
        tensor = weights if dtype == "F32" else weights + gaussian(chance, count - len(weights))
        write_safetensors(f"{place}/gaussian-{family}/v1/model.safetensors", {"w": ([count], tensor)}, dtype)
        if dtype == "BF16":
            for number, notes in ((1, None), (2, {"note": "".join(chance.choices("abcdefghijklmnop", k=4096))})):
                path = f"{place}/longer-header/v{number}/model.safetensors"
                write_safetensors(path, {"w": ([count], tensor)}, dtype, notes)


def families(place, wanted=""):
    """(name, directories of its versions in order) of each family; of `wanted` only, if any."""
    names = [name for name in wanted.split(",") if name]
    found = []
    for name in sorted(os.listdir(place)):
        versions = [entry for entry in os.listdir(os.path.join(place, name)) if entry[:1] == "v" and entry[1:].isdigit()] \
            if os.path.isdir(os.path.join(place, name)) else []
        if versions and (not names or name in names):
            ordered = sorted(versions, key=lambda entry: int(entry[1:]))
            found.append((name, [os.path.join(place, name, entry) for entry in ordered]))
    return found
