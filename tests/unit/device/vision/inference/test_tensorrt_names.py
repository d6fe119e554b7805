"""Compare the TensorRT and CUDA names in the code with NVIDIA's own bindings.

No GPU is needed. The wheel `tensorrt-cu12-bindings` has the real Python classes, but its module links to
libraries of several gigabytes. Here it is imported with empty libraries of the same file names, which is
enough to read names. `pip install ".[tensorrt-names]"` makes these tests run.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

from device.vision.inference import cuda_memory, tensorrt_builder, tensorrt_session
from tests import fake_tensorrt

BINDINGS = "tensorrt_bindings"
CUDA = "cuda.bindings.runtime"
# Symbols that the bindings resolve when they are loaded; none is called.
ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
DUMP = f"""
import json
import {BINDINGS} as trt
names = {{name: dir(getattr(trt, name)) for name in dir(trt)}}
print(json.dumps({{"version": trt.__version__, "names": names}}))
"""

TENSORRT_OBJECTS = {
    "tensorrt": "",
    "trt": "",
    "self._trt": "",
    "trt.ILogger": "ILogger",
    "trt.BuilderFlag": "BuilderFlag",
    "trt.MemoryPoolType": "MemoryPoolType",
    "self._trt.TensorIOMode": "TensorIOMode",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "inputs[0]": "ITensor",
    "parser": "OnnxParser",
    "parser.get_error(index)": "ParserError",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "self._context": "IExecutionContext",
}
"""Expressions of our source -> the TensorRT class of their value; `` is the module itself."""
OTHER_OBJECTS = frozenset(
    (
        "ModelFile",
        "Path",
        "_log",
        "answer",
        "answers",
        "buffer",
        "buffers[name]",
        "cuda",
        "each",
        "file",
        "gpu",
        "hashlib",
        "kind",
        "logger",
        "logging",
        "message",
        "np",
        "onnx",
        "output",
        "rows",
        "self",
        "self._finalizer",
        "self._input",
        "self._memory",
        "self._record",
        "self._types",
        "source",
        "tensorrt.__version__",
        "threading",
        "weakref",
    )
)
"""Expressions of our source with values that are no TensorRT objects."""
ONLY_IN_10 = frozenset({("BuilderFlag", "FP16")})


def names_in_code(*modules):
    """Return (class, attribute) of each use of a TensorRT object, and other objects."""
    used, others = set(), set()
    for module in modules:
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                receiver = ast.unparse(node.value)
                if receiver in TENSORRT_OBJECTS:
                    used.add((TENSORRT_OBJECTS[receiver], node.attr))
                elif re.fullmatch(r"[\w.\[\]]+", receiver):
                    others.add(receiver)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                receiver, name, *_ = node.args
                if ast.unparse(receiver) in TENSORRT_OBJECTS:
                    used.add((TENSORRT_OBJECTS[ast.unparse(receiver)], ast.literal_eval(name)))
    return used, others


def names_in_stand_in():
    """Return (class, attribute) of everything public in `tests/fake_tensorrt.py`."""
    module = fake_tensorrt._tensorrt(fake_tensorrt.Machine())
    builder = module.Builder(None)
    classes = {
        "Builder": module.Builder,
        "IBuilderConfig": type(builder.create_builder_config()),
        "ICudaEngine": fake_tensorrt.Engine,
        "IExecutionContext": fake_tensorrt.Context,
        "ILogger": module.ILogger,
        "INetworkDefinition": fake_tensorrt.Network,
        "IOptimizationProfile": type(builder.create_optimization_profile()),
        "OnnxParser": module.OnnxParser,
        "Runtime": module.Runtime,
        "TensorIOMode": fake_tensorrt.IOMode,
        "MemoryPoolType": module.MemoryPoolType,
        "BuilderFlag": module.BuilderFlag,
        "DataType": fake_tensorrt.DataType,
    }
    offered = {("", name) for name in vars(module) if not name.startswith("_")}
    for name, kind in classes.items():
        offered |= {(name, member) for member in vars(kind) if not member.startswith("_")}
    return offered - {("ICudaEngine", "machine")}


def stand_in_libraries(bindings: Path, folder: Path) -> None:
    """Compile empty libraries under the names that the module in `bindings` links to."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler to make stand-ins for TensorRT's libraries")
    source = folder / "stand_in.c"
    source.write_text("\n".join(f"int {name}(void) {{ return 0; }}" for name in ENTRY_POINTS))
    needed = set(re.findall(rb"libnv\w+\.so\.\d+", (bindings / "tensorrt.so").read_bytes()))
    for name in map(bytes.decode, sorted(needed)):
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True, capture_output=True)


