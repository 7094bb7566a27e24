#!/usr/bin/env python3
"""Files of many formats, and what their own libraries say of them.

    inspected.py DIRECTORY

Trains and writes small models into DIRECTORY with NumPy, safetensors, ONNX, GGUF, XGBoost, LightGBM, scikit-learn,
joblib and skops, and prints, as JSON, what each library reads back: {file: {path in the description: value}}.
"""
import collections
import json
import os
import pickle
import pickletools
import re
import sys

import gguf
import joblib
import lightgbm
import numpy as np
import onnx
import safetensors.numpy
import skops.io
import xgboost
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = ["age", "hours", "salary", "evaluation"]
WORDS = {"float32": "f32", "float64": "f64", "float16": "f16", "int8": "i8", "int16": "i16", "int32": "i32",
         "int64": "i64", "uint8": "u8", "bool": "bool"}


def data():
    chance = np.random.default_rng(11)
    values = chance.normal(0, 1, (400, len(NAMES)))
    return values, ((values[:, 0] > 0).astype(int) + (values[:, 1] > 0.5)).astype(int)


def word(array):
    return WORDS[str(array.dtype)]


def arrays():
    chance = np.random.default_rng(7)
    return {
        "layer.0.weight": chance.normal(0, 1, (8, 4)).astype(np.float32),
        "layer.0.bias": chance.normal(0, 1, 4).astype(np.float16),
        "steps": np.arange(3, dtype=np.int64),
        "mask": np.array([[True, False]]),
    }


def tensor_facts(listed):
    """What the description has of tensors that are (name, dtype, shape)."""
    listed = list(listed)
    return {"tensors": sorted([name, dtype, list(shape)] for name, dtype, shape in listed), "tensor_count": len(listed),
            "parameters": sum(int(np.prod(shape, dtype=np.int64)) for _, _, shape in listed)}


def write_arrays():
    held = arrays()
    safetensors.numpy.save_file(held, "m.safetensors", metadata={"format": "np", "author": "Ann"})
    with safetensors.safe_open("m.safetensors", "np") as opened:
        read = [(name, word(opened.get_tensor(name)), opened.get_tensor(name).shape) for name in opened.keys()]
        yield "m.safetensors", {**tensor_facts(read), "safetensors.metadata": opened.metadata()}
    np.savez("m.npz", **held)
    read = np.load("m.npz")
    yield "m.npz", tensor_facts((name, word(read[name]), read[name].shape) for name in read.files)
    np.save("m.npy", held["layer.0.weight"])
    read = np.load("m.npy", mmap_mode="r")
    yield "m.npy", tensor_facts([("array", word(read), read.shape)])


def write_gguf():
    writer = gguf.GGUFWriter("m.gguf", "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a", "b", "c"])
    writer.add_token_scores([0.5] * 100)
    weights = np.random.default_rng(3).normal(0, 1, (6, 64)).astype(np.float32)
    writer.add_tensor("plain", weights)
    writer.add_tensor("half", weights.astype(np.float16))
    packed = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader("m.gguf")
    words = {"F32": "f32", "F16": "f16"}
    # Its shapes are innermost first.
    listed = [(it.name, words.get(it.tensor_type.name, it.tensor_type.name.lower()), [int(n) for n in reversed(it.shape)])
              for it in reader.tensors]
    value = lambda key: reader.fields[key].contents()
    yield "m.gguf", {
        **tensor_facts(listed),
        "gguf.version": int(reader.fields["GGUF.version"].contents()),
        "gguf.metadata.general.architecture": value("general.architecture"),
        "gguf.metadata.general.name": value("general.name"),
        "gguf.metadata.llama.block_count": value("llama.block_count"),
        "gguf.metadata.tokenizer.ggml.tokens": value("tokenizer.ggml.tokens"),
        "gguf.metadata.tokenizer.ggml.scores": {"length": len(value("tokenizer.ggml.scores")),
                                               "first": value("tokenizer.ggml.scores")[:8]},
    }


