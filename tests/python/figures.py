#!/usr/bin/env python3
"""Two versions of tensors of every dtype, and what numpy says of each pair.

    figures.py DIRECTORY

Writes DIRECTORY/1 and DIRECTORY/2 with a safetensors and a GGUF file, and prints, as JSON, the figures of each tensor
that both have: numpy's, of float64, of elements that are finite on both sides. ml_dtypes and gguf decode what numpy
does not know.
"""
import json
import os
import struct
import sys

import gguf
import ml_dtypes
import numpy as np

CHANCE = np.random.default_rng(7)
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
          "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
          "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz}
# Those whose numbers are all finite, or none.
NO_INFINITIES = ("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
INTEGERS = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
            "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8}
# Blocks, and where each has its scales: halves, but for the one byte of MXFP4.
BLOCKS = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}


def floats():
    """(name, dtype, before, after) of tensors as trainers leave them, and of strange ones."""
    for word, dtype in FLOATS.items():
        scale = 1.0 if word.startswith("F8") else 0.02
        before = CHANCE.normal(0, scale, (300, 70))
        yield f"tuned.{word}", word, before.astype(dtype), (before + CHANCE.normal(0, scale / 50, before.shape)).astype(dtype)
        yield f"moved.{word}", word, (before + 30).astype(dtype), (before + 31).astype(dtype)
        odd = before.astype(dtype)
        odd[3, :5], changed = np.nan, before.astype(dtype) * dtype(1.5)
        changed[3, 4:9] = np.nan
        if word not in NO_INFINITIES:
            odd[7, 7], changed[8, 8] = np.inf, -np.inf
        yield f"odd.{word}", word, odd, changed.astype(dtype)
        yield f"zero.{word}", word, np.zeros(7, dtype), np.ones(7, dtype)
    # More than one part of a thread, and not a whole number of them.
    before = CHANCE.normal(0, 0.02, 700_001).astype(np.float32)
    after = before.copy()
    after[300_000:300_500] *= np.float32(1.25)
    yield "long.F32", "F32", before, after
    yield "scalar.F32", "F32", np.float32(2).reshape(()), np.float32(3).reshape(())


def integers():
    for word, dtype in INTEGERS.items():
        ends = np.iinfo(dtype)
        before = CHANCE.integers(ends.min, ends.max, 5_000, dtype=dtype, endpoint=True)
        after = before.copy()
        after[::3] = CHANCE.integers(ends.min, ends.max, len(after[::3]), dtype=dtype, endpoint=True)
        yield f"integer.{word}", word, before, after
    yield "flags.BOOL", "BOOL", CHANCE.random(999) < 0.5, CHANCE.random(999) < 0.4


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, word, values in tensors:
        stored = values.tobytes()
        header[name] = {"dtype": word, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


def blocks():
    """(name, type, stored bytes before and after) of tensors of blocks, whose scales are sane numbers."""
    for word, scales in BLOCKS.items():
        kind = gguf.GGMLQuantizationType[word]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows = 48
        stored = CHANCE.integers(0, 256, (rows, 512 // elements * size), dtype=np.uint8).reshape(rows, -1, size)
        for at in scales:
            scale = CHANCE.uniform(0.001, 0.01, stored.shape[:2]).astype(np.float16)
            stored[:, :, at:at + 2] = scale[:, :, None].view(np.uint8)
        if word == "MXFP4":
            stored[:, :, 0] = CHANCE.integers(118, 124, stored.shape[:2], dtype=np.uint8)
        after = stored.copy()
        # A byte that is no scale in any of them.
        after[::2, :, 16 if word != "MXFP4" else 5] ^= 0x11
        yield f"blocks.{word}", kind, stored.reshape(rows, -1), after.reshape(rows, -1)


def write_gguf(path, tensors):
    writer = gguf.GGUFWriter(path, "bert")
    for name, kind, stored in tensors:
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def spread(values):
    finite = values[np.isfinite(values)]
    return {"mean": finite.mean() if finite.size else None, "std": finite.std() if finite.size else None,
            "nan": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}


def figures(before, after):
    before, after = (np.asarray(side).astype(np.float64).ravel() for side in (before, after))
    both = np.isfinite(before) & np.isfinite(after)
    old, new = before[both], after[both]
    length = np.linalg.norm(old)
    return {"relative_l2": np.linalg.norm(new - old) / length if length else None,
            "cosine": old @ new / (length * np.linalg.norm(new)) if length else None,
            "max_abs": np.abs(new - old).max(), "compared": int(both.sum()),
            "before": spread(before), "after": spread(after)}


def main(place):
    plain, quantised = [*floats(), *integers()], list(blocks())
    for side, folder in enumerate(("1", "2")):
        os.makedirs(os.path.join(place, folder))
        write_safetensors(os.path.join(place, folder, "model.safetensors"),
                          [(name, word, sides[side]) for name, word, *sides in plain])
        write_gguf(os.path.join(place, folder, "model.gguf"),
                   [(name, kind, sides[side]) for name, kind, *sides in quantised])
    found = {name: figures(before, after) for name, _, before, after in plain}
    for name, kind, before, after in quantised:
        found[name] = figures(gguf.dequantize(before, kind), gguf.dequantize(after, kind))
    json.dump(found, sys.stdout)


main(sys.argv[1])
