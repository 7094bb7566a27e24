"""A store of modelfs: sealing into it through the command line, its parts on the disk, its mount."""
import json
import os
import subprocess

import machine


# A store of a million records may take minutes to open. Not a measure of speed.
OPEN_PATIENCE = 1_800


class Store:
    name = "modelfs"

    def __init__(self, place, settings):
        self.binary, self.path = settings.binary, os.path.join(place, "store")
        self.command = [self.binary, "--store", self.path]
        self.daemon = None

    def seal(self, source, number):
        """One version; what the program says of it."""
        return json.loads(machine.run([*self.sealing(source, number), "--json"]))

    def seal_measured(self, source, number):
        """One version; seconds, and the most resident bytes."""
        return machine.run_measured(self.sealing(source, number))

    def sealing(self, source, number):
        model = os.path.basename(os.path.dirname(os.path.abspath(source)))
        return [*self.command, "snapshot", model, source, "-m", f"version {number}"]

    def finish(self):
        pass

    def parts(self):
        """Bytes of each part of the store. The catalog and hot files are caches: they can be deleted at any time."""
        found = {"packs": 0, "manifests": 0, "history": 0, "rest": 0, "catalog": 0, "hot": 0}
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            size = machine.bytes_below(path) if os.path.isdir(path) else os.lstat(path).st_size
            found[name if name in found else "rest"] += size
        return found

    def stored(self):
        return sum(size for part, size in self.parts().items() if part not in ("catalog", "hot"))

    def mount(self, point, *options):
        os.makedirs(point, exist_ok=True)
        self.daemon = subprocess.Popen([*self.command, "mount", point, *options],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        machine.wait_until(lambda: self.daemon.poll() is not None or os.path.ismount(point), "modelfs mount", OPEN_PATIENCE)
        if self.daemon.poll() is not None:
            raise machine.BenchError(f"modelfs mount: {self.daemon.stderr.read().decode(errors='replace')}")
        return point

    def version(self, point, model, number):
        return os.path.join(point, model, f"v{number}")

    def unmount(self, point):
        subprocess.run([*self.command, "umount", point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            machine.unmount(point)
        self.daemon.stderr.close()

    def cpu_seconds(self):
        """User and system time of the daemon so far."""
        fields = open(f"/proc/{self.daemon.pid}/stat").read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Resident bytes of the daemon: now, and the most so far."""
        lines = dict(line.split(":", 1) for line in open(f"/proc/{self.daemon.pid}/status") if ":" in line)
        return tuple(int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))

    def forget_peak(self):
        with open(f"/proc/{self.daemon.pid}/clear_refs", "w") as control:
            control.write("5")
