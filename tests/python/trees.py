#!/usr/bin/env python3
"""Two versions of boosted trees, and what the libraries' own dumps say of them.

    trees.py DIRECTORY

Trains with LightGBM and XGBoost, goes on training with other settings, writes DIRECTORY/1 and DIRECTORY/2, and prints,
as JSON, for each file: the trees that are kept and added; of both sides how many trees, splits and leaves there are, how
deep, some settings, and for each feature how many splits it has, their gain, and the medians of gains and thresholds.
"""
import json
import os
import sys

import lightgbm
import numpy as np
import xgboost

NAMES = ["age", "hours", "salary", "evaluation", "tenure", "city"]


def data():
    chance = np.random.default_rng(5)
    values = chance.normal(0, 1, (1_500, 5)) * [12, 8, 900, 1, 3] + [40, 38, 3_000, 3, 6]
    city = chance.integers(0, 9, len(values))
    score = (values[:, 0] - 40) / 12 + (values[:, 1] > 41) - values[:, 3] + chance.normal(0, 0.5, len(values))
    values, score = np.column_stack([values, city]), score + np.isin(city, [1, 4, 7])
    return values, (score > 0).astype(int)


def train_lightgbm(places):
    values, labels = data()
    settings = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.1, "verbose": -1, "seed": 3,
                "deterministic": True, "num_threads": 2}
    paths = [os.path.join(place, "lightgbm.txt") for place in places]
    table = {"feature_name": NAMES, "categorical_feature": ["city"]}
    first = lightgbm.train(settings, lightgbm.Dataset(values, labels, **table), 20)
    first.save_model(paths[0])
    settings |= {"learning_rate": 0.05, "monotone_constraints": [1, 0, 0, -1, 0, 0]}
    more = lightgbm.Dataset(values, labels, **table)
    lightgbm.train(settings, more, 8, init_model=paths[0]).save_model(paths[1])
    models = [lightgbm.Booster(model_file=path) for path in paths]
    dumps = [[tree["tree_structure"] for tree in model.dump_model()["tree_info"]] for model in models]
    return dumps, [{"learning_rate": str(model.params["learning_rate"])} for model in models]


def lightgbm_splits(node, depth=0):
    """(feature, gain, threshold, depth) of each split below a node of a dump; no threshold where it asks for a category."""
    if "split_feature" in node:
        threshold = None if node["decision_type"] == "==" else node["threshold"]
        yield NAMES[node["split_feature"]], node["split_gain"], threshold, depth + 1
        yield from lightgbm_splits(node["left_child"], depth + 1)
        yield from lightgbm_splits(node["right_child"], depth + 1)


def train_xgboost(places, ending):
    values, labels = data()
    settings = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "seed": 3, "tree_method": "hist", "nthread": 2}
    paths = [os.path.join(place, f"xgboost.{ending}") for place in places]
    table = xgboost.DMatrix(values, labels, feature_names=NAMES)
    first = xgboost.train(settings, table, 12)
    first.save_model(paths[0])
    settings |= {"eta": 0.05, "monotone_constraints": "(1,0,0,-1,0,0)"}
    xgboost.train(settings, table, 6, xgb_model=first).save_model(paths[1])
    dumps = []
    for path in paths:
        model = xgboost.Booster(model_file=path)
        dumps.append([json.loads(tree) for tree in model.get_dump(dump_format="json", with_stats=True)])
    return dumps, [{"num_trees": str(len(trees))} for trees in dumps]


def xgboost_splits(node, depth=0):
    if "split" in node:
        yield node["split"], node["gain"], node["split_condition"], depth + 1
        for child in node["children"]:
            yield from xgboost_splits(child, depth + 1)


def uses(trees, splits):
    found = {name: ([], []) for name in NAMES}
    for tree in trees:
        for name, gain, threshold, _ in splits(tree):
            found[name][0].append(gain)
            found[name][1].extend([] if threshold is None else [threshold])
    median = lambda numbers: float(np.median(numbers)) if numbers else None
    return {name: {"splits": len(gains), "gain": float(np.sum(gains)) if gains else None, "gain_median": median(gains),
                   "threshold_median": median(thresholds)} for name, (gains, thresholds) in found.items()}


def size(trees, splits):
    """A tree has a leaf more than it has splits."""
    depths = [[depth for *_, depth in splits(tree)] for tree in trees]
    count = sum(map(len, depths))
    return {"trees": len(trees), "splits": count, "leaves": count + len(trees), "depth_max": max(map(max, depths))}


def compare(trained, splits):
    (before, after), settings = trained
    left = [json.dumps(tree, sort_keys=True) for tree in before]
    kept = sum(json.dumps(tree, sort_keys=True) in left for tree in after)
    return {"trees_kept": kept, "trees_added": len(after) - kept, "trees_removed": len(before) - kept,
            "sizes": [size(before, splits), size(after, splits)], "settings": settings,
            "before": uses(before, splits), "after": uses(after, splits)}


def main(place):
    places = [os.path.join(place, number) for number in "12"]
    for each in places:
        os.makedirs(each)
    found = {"lightgbm.txt": compare(train_lightgbm(places), lightgbm_splits)}
    for ending in ("json", "ubj"):
        found[f"xgboost.{ending}"] = compare(train_xgboost(places, ending), xgboost_splits)
    json.dump(found, sys.stdout)


main(sys.argv[1])
