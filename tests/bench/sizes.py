"""Stored size and seal time of each family: modelfs, then every peer, all versions in order into one store."""
import json
import os
import shutil

import corpus
import machine
import ours
import peers
import report

MB = 1e6


def seal_family(kind, versions, place, settings):
    """A new store with all versions; the store, what sealing cost, and the growth with each version."""
    os.makedirs(place)
    store = kind(place, settings)
    growth, costs, last = [], [], 0
    for number, directory in enumerate(versions, 1):
        costs.append(machine.cost(lambda: store.seal(directory, number)))
        if kind is ours.Store:
            growth.append(store.stored() - last)
            last += growth[-1]
    costs.append(machine.cost(store.finish))
    return store, machine.Cost(*map(sum, zip(*costs))), growth


def check_all(store, model, versions, place):
    """Reads every version through a mount and compares it with its source."""
    point = store.mount(os.path.join(place, "mount"))
    try:
        for number, directory in enumerate(versions, 1):
            machine.require_same(directory, store.version(point, model, number), f"{model}/v{number}")
    finally:
        store.unmount(point)


def measure(kind, family, versions, place, settings):
    """Bytes, the median cost and, of ours, the parts; none where the peer fails on this family."""
    costs, bytes_stored, parts, growth = [], None, None, None
    # The slow archives are there for their size.
    rounds = 1 if kind in (peers.Zstd19, peers.Zipnn) else settings.rounds
    for _ in range(rounds):
        below = os.path.join(place, kind.name)
        try:
            store, spent, growth = seal_family(kind, versions, below, settings)
            bytes_stored = store.stored()
            if kind is ours.Store:
                parts = store.parts()
                if not costs:
                    check_all(store, family, versions, below)
        except machine.BenchError as error:
            if kind is ours.Store:
                raise
            machine.say(f"{kind.name} on {family}: {error}")
            return None
        finally:
            shutil.rmtree(below, ignore_errors=True)
        costs.append(spent)
    return {"bytes": bytes_stored, "cost": machine.median_cost(costs), "parts": parts, "growth": growth}


def compare(settings, source, kinds, place, targets):
    """Rows of the tables of sizes, of times and of our parts."""
    sizes, times, parts = [], [], []
    totals = {}
    for family, versions in corpus.families(source, settings.families):
        logical = sum(map(machine.bytes_below, versions))
        machine.say(f"{family}: {len(versions)} versions, {logical / MB:.1f} MB")
        found = {kind.name: measure(kind, family, versions, place, settings) for kind in (ours.Store, *kinds)}
        mine = found["modelfs"]
        others = {name: got for name, got in found.items() if got and name != "modelfs"}
        row = {"family (versions)": f"{family} ({len(versions)})", "logical MB": logical / MB}
        row |= {name: got["bytes"] / MB if got else None for name, got in found.items()}
        row["ours / logical"] = mine["bytes"] / logical
        if others:
            row["ours / smallest peer"] = mine["bytes"] / min(got["bytes"] for got in others.values())
        if targets:
            row["target"] = targets.get(family)
            row["ours / target"] = mine["bytes"] / MB / targets[family] if family in targets else None
        sizes.append(row)
        times.append({"family": family, "modelfs MB/s": logical / MB / mine["cost"].wall,
                      "modelfs CPU s/GB": mine["cost"].cpu / logical * 1e9,
                      **{f"{name} wall": got["cost"].wall / mine["cost"].wall for name, got in others.items()},
                      **{f"{name} CPU": got["cost"].cpu / mine["cost"].cpu for name, got in others.items()}})
        parts.append({"family": family, **mine["parts"],
                      "growth per version, kB": " ".join(f"{size / 1000:.0f}" for size in mine["growth"])})
        for name, got in found.items():
            totals.setdefault(name, []).append(got["bytes"] if got else logical)
        totals.setdefault("logical", []).append(logical)
    return sizes, times, parts, {name: sum(column) for name, column in totals.items()}


def gaussian_table(settings, place):
    """What single versions of Gaussian weights come to, and what a header that is 4 KiB longer adds."""
    source = os.path.join(place, "gaussian")
    corpus.make_gaussian(source)
    rows = []
    for family, versions in corpus.families(source):
        got = measure(ours.Store, family, versions, place, settings)
        logical = machine.bytes_below(versions[0])
        if len(versions) == 1:
            rows.append({"what": f"{family}, stored / logical", "found": got["bytes"] / logical,
                         "at most": {"gaussian-bf16": 0.665, "gaussian-fp32": 0.833, "gaussian-fp16": 0.846}[family]})
        else:
            rows.append({"what": "bytes that a header longer by 4 KiB adds", "found": got["growth"][1], "at most": 8192})
    return rows


def main(settings):
    kinds = peers.chosen(settings)
    targets = json.load(open(settings.targets)) if settings.targets else {}
    out = report.Report(settings, "sizes")
    with machine.temporary(settings.place) as place:
        source = settings.corpus
        if not source:
            source = os.path.join(place, "corpus")
            machine.say("no --corpus: making a small one")
            corpus.make(source)
        if not settings.families:
            out.table("Gaussian weights", gaussian_table(settings, place))
        sizes, times, parts, totals = compare(settings, source, kinds, place, targets)
        if not sizes:
            raise machine.BenchError(f"no family in `{source}`: expected FAMILY/v1/FILE, FAMILY/v2/FILE, …")
        whole = {"family (versions)": "all", "logical MB": totals["logical"] / MB}
        whole |= {kind.name: totals[kind.name] / MB for kind in (ours.Store, *kinds)}
        whole["ours / logical"] = totals["modelfs"] / totals["logical"]
        out.table("Stored, MB", [*sizes, whole], "modelfs: packs, manifests, history and the rest; the catalog and hot "
                  "files, which may be deleted, are not counted. Every version was read back through a mount and compared.")
        out.table("Seal time, peer / modelfs (above 1: modelfs is faster)", times,
                  "wall: of the clock; CPU: of all processors together. One process is started for each version.")
        out.table("Parts of the store, bytes", parts)