def dump_names(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Import the bindings in a new process, since a failed import cannot be repeated."""
    command = [sys.executable, "-c", DUMP]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def tensorrt_names(tmp_path_factory) -> tuple[str, dict[str, list[str]]]:
    """Return the version of the bindings, and the names of each class.

    The key `` is the module.
    """
    spec = find_spec(BINDINGS)
    if spec is None or spec.origin is None:
        pytest.skip("the wheel tensorrt-cu12-bindings is not installed (extra tensorrt-names)")
    bindings = Path(spec.origin).parent
    folder = tmp_path_factory.mktemp("tensorrt")
    path = [str(bindings.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    read = dump_names(environment)
    if read.returncode:
        stand_in_libraries(bindings, folder)
        read = dump_names({**environment, "LD_LIBRARY_PATH": str(folder)})
    assert read.returncode == 0, read.stderr
    answer = json.loads(read.stdout)
    return answer["version"], {**answer["names"], "": [*answer["names"], "__version__"]}


def unknown(used, version, names):
    """Return the names in `used` that this version of TensorRT does not have."""
    expected = used if version.startswith("10.") else used - ONLY_IN_10
    return sorted((kind, name) for kind, name in expected if name not in names.get(kind, ()))


def test_this_test_knows_every_object_with_attributes_in_the_code():
    """The names of an unknown object would not be compared."""
    _, others = names_in_code(tensorrt_session, tensorrt_builder)
    assert others - OTHER_OBJECTS == set()


def test_the_code_uses_only_names_that_tensorrt_has(tensorrt_names):
    used, _ = names_in_code(tensorrt_session, tensorrt_builder)
    assert len(used) > 30
    assert unknown(used, *tensorrt_names) == []


def test_the_stand_in_offers_only_names_that_tensorrt_has(tensorrt_names):
    offered = names_in_stand_in()
    assert ("IExecutionContext", "execute_async_v3") in offered
    assert unknown(offered, *tensorrt_names) == []


def test_a_name_that_tensorrt_does_not_have_is_found(tensorrt_names):
    assert unknown({("ICudaEngine", "get_binding_shape")}, *tensorrt_names) == [
        ("ICudaEngine", "get_binding_shape")
    ]


def test_the_stand_in_offers_every_name_that_the_code_uses():
    used, _ = names_in_code(tensorrt_session, tensorrt_builder)
    elsewhere = {"ITensor", "ParserError"}
    missing = {(kind, name) for kind, name in used if kind not in elsewhere} - names_in_stand_in()
    assert {name for _, name in missing if not name.startswith("__")} <= {"num_io_tensors"}


def test_the_code_calls_only_functions_that_cuda_python_has():
    runtime = pytest.importorskip(CUDA, reason="cuda-python is not installed (extra tensorrt-names)")
    tree = ast.parse(Path(cuda_memory.__file__).read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    functions = {word for word in words if isinstance(word, str) and re.fullmatch(r"cuda[A-Z]\w+", word)}
    assert {"cudaMalloc", "cudaMemcpyAsync"} <= functions
    offered = vars(fake_tensorrt._cuda_runtime(fake_tensorrt.Machine()))
    functions |= {name for name, value in offered.items() if isinstance(value, types.FunctionType)}
    assert sorted(name for name in functions if not hasattr(runtime, name)) == []
    kinds = {kind.name for kind in fake_tensorrt.CopyKind}
    assert sorted(name for name in kinds if not hasattr(runtime.cudaMemcpyKind, name)) == []
