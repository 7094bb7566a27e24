"""Loads model files as their own libraries do, from two places.  load_model.py make DIRECTORY MIB | compare LIST

`compare` takes a JSON list of [kind, file through the mount, the same file beside it, rounds] and prints, for each, the
median seconds of a load from each place, cold and again, and whether every tensor has the same bytes. A load touches all
tensors, so that what is mapped is also read. Runs under the interpreter that has the libraries.
"""
import hashlib
import json
import os
import statistics
import sys
import time
import zlib

import numpy


def plain(array):
    return numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)


def load_safetensors(path):
    from safetensors import safe_open
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def load_torch(path, **options):
    import torch
    return dict(tensors_in(torch.load(path, map_location="cpu", weights_only=False, **options)))


def tensors_in(value, name=""):
    import torch
    if isinstance(value, torch.Tensor):
        yield name, value.detach()
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_in(inner, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from tensors_in(inner, f"{name}/{key}")


def load_onnxruntime(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def load_xgboost(path):
    import xgboost
    booster = xgboost.Booster()
    booster.load_model(path)
    return {"booster": numpy.frombuffer(booster.save_raw("ubj"), dtype=numpy.uint8)}


LOADERS = {
    "safetensors (mmap)": load_safetensors,
    "torch.load": load_torch,
    "torch.load(mmap=True)": lambda path: load_torch(path, mmap=True),
    "onnxruntime": load_onnxruntime,
    "xgboost": load_xgboost,
    "numpy.load(mmap_mode='r')": lambda path: {"array": numpy.load(path, mmap_mode="r")},
}


def bytes_of(tensor):
    if isinstance(tensor, numpy.ndarray):
        return plain(tensor)
    import torch
    return tensor.contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else numpy.zeros(0, numpy.uint8)


def touch(loaded):
    if isinstance(loaded, dict):
        for tensor in loaded.values():
            zlib.crc32(bytes_of(tensor))


def digests(kind, path):
    """SHA-256 of each tensor, as the library gives it."""
    loaded = LOADERS[kind](path)
    if kind == "onnxruntime":
        import onnx
        model = onnx.load(path)
        loaded = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
        # Some models keep their weights in attributes of nodes.
        loaded["the whole graph"] = numpy.frombuffer(model.SerializeToString(deterministic=True), dtype=numpy.uint8)
    return {name: hashlib.sha256(bytes_of(tensor)).hexdigest() for name, tensor in loaded.items()}


def seconds(kind, path):
    began = time.perf_counter()
    touch(LOADERS[kind](path))
    return time.perf_counter() - began


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3")


def compare(kind, ours, theirs, rounds):
    try:
        LOADERS[kind](theirs)
    except Exception as error:  # Of the library, on a plain file: classes that are not installed, or an old format.
        return {"skipped": f"{type(error).__name__}: {error}"}
    times = {"ours": ([], []), "theirs": ([], [])}
    for _ in range(rounds):
        for where, path in (("ours", ours), ("theirs", theirs)):
            drop_caches()
            for which in (0, 1):
                times[where][which].append(seconds(kind, path))
    cold, again = ([statistics.median(times[where][which]) for where in ("ours", "theirs")] for which in (0, 1))
    found, expected = digests(kind, ours), digests(kind, theirs)
    return {"cold": cold, "again": again, "tensors": len(expected), "same": bool(expected) and found == expected}


def make(directory, mib):
    """One file for each loader, of about `mib` MiB of weights each."""
    import onnx
    import torch
    import xgboost
    from safetensors.torch import save_file
    os.makedirs(directory, exist_ok=True)
    at = lambda name: os.path.join(directory, name)
    torch.manual_seed(1)
    width, count = 1024, max(1, mib // 4)
    tensors = {f"layer.{i}.weight": torch.randn(width, width) * 0.02 for i in range(count)}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, at("model.safetensors"))
    torch.save({"model": tensors, "step": 7}, at("model.pt"))
    numpy.save(at("embedding.npy"), torch.cat(list(tensors.values())).numpy())
    nodes, weights, last = [], [], "x"
    for name, tensor in tensors.items():
        weights.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
        nodes.append(onnx.helper.make_node("MatMul", [last, name], [f"{name}.out"]))
        last = f"{name}.out"
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width])
    graph = onnx.helper.make_graph(nodes, "g", [value("x")], [value(last)], weights)
    version = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=version, ir_version=8), at("model.onnx"))
    features = numpy.random.default_rng(1).normal(size=(20_000, 10)).astype("f4")
    target = (features[:, 0] * features[:, 1] > 0).astype("f4")
    booster = xgboost.train({"max_depth": 8, "nthread": 1}, xgboost.DMatrix(features, target), 200)
    booster.save_model(at("model.ubj")), booster.save_model(at("model.json"))


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
        return
    for kind, ours, theirs, rounds in json.load(open(sys.argv[2])):
        print(json.dumps(compare(kind, ours, theirs, rounds)), flush=True)


if __name__ == "__main__":
    main()
