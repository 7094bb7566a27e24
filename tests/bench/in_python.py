"""Seals one version with a store that is a Python module:  in_python.py xet|zipnn STORE DIRECTORY THREADS

Runs under the interpreter that has the module, which need not be that of scripts/bench."""
import hashlib
import os
import sys


def paths_below(directory):
    for base, _, names in os.walk(directory):
        for name in sorted(names):
            yield os.path.join(base, name)


def xet(store, directory, _threads):
    import hf_xet
    hf_xet.upload_files(list(paths_below(directory)), f"local://{store}", None, None, None, "model")


def element_type(path, data):
    """What zipnn wants to be told: taken from the header of safetensors, else guessed to be fp32."""
    if not path.endswith(".safetensors"):
        return "float32"
    header = data[8:8 + int.from_bytes(data[:8], "little")]
    names = {b'"BF16"': "bfloat16", b'"F16"': "float16", b'"F32"': "float32"}
    return max(names.items(), key=lambda pair: header.count(pair[0]))[1]


def zipnn(store, directory, threads):
    import zipnn as module
    for path in paths_below(directory):
        data = open(path, "rb").read()
        target = os.path.join(store, hashlib.sha256(data).hexdigest())
        if os.path.exists(target):
            continue
        # It ends some processes with a signal (churn-xgboost's .ubj): in a child, so that only its file is kept plain.
        child = os.fork()
        if child == 0:
            packer = module.ZipNN(input_format="byte", bytearray_dtype=element_type(path, data), threads=threads)
            small = packer.compress(data)
            with open(target, "wb") as out:
                out.write(small if len(small) < len(data) else data)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            with open(target, "wb") as out:
                out.write(data)


if __name__ == "__main__":
    name, store, directory, threads = sys.argv[1:]
    {"xet": xet, "zipnn": zipnn}[name](store, directory, int(threads))
