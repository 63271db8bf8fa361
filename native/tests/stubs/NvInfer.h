// A stand-in for NVIDIA's NvInfer.h. It declares only what libeffdet calls, so that libeffdet's
// TensorRT source compiles where TensorRT is not installed, and runs with a fake that records
// calls. Its layout differs from the real library's: code compiled with this header runs only with
// the fake.
#pragma once

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_VERSION 101303

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace nvinfer1 {

class Dims64 {
public:
    std::int32_t nbDims;
    std::int64_t d[8];
};
using Dims = Dims64;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3 };
    virtual void log(Severity severity, const char* message) noexcept = 0;

protected:
    virtual ~ILogger() = default;
};

class IExecutionContext {
public:
    virtual ~IExecutionContext() = default;
    virtual bool setTensorAddress(const char* name, void* address) noexcept = 0;
    virtual bool setInputShape(const char* name, const Dims& dims) noexcept = 0;
    virtual Dims getTensorShape(const char* name) const noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
public:
    virtual ~ICudaEngine() = default;
    virtual std::int32_t getNbIOTensors() const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(const char* name) const noexcept = 0;
    virtual DataType getTensorDataType(const char* name) const noexcept = 0;
    virtual Dims getTensorShape(const char* name) const noexcept = 0;
    virtual IExecutionContext* createExecutionContext() noexcept = 0;
};

class IRuntime {
public:
    virtual ~IRuntime() = default;
    virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
    virtual ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1
