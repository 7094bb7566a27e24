"""Asks the tools that documents were exported for.

  documents.py key DIR                     makes DIR/key.pem and DIR/key.pub
  documents.py check EXPORTED MOUNTED DIR  EXPORTED has the files of a version and all documents, MOUNTED is the same
                                           version in a mount, DIR has the key"""
import json
import os
import subprocess
import sys

from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
import mlflow.onnx
from mlflow.models import Model
import model_signing


def make_key(place):
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    with open(os.path.join(place, "key.pem"), "wb") as file:
        file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    with open(os.path.join(place, "key.pub"), "wb") as file:
        file.write(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))


def signature(exported, mounted, public_key):
    def verify(model):
        config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.verify(model, os.path.join(exported, "model.sig"))

    verify(exported)
    verify(mounted)
    with open(os.path.join(exported, "params.json"), "ab") as file:
        file.write(b" ")
    try:
        verify(exported)
    except ValueError as error:
        assert "params.json" in str(error), error
    else:
        raise AssertionError("a changed file was not noticed")
    # The command line too: it sets what is left out by itself.
    tool = [sys.executable, "-m", "model_signing", "verify", "key", mounted]
    subprocess.run([*tool, "--signature", exported + "/model.sig", "--public_key", public_key], check=True,
                   stdout=sys.stderr)


def bill_of_materials(exported):
    with open(os.path.join(exported, "bom.cdx.json")) as file:
        text = file.read()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    document = json.loads(text)
    bom = Bom.from_json(document)
    assert bom.metadata.component.name == "churn", bom.metadata.component
    names = {component.name for component in bom.components}
    assert {"weights.onnx", "metadata.json", "June"} <= names, names
    model = document["metadata"]["component"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}], model
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "auc", "value": "0.93"} in metrics, metrics


def mlflow_model(exported):
    model = Model.load(exported)
    assert model.metadata["modelfs"]["model"] == "churn", model.metadata
    assert model.flavors["python_function"]["loader_module"] == "mlflow.onnx", model.flavors
    graph = mlflow.onnx.load_model(exported)
    assert graph.graph.input, "a graph without inputs"


if __name__ == "__main__":
    if sys.argv[1] == "key":
        make_key(sys.argv[2])
    else:
        exported, mounted, keys = sys.argv[2:]
        bill_of_materials(exported)
        mlflow_model(exported)
        signature(exported, mounted, os.path.join(keys, "key.pub"))
    print("true")
