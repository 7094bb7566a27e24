"""The machine: commands and their cost, caches, sizes of trees, equal files, a place that is cleaned up."""
import contextlib
import filecmp
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

Cost = namedtuple("Cost", "wall cpu")


class BenchError(Exception):
    """Something that the person at the terminal can do something about."""


def run(command, **options):
    """Runs to the end; its standard output. What it said is shown where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise BenchError(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {said}")
    return done.stdout


def run_measured(command):
    """Runs to the end, saying nothing; seconds, and the most resident bytes of that process."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise BenchError(f"`{' '.join(map(str, command))}` ended with {child.returncode}: "
                             f"{said.read().decode(errors='replace').strip()[-2000:]}")
    return time.perf_counter() - began, used.ru_maxrss * 1024


def cpu_seconds():
    """User and system time of this process and of its children that ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def cost(work):
    """What `work()` costs in seconds: of the clock, and of all processors together."""
    began, burnt = time.perf_counter(), cpu_seconds()
    work()
    return Cost(time.perf_counter() - began, cpu_seconds() - burnt)


def median_cost(costs):
    return Cost(*(statistics.median(column) for column in zip(*costs)))


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as control:
        control.write("3")


def forget(directory):
    """Drops what the page cache has of the plain files below a directory, and of no other."""
    for path in filter(os.path.isfile, (os.path.join(directory, name) for name in files_below(directory))):
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files_below(directory):
    """Relative paths of all plain files, sorted."""
    found = []
    for base, _, names in os.walk(directory):
        found += (os.path.relpath(os.path.join(base, name), directory) for name in names)
    return sorted(found)


def bytes_below(directory):
    """The lengths of all files, added up. Holes and the rounding to whole disk blocks do not count."""
    return sum(os.lstat(os.path.join(directory, name)).st_size for name in files_below(directory))


def require_same(expected, found, what):
    """Every file below `expected` must be below `found`, byte for byte."""
    names = files_below(expected)
    _, different, missing = filecmp.cmpfiles(expected, found, names, shallow=False)
    if different or missing:
        raise BenchError(f"{what}: `{(different + missing)[0]}` came back different, or not at all")


def cpus(count):
    """Keeps this process and its children on `count` processors; how many there are."""
    allowed = sorted(os.sched_getaffinity(0))[:count or None]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def wait_until(is_so, what, patience=60):
    ends = time.monotonic() + patience
    while not is_so():
        if ends < time.monotonic():
            raise BenchError(f"{what}: nothing after {patience} s")
        time.sleep(0.02)


def unmount(point):
    """Detaches `point`, which may not be mounted."""
    if os.path.ismount(point):
        subprocess.run(["umount", point], stderr=subprocess.DEVNULL)
    if os.path.ismount(point):
        subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def temporary(below):
    """A new directory that is deleted in the end; nothing is deleted through a mount."""
    path = tempfile.mkdtemp(prefix="modelfs-bench-", dir=below)
    try:
        yield path
    finally:
        for line in reversed(open("/proc/self/mounts").read().splitlines()):
            if line.split(" ")[1].startswith(path):
                unmount(line.split(" ")[1])
        shutil.rmtree(path, ignore_errors=True)


def say(text):
    print(text, file=sys.stderr, flush=True)
