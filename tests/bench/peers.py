"""Other stores, each with the same few verbs, at its defaults but for zstd where another codec is the default.

A peer is `Peer(place, settings)`; then `seal(directory, number)` for each version in order, `finish()`, `stored()`.
Those that can be read in place have `mount(point)` and `version(point, model, number)`.
"""
import glob
import os
import shutil
import subprocess

import machine


class Peer:
    programs = ()
    install = ""
    module = None

    def __init__(self, place, settings):
        self.place, self.settings, self.mounted = place, settings, None
        self.environment = dict(os.environ)

    @classmethod
    def missing(cls, settings):
        """What is not there; none when it can run."""
        for program in cls.programs:
            if not shutil.which(program):
                return f"`{program}` is missing: {cls.install}"
        if cls.module:
            asked = [settings.python, "-c", f"import {cls.module}"]
            if subprocess.run(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                return f"no module `{cls.module}` in `{settings.python}`: {cls.install}, or name an interpreter with --python"
        return None

    def run(self, command, **options):
        return machine.run(command, env=self.environment, **options)

    def at(self, name):
        return os.path.join(self.place, name)

    def finish(self):
        pass

    def serve(self, command, point, ready):
        """Runs a file system in the foreground until `ready()`."""
        os.makedirs(point, exist_ok=True)
        self.mounted = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        machine.wait_until(lambda: self.mounted.poll() is not None or ready(), f"`{' '.join(command)}`")
        if self.mounted.poll() is not None:
            raise machine.BenchError(f"`{' '.join(command)}` ended with {self.mounted.returncode}")

    def unmount(self, point):
        machine.unmount(point)
        if self.mounted:
            try:
                self.mounted.wait(10)
            except subprocess.TimeoutExpired:
                self.mounted.kill()
                self.mounted.wait()
            self.mounted = None


class Restic(Peer):
    name, programs, install, mounts = "restic", ("restic",), "apt-get install restic", True

    def __init__(self, place, settings):
        super().__init__(place, settings)
        self.environment |= {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": self.at("repo"),
                             "RESTIC_CACHE_DIR": self.at("cache"), "GOMAXPROCS": str(settings.threads)}
        self.run(["restic", "init", "--repository-version", "2"])

    def seal(self, source, number):
        self.run(["restic", "backup", "--quiet", "--tag", f"v{number}", "."], cwd=source)

    def stored(self):
        return machine.bytes_below(self.at("repo"))

    def mount(self, point):
        self.serve(["restic", "mount", point], point, lambda: os.path.isdir(os.path.join(point, "tags")))

    def version(self, point, _, number):
        return os.path.join(point, "tags", f"v{number}", "latest")


class Borg(Peer):
    name, programs, install, mounts = "borg", ("borg",), "apt-get install borgbackup python3-pyfuse3", True

    def __init__(self, place, settings):
        super().__init__(place, settings)
        self.environment |= {"BORG_BASE_DIR": self.at("base"), "BORG_REPO": self.at("repo"),
                             "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.run(["borg", "init", "-e", "none"])

    def seal(self, source, number):
        self.run(["borg", "create", "--compression", "zstd,3", f"::v{number}", "."], cwd=source)

    def stored(self):
        return machine.bytes_below(self.at("repo"))

    def mount(self, point):
        self.serve(["borg", "mount", "--foreground", "::", point], point, lambda: os.path.ismount(point))

    def version(self, point, _, number):
        return os.path.join(point, f"v{number}")


class Casync(Peer):
    name, programs, install, mounts = "casync", ("casync",), "apt-get install casync", True

    def seal(self, source, number):
        self.run(["casync", "make", "--compression=zstd", f"--store={self.at('store.castr')}",
                  self.at(f"v{number}.caidx"), source])

    def stored(self):
        return machine.bytes_below(self.place)

    def mount(self, point):
        newest = max(glob.glob(self.at("*.caidx")), key=os.path.getmtime)
        command = ["casync", "mount", f"--store={self.at('store.castr')}", newest, point]
        self.serve(command, point, lambda: os.path.ismount(point))

    def version(self, point, _model, _number):
        return point


class Squashfs(Peer):
    """One image of all versions: it is not a store that versions are added to, but it is read in place."""
    name, programs, mounts = "squashfs", ("mksquashfs", "squashfuse"), True
    install = "apt-get install squashfs-tools squashfuse"

    def seal(self, source, number):
        self.family = os.path.dirname(os.path.abspath(source))

    def finish(self):
        self.run(["mksquashfs", self.family, self.at("image"), "-comp", "zstd", "-quiet", "-no-progress",
                  "-processors", str(self.settings.threads)])

    def stored(self):
        return os.path.getsize(self.at("image"))

    def mount(self, point):
        self.serve(["squashfuse", "-f", self.at("image"), point], point, lambda: os.path.ismount(point))

    def version(self, point, _, number):
        return os.path.join(point, f"v{number}")


class ByPython(Peer):
    """One that is a Python module: sealed by `in_python.py` under the interpreter of --python."""
    mounts = False
    helper = os.path.join(os.path.dirname(os.path.abspath(__file__)), "in_python.py")

    def seal(self, source, number):
        os.makedirs(self.at("store"), exist_ok=True)
        self.environment |= {"RAYON_NUM_THREADS": str(self.settings.threads), "HF_XET_CACHE": self.at("cache"),
                             "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        self.run([self.settings.python, self.helper, self.name, self.at("store"), source, str(self.settings.threads)])


class Xet(ByPython):
    """hf_xet with a directory as its endpoint. Only what a server would keep counts: xorbs and shards."""
    name, module, install = "xet", "hf_xet", "pip install hf-xet"

    def stored(self):
        kept = [name for name in machine.files_below(self.at("store"))
                if "/xorbs/xorbs/" in f"/{name}" or "/xorbs/shards/" in f"/{name}"]
        return sum(os.path.getsize(os.path.join(self.at("store"), name)) for name in kept
                   if not name.endswith(".tagset"))


class Zipnn(ByPython):
    """Each file by itself; of equal files one is kept."""
    name, module, install = "zipnn", "zipnn", "pip install zipnn"

    def stored(self):
        return machine.bytes_below(self.at("store"))


class Zstd(Peer):
    """A tar of each version: nothing is shared, nothing can be read in place."""
    programs, install, mounts, level = ("zstd", "tar"), "apt-get install zstd", False, 3

    def seal(self, source, number):
        command = f'tar --sort=name -cf - . | zstd -q -{self.level} -T{self.settings.threads} -o "$1"'
        self.run(["bash", "-o", "pipefail", "-c", command, "bash", self.at(f"v{number}.tar.zst")], cwd=source)

    def stored(self):
        return machine.bytes_below(self.place)


class Zstd3(Zstd):
    name = "zstd-3"


class Zstd19(Zstd):
    name, level = "zstd-19", 19


ALL = (Restic, Borg, Casync, Squashfs, Xet, Zipnn, Zstd3, Zstd19)


def chosen(settings):
    """The peers that --peers names and that can run; a line for each that cannot."""
    names = {peer.name: peer for peer in ALL}
    wanted = list(names) if settings.peers == "all" else [name for name in settings.peers.split(",") if name]
    for name in wanted:
        if name not in names:
            raise machine.BenchError(f"--peers: no peer `{name}`, expected some of {', '.join(names)}, or `all`")
    found = []
    for peer in (names[name] for name in wanted):
        missing = peer.missing(settings)
        if missing:
            machine.say(f"without {peer.name}: {missing}")
        else:
            found.append(peer)
    return found
