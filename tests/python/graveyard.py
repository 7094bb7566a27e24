"""Makes a folder of models as people leave them: graveyard.py DIR

Families of really trained models, renamed, copied with and without their times, saved again in other containers,
nearly the same, broken; data, programs and pictures beside them.  Prints the truth as JSON: families with their
paths in order, copies, what is broken, what runs code when loaded, what is no model."""
import datetime
import json
import os
import pickle
import shutil
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict

import joblib
import lightgbm
import numpy
import onnx
import onnx.helper
import onnx.numpy_helper
import xgboost
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.neural_network import MLPClassifier

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "churn")
START = datetime.datetime(2023, 1, 2, 9, 0, tzinfo=datetime.timezone.utc)


class Graveyard:
    def __init__(self, root):
        self.root = root
        self.families, self.copies, self.broken, self.pickles, self.others = {}, {}, [], [], []

    def path(self, *names):
        path = os.path.join(self.root, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def date(self, path, day):
        """Says that a file, or all below a directory, was written on the so-and-so-many-th day."""
        moment = (START + datetime.timedelta(days=day)).timestamp()
        whole = os.path.join(self.root, path)
        below = [os.path.join(place, name) for place, _, names in os.walk(whole) for name in names]
        for each in below or [whole]:
            os.utime(each, (moment, moment))

    def member(self, family, path, day):
        """The next version of a family lies here."""
        self.date(path, day)
        self.families.setdefault(family, []).append(path)

    def copy(self, source, target, day=None):
        """The same lies there too, with its time or with a new one."""
        whole = self.path(*target.split("/"))
        if os.path.isdir(os.path.join(self.root, source)):
            shutil.copytree(os.path.join(self.root, source), whole, copy_function=shutil.copy2)
        else:
            shutil.copy2(os.path.join(self.root, source), whole)
        if day is not None:
            self.date(target, day)
        self.copies[target] = source


def network(steps):
    """States of a network that learns to read digits, one after each step."""
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    model = MLPClassifier((448, 448), learning_rate_init=2e-4, batch_size=256, random_state=7)
    for _ in range(steps):
        model.partial_fit(x, y, classes=range(10))
        yield tensors_of(model)


def tensors_of(model):
    tensors = {}
    for layer, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_)):
        tensors[f"layers.{layer}.weight"] = numpy.ascontiguousarray(weights.T.astype("<f4"))
        tensors[f"layers.{layer}.bias"] = bias.astype("<f4")
    return tensors


def new_head(tensors, seed):
    """Only the last layer learnt something."""
    changed = dict(tensors)
    last = max(name for name in tensors if name.endswith("weight"))
    noise = numpy.random.default_rng(seed).normal(0, 0.01, tensors[last].shape)
    changed[last] = (tensors[last] + noise).astype("<f4")
    return changed


