"""ONNX Runtime on the same model and the same sentences as `benches`' `routing`: the peer of the embedding alone.

    python3 -m venv VENV && VENV/bin/pip install numpy onnx onnxruntime safetensors tokenizers
    VENV/bin/python benches/peers/onnx/embedding.py ~/.cache/caxton/model/source [target/release/routing --data FOLDER ...]
    VENV/bin/python benches/peers/onnx/embedding.py ~/.cache/caxton/model/source target/debug/examples/kernels

The published package has weights and no graph, so the graph is built here, of the operators that an export has, and
optimised by the runtime as it would optimise that one. It runs in 32-bit floats and, as our own kernels do, in eight
bits (dynamically quantised by the runtime's own tool), each on one thread and on two. What follows the folder is run
between two rounds of the peer, so that both were measured in one run on one machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

LAYERS, HEADS, WIDTH = 6, 12, 384
ROUNDS = 400
# The text of `routing`.
TEXT = "draw the sales of last year as bars, one for each region, and mark the best month in red; " * 20


class Graph:
    """Nodes and weights, each with a name of its own."""

    def __init__(self, weights):
        self.weights, self.nodes, self.tensors = weights, [], {}

    def constant(self, name, array):
        if name not in self.tensors:
            self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def op(self, kind, *inputs, **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, x, name):
        matrix = self.constant(f"{name}.transposed", self.weights[f"{name}.weight"].T)
        return self.op("Add", self.op("MatMul", x, matrix), self.weight(f"{name}.bias"))

    def norm(self, x, name):
        return self.op(
            "LayerNormalization", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), axis=-1, epsilon=1e-12
        )

    def gelu(self, x):
        half, one = self.constant("half", np.float32(0.5)), self.constant("one", np.float32(1))
        root = self.constant("root", np.float32(np.sqrt(2)))
        erf = self.op("Add", self.op("Erf", self.op("Div", x, root)), one)
        return self.op("Mul", self.op("Mul", x, erf), half)


def model(weights):
    """A sentence's ids to its vector, of length 1."""
    graph = Graph(weights)
    shape = graph.constant("heads", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    back = graph.constant("rows", np.array([0, 0, WIDTH], np.int64))
    kind = graph.constant("kind", weights["embeddings.token_type_embeddings.weight"][0])
    places = graph.op("Gather", graph.weight("embeddings.position_embeddings.weight"), "places")
    x = graph.op("Gather", graph.weight("embeddings.word_embeddings.weight"), "ids")
    x = graph.norm(graph.op("Add", graph.op("Add", x, places), kind), "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."

        def heads(part, order):
            rows = graph.op("Reshape", graph.linear(x, f"{name}attention.self.{part}"), shape)
            return graph.op("Transpose", rows, perm=order)

        scores = graph.op("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
        scores = graph.op("Div", scores, graph.constant("scale", np.float32(np.sqrt(WIDTH // HEADS))))
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), heads("value", [0, 2, 1, 3]))
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), back)
        mixed = graph.linear(mixed, f"{name}attention.output.dense")
        x = graph.norm(graph.op("Add", mixed, x), f"{name}attention.output.LayerNorm")
        inner = graph.gelu(graph.linear(x, f"{name}intermediate.dense"))
        x = graph.norm(graph.op("Add", graph.linear(inner, f"{name}output.dense"), x), f"{name}output.LayerNorm")
    mean = graph.op("ReduceMean", x, axes=[1], keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["vector"], axis=-1, p=2))
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"]),
        helper.make_tensor_value_info("places", TensorProto.INT64, [1, "tokens"]),
    ]
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, WIDTH])]
    body = helper.make_graph(graph.nodes, "sentence", inputs, outputs, list(graph.tensors.values()))
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(ids):
    return {"ids": np.array([ids], np.int64), "places": np.arange(len(ids), dtype=np.int64)[None]}


def measure(sessions, ids):
    for tokens in (12, 64, 256):
        given = feed(ids[: tokens - 1] + [ids[-1]])
        for name, run in sessions.items():
            times, own = [], []
            for _ in range(max(ROUNDS * 12 // tokens, 30)):
                begin, thread = time.perf_counter(), time.thread_time()
                run.run(None, given)
                own.append((time.thread_time() - thread) * 1e3)
                times.append((time.perf_counter() - begin) * 1e3)
            times.sort()
            own.sort()
            p95 = times[int(len(times) * 0.95)]
            # With one thread all of the work is this thread's, whose own time a busy machine changes less.
            of_thread = f"; thread least {own[0]:.3f} p50 {statistics.median(own):.3f}" if "1 thread" in name else ""
            clock = f"p50 {statistics.median(times):.3f} p95 {p95:.3f} ms"
            print(f"embed {tokens:3} tokens, {name}: {clock}{of_thread}", flush=True)


def main():
    source, ours = sys.argv[1], sys.argv[2:]
    tokenizer = Tokenizer.from_file(os.path.join(source, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = tokenizer.encode(TEXT).ids
    with tempfile.TemporaryDirectory() as folder:
        whole, eight = os.path.join(folder, "whole.onnx"), os.path.join(folder, "eight.onnx")
        onnx.save(model(load_file(os.path.join(source, "model.safetensors"))), whole)
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(whole, eight, weight_type=QuantType.QInt8, per_channel=True)
        sessions = {}
        for bits, path in (("32-bit floats", whole), ("eight bits", eight)):
            for threads in (1, 2):
                name = f"ONNX Runtime {ort.__version__}, {bits}, {threads} thread{'s' if threads > 1 else ''}"
                sessions[name] = session(path, threads)
        exact, rough = (list(sessions.values())[place].run(None, feed(ids[:11] + [ids[-1]]))[0][0] for place in (0, 2))
        print(f"eight bits against 32: cosine {float(exact @ rough / np.linalg.norm(rough)):.5f}")
        measure(sessions, ids)
        if ours:
            subprocess.run(ours, check=True)
            measure(sessions, ids)


if __name__ == "__main__":
    main()
