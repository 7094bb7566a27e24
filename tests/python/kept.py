"""Makes directories of models as other tools keep them: kept.py DIR

MLflow writes its own; Git commits pointers of Git LFS and files of DVC, laid out as those two do.  Prints what was
made as JSON."""
import hashlib
import json
import os
import subprocess
import sys

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
import numpy

ROOT = os.path.abspath(sys.argv[1])


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def archive(seed):
    """A model of a few tensors, the first of them new each time."""
    fixed = numpy.random.default_rng(0).normal(0, 1, (64, 64)).astype("<f4")
    path = os.path.join(ROOT, "next.npz")
    numpy.savez(path, head=numpy.random.default_rng(seed).normal(0, 1, (16, 64)), body=fixed)
    with open(path, "rb") as file:
        data = file.read()
    os.remove(path)
    return data


def git(top, *arguments, day=1):
    date = f"2024-03-{day:02}T10:00:00Z"
    environment = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date,
                   "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    subprocess.run(["git", "-C", top, *who, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


def lfs(top):
    """A model with three states; the second is not here any more, the third is checked out as a pointer."""
    os.makedirs(top)
    git(top, "init", "-q")
    states = []
    for day in (1, 2, 3):
        data = archive(day)
        oid = hashlib.sha256(data).hexdigest()
        states.append(oid)
        if day != 2:
            write(os.path.join(top, ".git/lfs/objects", oid[:2], oid[2:4], oid), data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
        write(os.path.join(top, "nets/ranker.npz"), pointer.encode())
        git(top, "add", "-A", day=day)
        git(top, "commit", "-q", "-m", f"ranker of day {day}\n\nmore words", day=day)
    return {"sha256": states}


def dvc(top):
    """A model with two states of which one lies there, and a directory that is in the cache only."""
    os.makedirs(os.path.join(top, ".dvc"))
    write(os.path.join(top, ".dvc/config"), b"[core]\n    remote = far\n[cache]\n    dir = ../store\n")
    git(top, "init", "-q")
    cache = os.path.join(top, "store", "files", "md5")

    def keep(data, end=""):
        digest = hashlib.md5(data).hexdigest()
        write(os.path.join(cache, digest[:2], digest[2:] + end), data)
        return digest + end

    states = []
    for day in (11, 12):
        data = archive(day)
        states.append(hashlib.sha256(data).hexdigest())
        write(os.path.join(top, "nets/scorer.npz"), data)
        said = f"outs:\n- md5: {keep(data)}\n  size: {len(data)}\n  hash: md5\n  path: scorer.npz\n"
        write(os.path.join(top, "nets/scorer.npz.dvc"), said.encode())
        files = [{"md5": keep(archive(day + 10)), "relpath": "parts/net.npz"}, {"md5": keep(b"{}"), "relpath": "config.json"}]
        listed = keep(json.dumps(files).encode(), ".dir")
        write(os.path.join(top, "bundle.dvc"), f"outs:\n- md5: {listed}\n  nfiles: 2\n  path: bundle\n".encode())
        write(os.path.join(top, ".gitignore"), b"/store\n/nets/scorer.npz\n")
        git(top, "add", "-A", day=day)
        git(top, "commit", "-q", "-m", f"scorer of day {day}", day=day)
    return {"sha256": states}


def runs(top):
    """Three runs of which two were registered, the later one under an alias, and another file of each."""
    mlflow.set_tracking_uri("file://" + top)
    mlflow.set_experiment("churn")

    class Model(mlflow.pyfunc.PythonModel):
        def __init__(self, factor):
            self.factor = factor

        def predict(self, context, model_input: list[float]) -> list[float]:
            return [each * self.factor for each in model_input]

    made = []
    for index in range(3):
        with mlflow.start_run(run_name=f"run-{index}") as run:
            mlflow.log_param("lr", 0.1 * index)
            for step in (0, 1):
                mlflow.log_metric("auc", 0.5 + step * (index + 1) / 10, step=step)
            path = os.path.join(ROOT, "scaler.npz")
            write(path, archive(30 + index))
            mlflow.log_artifact(path)
            os.remove(path)
            registered = "churn-prod" if index else None
            mlflow.pyfunc.log_model(name="model", python_model=Model(index), registered_model_name=registered,
                                    pip_requirements=[])
        made.append({"run": run.info.run_id, "lr": str(0.1 * index), "auc": 0.5 + (index + 1) / 10})
    mlflow.MlflowClient().set_registered_model_alias("churn-prod", "champion", 2)
    return made


if __name__ == "__main__":
    os.makedirs(ROOT)
    sys.stdout.flush()
    told = os.dup(1)
    os.dup2(2, 1)
    made = {"lfs": lfs(os.path.join(ROOT, "lfs")), "dvc": dvc(os.path.join(ROOT, "dvc")),
            "runs": runs(os.path.join(ROOT, "mlruns"))}
    os.write(told, json.dumps(made).encode())