def write_onnx():
    weights = np.random.default_rng(3).normal(0, 1, (4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="dense"), helper.make_node("Relu", ["h"], ["r"]),
         helper.make_node("Normalizer", ["r"], ["y"], domain="ai.onnx.ml", norm="L2")],
        "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        initializer=[numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(3, np.float32), "b")])
    model = helper.make_model(graph, producer_name="tests", producer_version="1.5", opset_imports=[
        helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)])
    helper.set_model_props(model, {"task": "scoring"})
    onnx.checker.check_model(model)
    onnx.save(model, "m.onnx")
    read = onnx.load("m.onnx")
    operators = collections.defaultdict(collections.Counter)
    for node in read.graph.node:
        operators[node.domain or "ai.onnx"][node.op_type] += 1

    def port(value):
        kind = value.type.tensor_type
        sizes = [size.dim_param or size.dim_value for size in kind.shape.dim]
        return {"name": value.name, "dtype": WORDS[helper.tensor_dtype_to_np_dtype(kind.elem_type).name], "shape": sizes}

    listed = [(it.name, word(numpy_helper.to_array(it)), it.dims) for it in read.graph.initializer]
    yield "m.onnx", {
        **tensor_facts(listed),
        "onnx.ir_version": read.ir_version,
        "onnx.opsets": {it.domain or "ai.onnx": it.version for it in read.opset_import},
        "onnx.producer_name": read.producer_name, "onnx.producer_version": read.producer_version,
        "onnx.graph": read.graph.name, "onnx.node_count": len(read.graph.node), "onnx.operators": operators,
        "onnx.inputs": [port(it) for it in read.graph.input], "onnx.outputs": [port(it) for it in read.graph.output],
        "onnx.initializers": [it.name for it in read.graph.initializer],
        "onnx.metadata": {it.key: it.value for it in read.metadata_props},
    }


def write_xgboost():
    values, labels = data()
    settings = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "eta": 0.3, "nthread": 2, "seed": 1}
    model = xgboost.train(settings, xgboost.DMatrix(values, labels, feature_names=NAMES), 5)
    for ending in ("json", "ubj"):
        model.save_model(f"m.{ending}")
        read = xgboost.Booster(model_file=f"m.{ending}")
        dumps = read.get_dump(dump_format="json")
        splits, leaves = (sum(dump.count(f'"{word}":') for dump in dumps) for word in ("split", "leaf"))
        yield f"m.{ending}", {
            "trees.library": "xgboost", "trees.booster": "gbtree", "trees.objective": "multi:softprob",
            "trees.version": xgboost.__version__, "trees.groups": 3,
            "trees.trees": len(dumps), "trees.splits": splits, "trees.leaves": leaves,
            "trees.features": read.feature_names,
            "trees.feature_splits": {name: int(count) for name, count in read.get_score(importance_type="weight").items()},
            "trees.depth": max(map(depth, dumps)),
        }


def depth(tree):
    """Splits on the longest way through a tree that is dumped as JSON."""
    def below(node):
        return 1 + max(map(below, node["children"])) if "children" in node else 0
    return below(json.loads(tree))


def write_lightgbm():
    values, labels = data()
    settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 7, "verbose": -1, "num_threads": 2, "seed": 1}
    lightgbm.train(settings, lightgbm.Dataset(values, labels, feature_name=NAMES), 4).save_model("m.txt")
    read = lightgbm.Booster(model_file="m.txt")
    dumped = read.dump_model()

    def below(node):
        return 1 + max(below(node["left_child"]), below(node["right_child"])) if "left_child" in node else 0

    counts = {name: int(count) for name, count in zip(read.feature_name(), read.feature_importance("split")) if count}
    yield "m.txt", {
        "trees.library": "lightgbm", "trees.version": dumped["version"], "trees.objective": dumped["objective"],
        "trees.groups": dumped["num_tree_per_iteration"], "trees.trees": read.num_trees(),
        "trees.leaves": sum(tree["num_leaves"] for tree in dumped["tree_info"]),
        "trees.features": read.feature_name(), "trees.feature_splits": counts, "trees.splits": sum(counts.values()),
        "trees.depth": max(below(tree["tree_structure"]) for tree in dumped["tree_info"]),
        "trees.parameters.num_leaves": "7",
    }


