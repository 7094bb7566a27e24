#!/usr/bin/env python3
"""A TensorFlow Lite model with every operator and every type of tensor, and what the `tflite` package reads of it.

    tflite_model.py DIRECTORY

Writes m.tflite into DIRECTORY and prints, as JSON, {file: {path in the description: value}}.
"""
import collections
import json
import os
import sys

import flatbuffers
import tflite

WORDS = {"FLOAT32": "f32", "FLOAT16": "f16", "INT32": "i32", "UINT8": "u8", "INT64": "i64", "INT16": "i16", "INT8": "i8",
         "FLOAT64": "f64", "UINT64": "u64", "UINT32": "u32", "UINT16": "u16", "INT4": "i4", "BFLOAT16": "bf16"}


def values(kind):
    """Names of an enumeration of the package by their numbers."""
    return {number: name for name, number in vars(kind).items() if not name.startswith("_")}


OPERATORS, TYPES = values(tflite.BuiltinOperator), values(tflite.TensorType)


def numbers(builder, start, of):
    start(builder, len(of))
    for number in reversed(of):
        builder.PrependInt32(number)
    return builder.EndVector()


def tables(builder, start, of):
    start(builder, len(of))
    for table in reversed(of):
        builder.PrependUOffsetTRelative(table)
    return builder.EndVector()


def tensor(builder, name, kind, shape, signature=None):
    name = builder.CreateString(name)
    shape = numbers(builder, tflite.TensorStartShapeVector, shape)
    if signature:
        signature = numbers(builder, tflite.TensorStartShapeSignatureVector, signature)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, name)
    tflite.TensorAddType(builder, kind)
    tflite.TensorAddShape(builder, shape)
    if signature:
        tflite.TensorAddShapeSignature(builder, signature)
    return tflite.TensorEnd(builder)


def operator_code(builder, number):
    custom = builder.CreateString("Own") if number == tflite.BuiltinOperator.CUSTOM else None
    tflite.OperatorCodeStart(builder)
    # Codes that do not fit a byte stand in the newer field only.
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, min(number, 127))
    tflite.OperatorCodeAddBuiltinCode(builder, number)
    if custom:
        tflite.OperatorCodeAddCustomCode(builder, custom)
    return tflite.OperatorCodeEnd(builder)


def operator(builder, index):
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, index)
    return tflite.OperatorEnd(builder)


def write(path):
    builder = flatbuffers.Builder(1 << 16)
    tensors = [tensor(builder, "x", tflite.TensorType.FLOAT32, [1, 8], [-1, 8]), tensor(builder, "y", tflite.TensorType.INT64, [1])]
    tensors += [tensor(builder, f"t{number}", number, [2, number + 1]) for number in TYPES]
    codes = [operator_code(builder, number) for number in OPERATORS]
    nodes = [operator(builder, index) for index in range(len(codes)) for _ in range(1 + index % 3)]
    tensors = tables(builder, tflite.SubGraphStartTensorsVector, tensors)
    inputs = numbers(builder, tflite.SubGraphStartInputsVector, [0, -1])
    outputs = numbers(builder, tflite.SubGraphStartOutputsVector, [1])
    nodes = tables(builder, tflite.SubGraphStartOperatorsVector, nodes)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, nodes)
    subgraphs = tables(builder, tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(builder)])
    codes = tables(builder, tflite.ModelStartOperatorCodesVector, codes)
    name = builder.CreateString("min_runtime_version")
    tflite.MetadataStart(builder)
    tflite.MetadataAddName(builder, name)
    metadata = tables(builder, tflite.ModelStartMetadataVector, [tflite.MetadataEnd(builder)])
    description = builder.CreateString("every operator once to three times")
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, subgraphs)
    tflite.ModelAddDescription(builder, description)
    tflite.ModelAddMetadata(builder, metadata)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    with open(path, "wb") as file:
        file.write(builder.Output())


def read(path):
    with open(path, "rb") as file:
        model = tflite.Model.GetRootAs(file.read())
    graph = model.Subgraphs(0)
    word = lambda it: WORDS.get(TYPES[it.Type()], TYPES[it.Type()].lower())
    listed = [[it.Name().decode(), word(it), it.ShapeAsNumpy().tolist()]
              for it in map(graph.Tensors, range(graph.TensorsLength()))]

    def port(number):
        it = graph.Tensors(number)
        sizes = (it.ShapeAsNumpy() if it.ShapeSignatureIsNone() else it.ShapeSignatureAsNumpy()).tolist()
        return {"name": it.Name().decode(), "dtype": word(it), "shape": [None if size < 0 else size for size in sizes]}

    counts = collections.Counter()
    for node in map(graph.Operators, range(graph.OperatorsLength())):
        code = model.OperatorCodes(node.OpcodeIndex())
        custom = code.CustomCode()
        counts[custom.decode() if custom else OPERATORS[code.BuiltinCode()]] += 1
    return {
        "tensors": listed, "tensor_count": len(listed), "tflite.version": model.Version(),
        "tflite.description": model.Description().decode(), "tflite.subgraphs": model.SubgraphsLength(),
        "tflite.operators": counts, "tflite.node_count": graph.OperatorsLength(),
        "tflite.inputs": [port(number) for number in graph.InputsAsNumpy().tolist() if 0 <= number],
        "tflite.outputs": [port(number) for number in graph.OutputsAsNumpy().tolist()],
        "tflite.metadata": [model.Metadata(0).Name().decode()],
    }


def main():
    os.chdir(sys.argv[1])
    write("m.tflite")
    print(json.dumps({"m.tflite": read("m.tflite")}))


if __name__ == "__main__":
    main()
