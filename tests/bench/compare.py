#!/usr/bin/env python3
"""The command line of scripts/bench."""
import argparse
import importlib
import os
import sys

import machine

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMANDS = ("sizes", "speed", "cores", "loaders", "scale", "files", "memory", "diff", "peers")


def arguments():
    ask = argparse.ArgumentParser(prog="scripts/bench", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    ask.add_argument("command", choices=COMMANDS)
    ask.add_argument("--binary", default=os.path.join(ROOT, "target/release/modelfs"), help="the modelfs to measure")
    ask.add_argument("--corpus", help="a directory of FAMILY/v1/FILE …; else a small corpus is made")
    ask.add_argument("--families", default="", help="only these families, comma between; none: all")
    ask.add_argument("--peers", default="all", help="only these peers, comma between")
    ask.add_argument("--python", default=sys.executable, help="the interpreter with zipnn, hf-xet and the loaders")
    ask.add_argument("--rounds", type=int, default=3, help="how often each thing is measured; medians are shown")
    ask.add_argument("--threads", type=int, default=0, help="processors for everybody; 0: all")
    ask.add_argument("--out", help="a directory for the tables, as markdown and JSON")
    ask.add_argument("--place", help="where to work; on the file system to compare with")
    ask.add_argument("--targets", help="sizes: JSON of family -> MB to compare with")
    ask.add_argument("--mib", type=int, default=512, help="speed, cores, memory, diff: size of the large model")
    ask.add_argument("--shards", type=int, default=1, help="cores: files that the large model is split into")
    ask.add_argument("--models", type=int, default=10_000, help="scale: models")
    ask.add_argument("--versions", type=int, default=100, help="scale: versions of each")
    ask.add_argument("--filler", help="scale: the program of fill.rs, if it is built; else cargo builds it")
    ask.add_argument("--files", type=int, default=1_000_000, help="scale, files: files in one version")
    ask.add_argument("--seals", type=int, default=1, help="memory: models that are sealed while threads read")
    ask.add_argument("--readers", type=int, default=16, help="memory: threads that read")
    ask.add_argument("--minutes", type=float, default=0, help="memory: and then so long of random work")
    return ask.parse_args()


def main():
    settings = arguments()
    settings.threads = machine.cpus(settings.threads)
    if settings.command == "peers":
        import peers
        for peer in peers.ALL:
            print(f"{peer.name}: {peer.missing(settings) or 'ready'}")
        return
    if os.geteuid():
        sys.exit("scripts/bench: run it as root: it mounts, and drops the page cache")
    if not os.path.exists(settings.binary):
        sys.exit(f"scripts/bench: no `{settings.binary}`: cargo build --release, or name one with --binary")
    if settings.corpus and not os.path.isdir(settings.corpus):
        sys.exit(f"scripts/bench: no directory `{settings.corpus}`: it holds FAMILY/v1/FILE …, or leave --corpus out")
    try:
        importlib.import_module(settings.command).main(settings)
    except machine.BenchError as error:
        sys.exit(f"scripts/bench: {error}")
    except KeyboardInterrupt:
        sys.exit("scripts/bench: interrupted")


main()
