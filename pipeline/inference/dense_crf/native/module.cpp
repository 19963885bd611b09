// The Python module `_native`: buffers in, buffers out, Python's lock released in between.
//
// Only the limited API of Python 3.11 is used, so that one build serves all later versions. Shapes,
// types and ranges are checked by the Python side; here only what keeps memory safe.

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <new>
#include <string>

#include "field.hpp"

namespace {

constexpr const char* kFieldName = "pipeline.inference.dense_crf._native.Field";

// A buffer of the caller's, given back at the end of the scope.
class View {
public:
    View() = default;
    ~View() {
        if (buffer.obj) PyBuffer_Release(&buffer);
    }
    View(const View&) = delete;
    View& operator=(const View&) = delete;
    bool holds(std::size_t count, std::size_t size) const {
        return std::size_t(buffer.len) == count * size;
    }

    Py_buffer buffer{};
};

// Run `work` without Python's lock; an exception becomes Python's, and false.
template <typename Work>
bool without_lock(const Work& work) {
    PyObject* kind = nullptr;
    std::string message;
    Py_BEGIN_ALLOW_THREADS
    try {
        work();
    } catch (const std::bad_alloc&) {
        kind = PyExc_MemoryError;
        message = "not enough memory for the dense CRF";
    } catch (const crf::NotFinite& error) {
        kind = PyExc_FloatingPointError;
        message = error.what();
    } catch (const std::length_error& error) {
        kind = PyExc_OverflowError;
        message = error.what();
    } catch (const std::exception& error) {
        kind = PyExc_ValueError;
        message = error.what();
    }
    Py_END_ALLOW_THREADS
    if (kind) PyErr_SetString(kind, message.c_str());
    return kind == nullptr;
}

void destroy(PyObject* capsule) {
    delete static_cast<crf::Field*>(PyCapsule_GetPointer(capsule, kFieldName));
}

PyObject* instruction_sets(PyObject*, PyObject*) {
    PyObject* names = PyList_New(0);
    if (!names) return nullptr;
    for (const crf::Kernels* kernels : crf::instruction_sets()) {
        PyObject* name = PyUnicode_FromString(kernels->name);
        const int failed = name ? PyList_Append(names, name) : -1;
        Py_XDECREF(name);
        if (failed) {
            Py_DECREF(names);
            return nullptr;
        }
    }
    return names;
}

PyObject* prepare(PyObject*, PyObject* args) {
    View image;
    int height, width, symmetric, cell;
    crf::Widths widths;
    const char* name;
    if (!PyArg_ParseTuple(
            args, "y*iifffpis", &image.buffer, &height, &width, &widths.alpha, &widths.beta,
            &widths.gamma, &symmetric, &cell, &name)) {
        return nullptr;
    }
    if (height < 1 || width < 1 || !image.holds(std::size_t(height) * width, 3) || cell < 1 ||
        cell > 2 || !(widths.alpha > 0) || !(widths.beta > 0) || !(widths.gamma > 0)) {
        PyErr_SetString(PyExc_ValueError, "prepare: the arguments do not fit together");
        return nullptr;
    }
    const crf::Kernels* chosen = nullptr;
    for (const crf::Kernels* kernels : crf::instruction_sets()) {
        if (std::string(kernels->name) == name) chosen = kernels;
    }
    if (!chosen) {
        PyErr_Format(PyExc_ValueError, "prepare: no instruction set %s here", name);
        return nullptr;
    }
    crf::Field* field = nullptr;
    const auto* pixels = static_cast<const std::uint8_t*>(image.buffer.buf);
    if (!without_lock([&] {
            field = new crf::Field(pixels, height, width, widths, symmetric, cell, *chosen);
        })) {
        return nullptr;
    }
    PyObject* capsule = PyCapsule_New(field, kFieldName, destroy);
    if (!capsule) delete field;
    return capsule;
}

PyObject* infer(PyObject* args, bool labels) {
    View maps, out;
    PyObject* capsule;
    int classes;
    crf::Weights weights;
    float leave_out;
    if (!PyArg_ParseTuple(
            args, "Oy*iffifw*", &capsule, &maps.buffer, &classes, &weights.w1, &weights.w2,
            &weights.iterations, &leave_out, &out.buffer)) {
        return nullptr;
    }
    auto* field = static_cast<crf::Field*>(PyCapsule_GetPointer(capsule, kFieldName));
    if (!field) return nullptr;
    const std::size_t values = field->pixels() * std::size_t(classes < 0 ? 0 : classes);
    if (classes < 1 || classes > 256 || weights.iterations < 0 ||
        !maps.holds(values, sizeof(float)) ||
        !(labels ? out.holds(field->pixels(), 1) : out.holds(values, sizeof(float)))) {
        PyErr_SetString(PyExc_ValueError, "infer: the arguments do not fit together");
        return nullptr;
    }
    crf::Sink sink{};
    if (labels) {
        sink.labels = static_cast<std::uint8_t*>(out.buffer.buf);
    } else {
        sink.probabilities = static_cast<float*>(out.buffer.buf);
    }
    const auto* source = static_cast<const float*>(maps.buffer.buf);
    if (!without_lock([&] { field->infer(source, classes, weights, leave_out, sink); })) {
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* infer_labels(PyObject*, PyObject* args) { return infer(args, true); }
PyObject* infer_probabilities(PyObject*, PyObject* args) { return infer(args, false); }

PyMethodDef methods[] = {
    {"instruction_sets", instruction_sets, METH_NOARGS,
     "The instruction sets that this machine has, the best one first."},
    {"prepare", prepare, METH_VARARGS,
     "(image, height, width, sigma_alpha, sigma_beta, sigma_gamma, symmetric, cell, "
     "instruction_set) -> field"},
    {"infer_labels", infer_labels, METH_VARARGS,
     "(field, maps, classes, w1, w2, iterations, leave_out, out: uint8)"},
    {"infer_probabilities", infer_probabilities, METH_VARARGS,
     "(field, maps, classes, w1, w2, iterations, leave_out, out: float32)"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The dense CRF's native code.", 0, methods,
    nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&module); }
