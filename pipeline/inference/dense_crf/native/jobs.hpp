// What the parts of the dense CRF hand each other: plain data, and the table of inner loops.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace crf {

// The features of the appearance kernel: x, y, and three colours.
constexpr int kDims = 5;
constexpr int kCorners = kDims + 1;
// Rows are padded to a multiple of this many values, so that vectors need no rest.
constexpr int kChunk = 16;

// Memory that is not set to nought first.
template <typename T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t size) : data_(new T[size]), size_(size) {}
    T* data() const { return data_.get(); }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t index) const { return data_[index]; }

private:
    std::unique_ptr<T[]> data_;
    std::size_t size_ = 0;
};

// Pixels, or cells of several pixels. A plane is height x padded values.
struct Grid {
    int height, width, padded;

    Grid(int height, int width)
        : height(height), width(width), padded((width + kChunk - 1) / kChunk * kChunk) {}
    std::size_t plane() const { return std::size_t(height) * padded; }
    std::size_t pixels() const { return std::size_t(height) * width; }
};

// Where a pixel lies in the lattice: the corners of its simplex, and its barycentric coordinates.
struct Site {
    std::int32_t vertex[kCorners];
    float weight[kCorners];
};

// The same for a chunk of pixels before the vertices are looked up: the quotients by kCorners of
// the remainder-0 corner's coordinates, the rank of each coordinate, and the weights.
struct Embedding {
    std::int32_t quotients[kCorners][kChunk];
    std::int32_t ranks[kCorners][kChunk];
    float weights[kCorners][kChunk];
};

// What coordinate i of the embedding is multiplied by, so that splat, blur and slice together are a
// Gaussian of variance 1 (Adams, Baek and Davis 2010, section 3).
inline float elevation(int i) {
    return float(kCorners * std::sqrt(2.0 / 3.0) / std::sqrt(double(i) * (i + 1)));
}

// Normalisation: values are multiplied by `in` before a filter and by `out` after it; `total` is
// what then becomes of ones, the sum of the messages of all classes.
struct Axis {
    const float *in, *out, *total;
};

// The smoothness kernel, a separable Gaussian; its planes hold the classes but the last.
struct Smoothness {
    float weight;
    const float* kernel;  // of distances 0 .. radius
    int radius;
    Axis down, across;  // the factors of a row and of a column
    const float* from;  // null: no message
    float* to;          // null: nothing is filtered next
};

// The appearance kernel, on the lattice; a vertex holds `width` values, one a class but the last.
struct Appearance {
    float weight;
    const Site* sites;  // height x width
    int width;
    Axis plane;
    std::size_t in_step;  // from row to row of plane.in; 0: all rows are the same
    const float* from;
    float* to;
};

// Where the result goes; all null: only to the filters.
struct Sink {
    std::uint8_t* labels;  // height x width
    float* probabilities;  // all classes x height x width
    float* messages;       // kept planes
};

// One mean-field step.
struct Update {
    Grid grid;
    int kept;                      // classes
    const std::int32_t* classes;   // their numbers
    const float* log_p;            // kept planes
    Appearance appearance;
    Smoothness smoothness;
    Sink sink;
};

// The last step of the fast mode: from messages on the half grid to the pixels.
struct Upsample {
    Grid full, half;
    int kept;
    const std::int32_t* classes;
    const float* log_p;           // kept planes of the full grid
    const std::uint8_t* image;    // full height x width x 3
    const float* colours;         // 3 planes of the half grid
    const float* messages;        // kept planes of the half grid
    float falloff;                // the weight of a cell is exp(falloff * squared colour distance)
    Sink sink;
};

// The inner loops, compiled for one instruction set.
struct Kernels {
    const char* name;
    bool (*survey)(
        const float* maps, int classes, std::size_t plane, float* most, bool* wins);
    void (*log_plane)(const float* values, const Grid& grid, float* out);
    void (*embed)(const float (&features)[kDims][kChunk], Embedding& out);
    void (*splat_plane)(const float* in, const Grid& grid, const Site* sites, float* values);
    void (*slice_plane)(const float* values, const Grid& grid, const Site* sites, float* out);
    void (*blur)(float* values, int width, const std::int32_t* chain, std::size_t count);
    void (*update)(const Update& job);
    void (*upsample)(const Upsample& job);
};

}  // namespace crf
