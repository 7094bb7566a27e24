#!/usr/bin/env python3
"""A store of modelfs under power cuts: what is done to it, and what must be left of it.

    churn.py work      seals and retargets on $DISK/store with the command line, `ack N` after step N
    churn.py check     reads the N that were acknowledged; the store must hold at least all of that

The binary is $MODELFS (default: target/debug/modelfs of this repository). The steps are the same in every run,
so that the state after each is known: a cut between two steps leaves the one or the other, nothing else.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MODELFS = os.environ.get("MODELFS") or os.path.join(HERE, "../../target/debug/modelfs")
STORE = os.path.join(os.environ.get("DISK", ""), "store")
VERSIONS = int(os.environ.get("POWERCUT_VERSIONS", "6"))
NO_SUCH_THING = 4


def steps():
    """The steps as (arguments, versions afterwards, prod afterwards); `SOURCE/n` stands for a directory."""
    prod = None
    for n in range(1, VERSIONS + 1):
        yield ["snapshot", "churn", f"SOURCE/{n}", "-m", f"number {n}"], n, prod
        prod = f"v{n}"
        yield ["promote", f"churn/v{n}", "prod"], n, prod
        if n % 3 == 0:
            prod = f"v{n - 1}"
            yield ["rollback", "churn", "prod", "--to", f"churn/v{n - 1}"], n, prod


def tree(n):
    """The files of version n: one of noise, one that shares most with the version before, one small."""
    shared = random.Random(0).randbytes(120_000)
    return {
        "noise": random.Random(n).randbytes(60_000 + n),
        "shared": shared[: 10_000 * n] + bytes([n]) * 64 + shared[10_000 * n :],
        "sub/number": str(n).encode(),
    }


def write_tree(directory, n):
    for name, data in tree(n).items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def modelfs(*arguments):
    return subprocess.run([MODELFS, "--store", STORE, *arguments], capture_output=True, text=True)


def work():
    with tempfile.TemporaryDirectory() as source:
        for number, (arguments, _, _) in enumerate(steps(), 1):
            if arguments[0] == "snapshot":
                n = arguments[2].removeprefix("SOURCE/")
                write_tree(os.path.join(source, n), int(n))
            done = modelfs(*(word.replace("SOURCE", source) for word in arguments))
            if done.returncode:
                sys.exit(f"step {number}, {arguments}: status {done.returncode}: {done.stderr}")
            print(f"ack {number}", flush=True)


def found_state():
    """Versions and `prod` as the store has them now."""
    listed = modelfs("list", "churn", "--json")
    if listed.returncode == NO_SUCH_THING:
        return 0, None
    aliases = modelfs("alias", "list", "churn", "--json")
    for done in (listed, aliases):
        if done.returncode:
            sys.exit(f"{done.args}: status {done.returncode}: {done.stderr}")
    versions = sum(1 for item in each(json.loads(listed.stdout)) if "sealed" in item or "digest" in item)
    prod = [item["version"] for item in each(json.loads(aliases.stdout)) if item.get("alias") == "prod"]
    return versions, prod[0] if prod else None


def each(value):
    """Every object in a JSON value, however deep."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from each(item)


def compare(version, n, place):
    out = os.path.join(place, version)
    done = modelfs("export", f"churn/{version}", out)
    if done.returncode:
        sys.exit(f"export of {version}: status {done.returncode}: {done.stderr}")
    for name, data in tree(n).items():
        with open(os.path.join(out, name), "rb") as file:
            if file.read() != data:
                sys.exit(f"`{name}` of {version} has other bytes than were sealed")
    shutil.rmtree(out)


def check():
    acknowledged = max((int(line) for line in sys.stdin), default=0)
    sound = modelfs("verify", "--read-data")
    if sound.returncode and not (acknowledged == 0 and sound.returncode == NO_SUCH_THING):
        sys.exit(f"verify: status {sound.returncode}: {sound.stdout}{sound.stderr}")
    states = [(0, None)] + [(versions, prod) for _, versions, prod in steps()]
    found = found_state()
    allowed = states[acknowledged : acknowledged + 2]
    if found not in allowed:
        sys.exit(f"the store holds {found}, expected one of {allowed}")
    with tempfile.TemporaryDirectory() as place:
        for n in range(1, found[0] + 1):
            compare(f"v{n}", n, place)
        write_tree(os.path.join(place, "next"), 99)
        done = modelfs("snapshot", "churn", os.path.join(place, "next"), "-m", "after the cut")
        if done.returncode:
            sys.exit(f"the store takes no new version: status {done.returncode}: {done.stderr}")
        compare(f"v{found[0] + 1}", 99, place)
    sound = modelfs("verify", "--read-data")
    if sound.returncode:
        sys.exit(f"verify afterwards: status {sound.returncode}: {sound.stdout}{sound.stderr}")


if __name__ == "__main__":
    {"work": work, "check": check}.get("".join(sys.argv[1:]), lambda: sys.exit(__doc__))()
