"""Stand-in for a machine with a GPU and TensorRT, run by ONNX Runtime on the CPU.

It has the part of `tensorrt` and `cuda.bindings.runtime` that the product uses, with names that
`test_tensorrt_names.py` compares with the real ones. Common mistakes fail: work on a stream happens when the
stream is synchronized and not before, an address must lie in memory that is allocated, and sizes must fit.
"""

import ctypes
import enum
import json
import sys
import types
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime

MAGIC = b"ENGINE\0"


CudaError = enum.IntEnum(
    "CudaError",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorIllegalAddress": 700,
    },
)
CopyKind = enum.Enum("CopyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3


class IOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Stream:
    def __init__(self):
        self.work = []
        self.alive = True
        self.running = False

    def __int__(self):
        return id(self)


@dataclass
class Machine:
    """A machine whose fields a test sets.

    `live` holds the allocated memory by address: kind and bytes.
    """

    tensorrt: str = "10.3.0"
    gpu: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    driver: bool = True
    memory: int = 1 << 30
    has_fp16_flag: bool = True
    half_outputs: bool = False
    fails: CudaError = CudaError.cudaSuccess
    """The error of every further CUDA call."""
    live: dict = field(default_factory=dict)
    streams: list = field(default_factory=list)
    allocations: int = 0
    launches: list = field(default_factory=list)
    """The input shape of each run of an engine."""

    def install(self, monkeypatch, *, old_cuda=False, cuda=True, tensorrt=True):
        """Put the modules into `sys.modules`; an option that is False breaks its import."""
        package = types.ModuleType("cuda")
        runtime = _cuda_runtime(self)
        modules = dict.fromkeys(("cuda", "cuda.bindings", "cuda.bindings.runtime", "tensorrt"))
        if cuda and old_cuda:
            package.cudart = runtime
            modules["cuda"] = package
        elif cuda:
            bindings = types.ModuleType("cuda.bindings")
            bindings.runtime = runtime
            package.bindings = bindings
            modules |= {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
        if tensorrt:
            modules["tensorrt"] = _tensorrt(self)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return self

    def block(self, address, size, kind):
        """Return the memory at `address`.

        Raises AssertionError unless `size` bytes of `kind` live there.
        """
        for start, (found, buffer) in self.live.items():
            if start <= address < start + len(buffer):
                assert found == kind, f"{found} memory where {kind} memory belongs"
                assert address + size <= start + len(buffer), f"{size} bytes do not fit into {len(buffer)}"
                return
        raise AssertionError(f"{kind} memory that is not allocated, or no longer")

    def assert_all_given_back(self):
        assert not self.live
        assert not any(stream.alive for stream in self.streams)


def _cuda_runtime(machine):  # noqa: C901
    runtime = types.ModuleType("cuda.bindings.runtime")
    runtime.cudaMemcpyKind = CopyKind
    runtime.cudaError_t = CudaError

    def function(body):
        def call(*arguments):
            if not machine.driver:
                raise RuntimeError("Failed to dlopen libcuda.so.1")
            if machine.fails:
                return (machine.fails, None)
            answer = body(*arguments)
            return answer if isinstance(answer, tuple) else (answer,)

        setattr(runtime, body.__name__, call)

    def allocate(kind, size):
        assert size > 0
        if size + sum(len(buffer) for _, buffer in machine.live.values()) > machine.memory:
            return CudaError.cudaErrorMemoryAllocation, None
        buffer = (ctypes.c_uint8 * size)()
        # Garbage, so that no code relies on zeros.
        ctypes.memset(buffer, 0xEE, size)
        machine.live[ctypes.addressof(buffer)] = (kind, buffer)
        machine.allocations += 1
        return CudaError.cudaSuccess, ctypes.addressof(buffer)

    def free(kind, address):
        if machine.live.get(address, (None,))[0] != kind:
            return CudaError.cudaErrorInvalidValue
        del machine.live[address]
        return CudaError.cudaSuccess

    def cudaGetDevice():  # noqa: N802
        return CudaError.cudaSuccess, 0

    def cudaGetDeviceProperties(device):  # noqa: N802
        major, minor = machine.capability
        return CudaError.cudaSuccess, types.SimpleNamespace(
            name=machine.gpu.encode() + b"\0", major=major, minor=minor
        )

    def cudaMalloc(size):  # noqa: N802
        return allocate("device", size)

    def cudaMallocHost(size):  # noqa: N802
        return allocate("pinned", size)

    def cudaFree(address):  # noqa: N802
        return free("device", address)

    def cudaFreeHost(address):  # noqa: N802
        return free("pinned", address)

    def cudaStreamCreate():  # noqa: N802
        machine.streams.append(Stream())
        return CudaError.cudaSuccess, machine.streams[-1]

    def cudaStreamDestroy(stream):  # noqa: N802
        assert stream.alive
        assert not stream.work, "a stream is destroyed with work left"
        stream.alive = False
        return CudaError.cudaSuccess

    def cudaStreamSynchronize(stream):  # noqa: N802
        assert stream.alive
        assert not stream.running, "two threads use one stream"
        stream.running = True
        try:
            while stream.work:
                stream.work.pop(0)()
        finally:
            stream.running = False
        return CudaError.cudaSuccess

    def cudaMemcpyAsync(target, source, size, kind, stream):  # noqa: N802
        assert stream.alive
        assert not stream.running, "two threads use one stream"
        sides = ("device", "pinned") if kind is CopyKind.cudaMemcpyHostToDevice else ("pinned", "device")

        def copy():
            machine.block(target, size, sides[0])
            machine.block(source, size, sides[1])
            ctypes.memmove(target, source, size)

        stream.work.append(copy)
        return CudaError.cudaSuccess

    for body in list(locals().values()):
        if getattr(body, "__name__", "").startswith("cuda") and callable(body):
            function(body)
    return runtime


class Engine:
    def __init__(self, machine, head, model):
        self.machine = machine
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.half_outputs = head["half_outputs"]
        self.profile = head["profile"]
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.outputs = {each.name: each for each in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index):
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name):
        return IOMode.INPUT if name in self.inputs else IOMode.OUTPUT

    def get_tensor_shape(self, name):
        node = self.inputs.get(name) or self.outputs[name]
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_dtype(self, name):
        node = self.inputs.get(name) or self.outputs[name]
        if node.type != "tensor(float)":
            return DataType.INT32
        return DataType.HALF if self.half_outputs and name in self.outputs else DataType.FLOAT

    def get_tensor_profile_shape(self, name, index):
        assert index == 0
        return [tuple(shape) for shape in self.profile]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine = engine
        self.shape = None
        self.addresses = {}
        self.shapes = {}

    def set_input_shape(self, name, shape):
        if self.engine.profile:
            smallest, _, largest = self.engine.profile
            fits = all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))
        else:
            fits = tuple(shape) == self.engine.get_tensor_shape(name)
        if fits:
            self.shape = tuple(shape)
        return fits

    def get_tensor_shape(self, name):
        if name in self.engine.inputs:
            return self.shape
        if self.shape not in self.shapes:
            answers = self.engine.session.run(None, self._feed(np.zeros(self.shape, np.float32)))
            self.shapes[self.shape] = {
                each: answer.shape for each, answer in zip(self.engine.outputs, answers, strict=True)
            }
        return self.shapes[self.shape][name]

    def _feed(self, batch):
        return {next(iter(self.engine.inputs)): batch}

    def set_tensor_address(self, name, address):
        self.engine.machine.block(address, 1, "device")
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        stream = next(each for each in self.engine.machine.streams if int(each) == stream_handle)
        assert self.addresses.keys() == {*self.engine.inputs, *self.engine.outputs}
        shape = self.shape

        def work():
            (name,) = self.engine.inputs
            batch = self._at(self.addresses[name], shape, np.float32)
            answers = self.engine.session.run(None, self._feed(batch))
            for output, answer in zip(self.engine.outputs, answers, strict=True):
                kind = np.float16 if self.engine.half_outputs else np.float32
                self._at(self.addresses[output], answer.shape, kind)[...] = answer
            self.engine.machine.launches.append(shape)

        stream.work.append(work)
        return True

    def _at(self, address, shape, kind):
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        self.engine.machine.block(address, size, "device")
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), kind).reshape(shape)


