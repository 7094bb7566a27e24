"""What reads models in practice, through a mount and from ext4 beside it: the same tensors, and how long it takes."""
import json
import os
import shutil
import subprocess

import corpus
import machine
import ours
import report
import speed

HELPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load_model.py")
MODULES = ("numpy", "torch", "safetensors", "onnx", "onnxruntime", "xgboost")
KINDS = (
    ("safetensors (mmap)", lambda path: path.endswith(".safetensors")),
    ("torch.load", lambda path: path.endswith((".pt", ".pth", ".pth.tar"))),
    ("torch.load(mmap=True)", lambda path: path.endswith((".pt", ".pth", ".pth.tar"))),
    ("onnxruntime", lambda path: path.endswith(".onnx")),
    ("xgboost", lambda path: path.endswith(".ubj") or path.endswith("model.json")),
    ("numpy.load(mmap_mode='r')", lambda path: path.endswith(".npy")),
)
# The largest of each kind in a family: more would measure the same.
FILES_OF_A_KIND = 2


def require_modules(settings):
    asked = [settings.python, "-c", "import " + ", ".join(MODULES)]
    if subprocess.run(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise machine.BenchError(f"`{settings.python}` lacks some of {', '.join(MODULES)}: make a virtual environment "
                                 f"with `pip install {' '.join(MODULES)}` and name it with --python")


def jobs(settings, families, store, point):
    found = []
    for family, versions in families:
        newest = versions[-1]
        paths = sorted(machine.files_below(newest), key=lambda name: -os.path.getsize(os.path.join(newest, name)))
        for kind, fits in KINDS:
            for name in [name for name in paths if fits(name)][:FILES_OF_A_KIND]:
                through = os.path.join(store.version(point, family, len(versions)), name)
                found.append((f"{family}/{name}", [kind, through, os.path.join(newest, name), settings.rounds]))
    return found


def sources(settings, place):
    """The files made for the purpose and the families of --corpus, copied beside the store: the same disk for both."""
    made = os.path.join(place, "plain")
    machine.run([settings.python, HELPER, "make", os.path.join(made, "made", "v1"), str(settings.mib)])
    if settings.corpus:
        for family, versions in corpus.families(settings.corpus, settings.families):
            shutil.copytree(versions[-1], os.path.join(made, family, "v1"))
    return corpus.families(made)


def compare(settings, found, place):
    """Runs the loads in a process of their own."""
    listed = os.path.join(place, "jobs.json")
    with open(listed, "w") as out:
        json.dump([job for _, job in found], out)
    child = subprocess.run([settings.python, "-W", "ignore", HELPER, "compare", listed], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    answers = [json.loads(line) for line in child.stdout.decode().splitlines()]
    if child.returncode or len(answers) != len(found):
        at = found[len(answers)][0] if len(answers) < len(found) else "the end"
        raise machine.BenchError(f"loading stopped at `{at}`: {child.stderr.decode(errors='replace')[-2000:]}")
    return answers


def rows_of(found, answers):
    rows = []
    for (name, (kind, _, path, _)), got in zip(found, answers):
        if "skipped" in got:
            machine.say(f"{kind} cannot load {name} from ext4 either: {got['skipped']}")
            continue
        rows.append({"loader": kind, "file": name, "MB": os.path.getsize(path) / 1e6, "tensors": got["tensors"],
                     "same bytes": "yes" if got["same"] else "NO", "ext4 cold ms": got["cold"][1] * 1e3,
                     "cold, modelfs / ext4": got["cold"][0] / got["cold"][1],
                     "again, modelfs / ext4": got["again"][0] / got["again"][1]})
    return rows


def main(settings):
    require_modules(settings)
    settings.mib = min(settings.mib, 64)
    out = report.Report(settings, "loaders")
    with machine.temporary(settings.place) as place:
        families = sources(settings, place)
        store = ours.Store(place, settings)
        for _, versions in families:
            store.seal(versions[0], 1)
        wrong = []
        for how in ("served", "hot"):
            if how == "hot" and not speed.can(settings, "warm"):
                continue
            options = ["--hot-bytes", "0"] if how == "served" and speed.can(settings, "mount", "--hot-bytes") else []
            point = store.mount(os.path.join(place, "mount"), *options)
            try:
                if how == "hot":
                    for family, _ in families:
                        machine.run([*store.command, "warm", f"{family}/v1"])
                found = jobs(settings, families, store, point)
                rows = rows_of(found, compare(settings, found, place))
            finally:
                store.unmount(point)
            wrong += [row["file"] for row in rows if row["same bytes"] != "yes"]
            out.table(f"Loaders, {how}", rows, "Time of a load that touches every tensor, times ext4 in the same run: "
                      "cold is after the page cache was dropped. Same bytes: SHA-256 of each tensor as the library gives it.")
    if wrong:
        raise machine.BenchError(f"other tensors than from ext4: {', '.join(wrong)}")
