"""The C++ listing in the documentation: g++ parses it, with stand-ins for headers that are not here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import nn

import trtplug
from trtplug.artefacts.folder import FORMAT

DOCUMENT = Path(__file__).parents[2] / "docs" / "artefacts.md"

# What the listing uses of TensorRT's and CUDA's interfaces, as their documentation has it. Nothing here is theirs.
STAND_INS = {
    "NvInferRuntime.h": """
#pragma once
#include <cstddef>
#include <cstdint>
struct CUstream_st;
namespace nvinfer1 {
struct ILogger {
    enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, char const* message) noexcept = 0;
    virtual ~ILogger() = default;
};
struct Dims { int32_t nbDims; int64_t d[8]; };
struct Dims2 : Dims { Dims2(int64_t, int64_t); };
struct IExecutionContext {
    bool setInputShape(char const* name, Dims const& shape) noexcept;
    bool setTensorAddress(char const* name, void* data) noexcept;
    bool enqueueV3(CUstream_st* stream) noexcept;
};
struct ICudaEngine { IExecutionContext* createExecutionContext() noexcept; };
struct IRuntime { ICudaEngine* deserializeCudaEngine(void const* data, std::size_t size) noexcept; };
IRuntime* createInferRuntime(ILogger& logger) noexcept;
}
""",
    "cuda_runtime_api.h": """
#pragma once
#include <cstddef>
struct CUstream_st;
using cudaStream_t = CUstream_st*;
int cudaStreamCreate(cudaStream_t*);
int cudaStreamSynchronize(cudaStream_t);
int cudaStreamDestroy(cudaStream_t);
int cudaFree(void*);
int cudaMalloc(void**, std::size_t);
template <class T> int cudaMalloc(T** place, std::size_t bytes) { return cudaMalloc((void**)place, bytes); }
""",
}


def listing():
    (code,) = re.findall(r"```cpp\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return code


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_the_listing_is_cplusplus(tmp_path):
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "main.cpp").write_text(listing())
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I.", "main.cpp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "main.cpp").write_text(listing().replace("enqueueV3(stream)", "enqueueV3()"))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0  # it does look


def test_the_listing_fits_a_folder(tmp_path):
    """File and tensor names in the listing are those that `save` writes for the model that the documentation shows."""
    size = trtplug.Input(min_shape=(2, 8), opt_shape=(4, 8), max_shape=(8, 8), name="x")
    compiled = trtplug.compile(nn.Sequential(nn.ReLU()), inputs={"input": size}, min_block_size=1)
    folder = trtplug.save(compiled, tmp_path / "engines")
    (engine,) = compiled.engines
    assert f"engines/{engine.name}.engine" in listing()
    assert (folder / f"{engine.name}.engine").read_bytes() == engine.plan
    assert f'setTensorAddress("{engine.output_bindings[0].name}"' in listing()
    assert FORMAT == 1