def pickle_facts(text, writer):
    """What `pickletools` says of a pickle."""
    opcodes, imports, texts = collections.Counter(), set(), []
    for opcode, argument, _ in pickletools.genops(text):
        opcodes[opcode.name] += 1
        if opcode.name in ("GLOBAL", "INST"):
            imports.add(argument.replace(" ", "."))
    return {"pickle.writer": writer, "pickle.opcodes": opcodes, "pickle.complete": True, "pickle.pickles": 1,
            "pickle.protocol": max([argument for opcode, argument, _ in pickletools.genops(text) if opcode.name == "PROTO"],
                                   default=0)}, imports


class Spy(pickle.Unpickler):
    """Notes each import that loading makes."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.imports = set()

    def find_class(self, module, name):
        self.imports.add(f"{module}.{name}")
        return super().find_class(module, name)


def write_pickles():
    values, labels = data()
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(values, labels)
    for protocol in range(6):
        path = f"forest-{protocol}.pkl"
        with open(path, "wb") as file:
            pickle.dump(forest, file, protocol=protocol)
        with open(path, "rb") as file:
            text = file.read()
            file.seek(0)
            spy = Spy(file)
            spy.load()
        facts, _ = pickle_facts(text, "pickle")
        old = {"__builtin__": "builtins", "copy_reg": "copyreg"}
        names = {re.sub(r"^\w+", lambda it: old.get(it[0], it[0]), name) for name in spy.imports}
        yield path, {**facts, "pickle.globals.keys": sorted(names), "pickle.unsafe": []}
    mixed = {"objects": np.array([{"a": 1}, [2.5, "x"], None], dtype=object), "rows": np.zeros(3, [("x", "f4"), ("y", "i8")]),
             "texts": np.array(["ab", "cde"]), "times": np.zeros(2, "datetime64[s]"), "empty": np.zeros((0, 4)),
             "large": np.arange(100_000, dtype=np.float32), "forest": forest}
    for path, compress in (("mixed.joblib", 0), ("zlib.joblib", 3), ("gzip.joblib", ("gzip", 3))):
        joblib.dump(mixed, path, compress=compress)
        joblib.load(path)
        facts = {"pickle.writer": "joblib", "pickle.complete": True, "pickle.unsafe": [], "pickle.pickles": 2}
        yield path, facts if compress == 0 else {**facts, "pickle.compression": path.split(".")[0]}

    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with open("evil.pkl", "wb") as file:
        pickle.dump([1, Evil()], file)
    yield "evil.pkl", {"pickle.globals": {f"{os.system.__module__}.system": "dangerous"}}


def write_skops():
    values, labels = data()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(values, labels)
    skops.io.dump(model, "line.skops")
    yield "line.skops", {"skops.untrusted": skops.io.get_untrusted_types(file="line.skops"),
                         "skops.skops_version": skops.__version__}
    model = make_pipeline(Own(), LogisticRegression()).fit(values, labels)
    skops.io.dump(model, "own.skops")
    yield "own.skops", {"skops.untrusted": skops.io.get_untrusted_types(file="own.skops")}


class Own(StandardScaler):
    """A class that nobody else has."""


def main():
    os.chdir(sys.argv[1])
    writers = (write_arrays, write_gguf, write_onnx, write_xgboost, write_lightgbm, write_pickles, write_skops)
    print(json.dumps({path: facts for writer in writers for path, facts in writer()}))


if __name__ == "__main__":
    main()