def save_torch(path, tensors):
    """What torch.save writes: a ZIP with a pickle of where the numbers are, and a member for each tensor."""
    class Storage:
        def __init__(self, key, count):
            self.key, self.count = key, count

    class Tensor:
        def __init__(self, storage, shape):
            self.storage, self.shape = storage, shape

    out = []
    def text(value):
        data = value.encode()
        out.append(b"X" + struct.pack("<I", len(data)) + data)
    def number(value):
        out.append(b"J" + struct.pack("<i", value))
    out.append(b"\x80\x02}(")
    for key, (name, array) in enumerate(tensors.items()):
        text(name)
        out.append(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        text("storage")
        out.append(b"ctorch\nFloatStorage\n")
        text(str(key))
        text("cpu")
        number(array.size)
        out.append(b"tQ")
        number(0)
        out.append(b"(")
        [number(size) for size in array.shape]
        out.append(b"t(")
        [number(stride // array.itemsize) for stride in array.strides]
        out.append(b"t\x89ccollections\nOrderedDict\n)RtR")
    out.append(b"u.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"".join(out))
        archive.writestr("archive/version", "3\n")
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())


def save_onnx(path, tensors):
    """A graph of the network, its tensors as initializers of the same names."""
    nodes, value = [], "input"
    layers = len(tensors) // 2
    for layer in range(layers):
        end = "logits" if layer == layers - 1 else f"hidden{layer}"
        names = [value, f"layers.{layer}.weight", f"layers.{layer}.bias"]
        nodes.append(onnx.helper.make_node("Gemm", names, [end], transB=1))
        value = end
        if layer < layers - 1:
            nodes.append(onnx.helper.make_node("Relu", [value], [value + "r"]))
            value += "r"
    port = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "digits", [port("input", 1, ["n", 64])], [port("logits", 1, ["n", 10])],
                                   [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()])
    onnx.save(onnx.helper.make_model(graph), path)


def digits_network(yard):
    """Safetensors in one directory; words in their names; the newest differ in the head only."""
    states = list(network(9))
    for index, tensors in enumerate(states[:6], 1):
        path = f"vision/digits_v{index}.safetensors"
        save_file(tensors, yard.path(path), metadata={"step": str(index)})
        yard.member("digits", path, 10 * index)
    words = ["digits_final", "digits_final_FINAL", "digits_final_FINAL_v2"]
    tensors = states[6]
    for index, word in enumerate(words):
        path = f"vision/{word}.safetensors"
        save_file(tensors, yard.path(path))
        yard.member("digits", path, 100 + index)
        tensors = new_head(tensors, index)
    # Somebody took it home, called it something, and changed the head once more.
    path = "home/bob/stuff/asdf.safetensors"
    save_file(tensors, yard.path(path))
    yard.member("digits", path, 120)
    # The same numbers in other containers.
    save_torch(yard.path("exports/digits_for_torch.pt"), tensors)
    yard.member("digits", "exports/digits_for_torch.pt", 121)
    save_onnx(yard.path("exports/digits_for_serving.onnx"), tensors)
    yard.member("digits", "exports/digits_for_serving.onnx", 122)
    yard.pickles.append("exports/digits_for_torch.pt")
    yard.copy("vision/digits_final.safetensors", "vision/Copy of digits_final (1).safetensors", 130)
    yard.copy("vision/digits_v3.safetensors", "home/ann/good_one.safetensors", 131)
    for index, tensors in enumerate(states, 1):
        # One directory a run, with what the trainer noted; half precision is a model of its own.
        half = {name: array.astype("<f2") for name, array in tensors.items()}
        save_file(half, yard.path(f"runs/digits-fp16/run_{index}/best.safetensors"))
        with open(yard.path(f"runs/digits-fp16/run_{index}/metrics.json"), "w") as file:
            json.dump({"step": index, "loss": 1 / index}, file)
        yard.member("digits-fp16", f"runs/digits-fp16/run_{index}", 200 + index)
    return states


def checkpoints(yard, states):
    """Directories as a trainer leaves them: two shards, a configuration, its state."""
    for index, tensors in enumerate(states[:5], 1):
        place = f"hf/reader/checkpoint-{index * 50}"
        names = list(tensors)
        for shard, part in enumerate([names[:2], names[2:]], 1):
            save_file({name: tensors[name] * 2 for name in part},
                      yard.path(f"{place}/model-0000{shard}-of-00002.safetensors"))
        for name, value in [("config.json", {"model_type": "reader"}), ("trainer_state.json", {"step": index})]:
            with open(yard.path(f"{place}/{name}"), "w") as file:
                json.dump(value, file)
        yard.member("reader", place, 300 + index)
    yard.copy("hf/reader/checkpoint-250", "backup/reader-best", 320)


def churn(yard):
    """The fixtures: directories with a graph and its numbers."""
    for index in range(1, 4):
        place = f"churn/v{index}"
        shutil.copytree(os.path.join(FIXTURES, f"v{index}"), yard.path(place))
        yard.member("churn", place, 400 + index)
    model = onnx.load(os.path.join(FIXTURES, "v3", "weights.onnx"))
    model.producer_name = "somebody"
    onnx.save(model, yard.path("churn_reexported.onnx"))
    yard.member("churn", "churn_reexported.onnx", 410)
    for index in range(1, 4):
        yard.copy(f"churn/v{index}/weights.onnx", f"backup/2024/churn_{index}_old.onnx", 420)


def boosted(yard):
    """Text of boosted trees, dated by its name; copying made all times the same."""
    digits = load_digits()
    options = {"objective": "binary", "num_leaves": 31, "verbose": -1, "num_threads": 2, "seed": 7}
    booster = None
    for index in range(6):
        data = lightgbm.Dataset(digits.data, digits.target % 2)
        booster = lightgbm.train(options, data, 30, init_model=booster, keep_training_booster=True)
        path = f"fraud/fraud_2023-{index + 1:02}-15.txt"
        booster.save_model(yard.path(path))
        yard.member("fraud", path, 500)


def credit(yard):
    """Boosted trees as JSON, each goes on from the one before; the last was saved as UBJSON too."""
    digits = load_digits()
    data, booster = xgboost.DMatrix(digits.data, digits.target % 2), None
    for index, name in enumerate(["credit_old", "credit", "credit_new", "credit_FINAL", "credit_FINAL_v2"]):
        settings = {"objective": "binary:logistic", "max_depth": 6, "nthread": 2, "seed": 7}
        booster = xgboost.train(settings, data, 12, xgb_model=booster)
        path = f"home/ann/credit/{name}.json"
        booster.save_model(yard.path(path))
        yard.member("credit", path, 505 + index)
    booster.save_model(yard.path("serving/scoring.ubj"))
    yard.member("scoring", "serving/scoring.ubj", 511)
    yard.copy("home/ann/credit/credit_new.json", "home/bob/credit_new (copy).json", 512)


def forests(yard):
    """Pickles: their names say what their makers felt."""
    digits = load_digits()
    names = ["pricing_old.pkl", "pricing.pkl", "pricing_v2.pkl", "pricing_v10.pkl", "pricing_final.pkl"]
    for index, name in enumerate(names):
        forest = RandomForestClassifier(8 + index, max_depth=9, random_state=index).fit(digits.data, digits.target)
        with open(yard.path(f"pricing/{name}"), "wb") as file:
            pickle.dump(forest, file)
        # All were copied at once.
        yard.member("pricing", f"pricing/{name}", 510)
        yard.pickles.append(f"pricing/{name}")
    for index in range(1, 5):
        forest = GradientBoostingClassifier(n_estimators=6 + index, random_state=index).fit(digits.data, digits.target)
        path = f"home/ann/risk/risk{'' if index == 1 else index}.joblib"
        joblib.dump(forest, yard.path(path))
        yard.member("risk", path, 520 + index)
        yard.pickles.append(path)
    yard.copy("pricing/pricing_v2.pkl", "home/bob/model.pkl", 530)


def projects(yard, states):
    """Many projects of one or two models each."""
    for index in range(12):
        weights = numpy.random.default_rng(100 + index).normal(0, 0.05, (96, 64)).astype("<f4")
        for version in (1, 2):
            path = f"projects/p{index:02}/sensor{chr(97 + index)}_{version}.npz"
            numpy.savez(yard.path(path), weights=weights, bias=weights[0] * version, scale=weights[1] + version)
            yard.member(f"sensor{chr(97 + index)}", path, 600 + 10 * index + version)
        for name, text in [("train.py", "print('training')\n"), ("data.csv", "a,b\n" * 50)]:
            with open(yard.path(f"projects/p{index:02}/{name}"), "w") as file:
                file.write(text)
            yard.others.append(f"projects/p{index:02}/{name}")


def broken(yard):
    whole = open(yard.path("vision/digits_v1.safetensors"), "rb").read()
    tree = open(yard.path("fraud/fraud_2023-01-15.txt"), "rb").read()
    forest = open(yard.path("pricing/pricing.pkl"), "rb").read()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    for path, data in [
        ("broken/cut_off.safetensors", whole[:len(whole) // 2]),
        ("broken/empty.pt", b""),
        ("broken/downloaded.onnx", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("broken/pointer.gguf", pointer),
        ("broken/tree_cut.txt", tree[:len(tree) // 2]),
        ("broken/forest_cut.pkl", forest[:len(forest) // 3]),
        ("broken/noise.h5", os.urandom(5_000)),
    ]:
        with open(yard.path(path), "wb") as file:
            file.write(data)
        yard.broken.append(path)


def noise(yard):
    for path, data in [
        ("README.md", b"# models\n"), ("vision/plot.png", b"\x89PNG\r\n" + os.urandom(100)),
        ("data/train.parquet", b"PAR1" + os.urandom(1_000)), ("home/ann/.venv/pyvenv.cfg", b""),
        ("home/ann/.venv/lib/python3/site-packages/x/weights.pt", b"PK\x03\x04"), (".git/HEAD", b"ref: x\n"),
    ]:
        with open(yard.path(path), "wb") as file:
            file.write(data)
        yard.others.append(path)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    yard = Graveyard(sys.argv[1])
    states = digits_network(yard)
    checkpoints(yard, states)
    churn(yard)
    boosted(yard)
    credit(yard)
    forests(yard)
    projects(yard, states)
    broken(yard)
    noise(yard)
    os.symlink("digits_final_FINAL_v2.safetensors", yard.path("vision/prod.safetensors"))
    directories = sum(len(names) for _, names, _ in os.walk(yard.root))
    json.dump({"families": yard.families, "copies": yard.copies, "broken": yard.broken, "pickles": yard.pickles,
               "others": yard.others, "directories": directories}, sys.stdout)