class Network:
    def __init__(self):
        self.model = None

    @property
    def num_inputs(self):
        return len(self.model.graph.input)

    def get_input(self, index):
        tensor = self.model.graph.input[index]
        sizes = (
            each.dim_value if each.HasField("dim_value") else -1 for each in tensor.type.tensor_type.shape.dim
        )
        return types.SimpleNamespace(name=tensor.name, shape=tuple(sizes))


def _tensorrt(machine):  # noqa: C901
    module = types.ModuleType("tensorrt")
    module.__version__ = machine.tensorrt
    module.float32, module.float16 = DataType.FLOAT, DataType.HALF
    module.TensorIOMode = IOMode
    module.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    module.BuilderFlag = types.SimpleNamespace(**({"FP16": "fp16"} if machine.has_fp16_flag else {}))

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            head, _, model = plan.removeprefix(MAGIC).partition(b"\0")
            head = json.loads(head)
            if head["tensorrt"] != machine.tensorrt or tuple(head["capability"]) != machine.capability:
                self.logger.log(
                    Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1:\nSerialization"
                )
                return None
            return Engine(machine, head, model)

    class OnnxParser:
        def __init__(self, network, logger):
            self.network = network
            self.errors = []

        @property
        def num_errors(self):
            return len(self.errors)

        def get_error(self, index):
            return types.SimpleNamespace(desc=lambda: self.errors[index])

        def parse_from_file(self, path):
            try:
                self.network.model = onnx.load(path)
                onnx.checker.check_model(self.network.model)
            except Exception:  # noqa: BLE001  # any fault of the file
                self.errors.append("Failed to parse the ONNX model")
            return not self.errors

    class Config:
        def __init__(self):
            self.flags, self.profiles, self.workspace = [], [], None

        def set_memory_pool_limit(self, pool, size):
            assert pool == "workspace"
            self.workspace = size

        def set_flag(self, flag):
            self.flags.append(flag)

        def add_optimization_profile(self, profile):
            self.profiles.append(profile.shapes)

    class Profile:
        def set_shape(self, name, smallest, best, largest):
            self.shapes = [smallest, best, largest]

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            assert flags == 0
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            if config.workspace < 32 << 20:
                self.logger.log(Severity.ERROR, "Could not find any implementation for node Conv_0")
                return None
            head = {
                "tensorrt": machine.tensorrt,
                "capability": machine.capability,
                "profile": config.profiles[0] if config.profiles else None,
                "half_outputs": machine.half_outputs,
            }
            return MAGIC + json.dumps(head).encode() + b"\0" + network.model.SerializeToString()

    for each in (ILogger, Runtime, OnnxParser, Builder):
        setattr(module, each.__name__, each)
    return module
