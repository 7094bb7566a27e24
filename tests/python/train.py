"""A training as people write them: knows nothing of modelfs but a directory to write to."""

import argparse
import json
import os

import numpy
import xgboost

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--api-token")
parser.add_argument("--checkpoints", action="store_true")
arguments = parser.parse_args()

columns = numpy.genfromtxt(arguments.data, delimiter=",", names=True)
features = numpy.column_stack([columns["age"], columns["income"]])
settings = {"objective": "binary:logistic", "max_depth": 3, "seed": arguments.seed, "nthread": 1}
matrix = xgboost.DMatrix(features, label=columns["churned"])
results = {}
place = os.environ["MODELFS_DRAFT"]
saves = [xgboost.callback.TrainingCheckPoint(place, interval=50)] if arguments.checkpoints else None
model = xgboost.train(settings, matrix, arguments.rounds, evals=[(matrix, "train")],
                      evals_result=results, verbose_eval=False, callbacks=saves)

model.save_model(os.path.join(place, "model.json"))
with open(os.path.join(place, "metrics.json"), "w") as file:
    json.dump({"logloss": results["train"]["logloss"][-1]}, file)
print("trained", arguments.rounds, "rounds")
