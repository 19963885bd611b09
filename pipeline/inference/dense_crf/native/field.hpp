// The fully connected CRF of one image (Kraehenbuehl and Koltun, NIPS 2011).

#pragma once

#include <cmath>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "instruction_sets.hpp"
#include "lattice.hpp"

namespace crf {

struct Widths {
    float alpha, beta, gamma;
};

struct Weights {
    float w1, w2;
    int iterations;
};

// A value was NaN or infinite.
struct NotFinite : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The factors of the smoothness kernel along one side of the grid.
class AxisFactors {
public:
    AxisFactors(const std::vector<float>& kernel, int length, bool symmetric) {
        const int padded = Grid(1, length).padded;
        in_.assign(padded, 0.0f);
        std::fill_n(in_.begin(), length, 1.0f);
        out_ = filtered(kernel, length);
        for (int i = 0; i < length; ++i) {
            out_[i] = symmetric ? 1.0f / std::sqrt(out_[i]) : 1.0f / out_[i];
            if (symmetric) in_[i] = out_[i];
        }
        total_ = filtered(kernel, length);
        for (int i = 0; i < length; ++i) total_[i] *= out_[i];
    }

    Axis axis() const { return {in_.data(), out_.data(), total_.data()}; }

private:
    std::vector<float> filtered(const std::vector<float>& kernel, int length) const {
        const int radius = int(kernel.size()) - 1;
        std::vector<float> sums(in_.size(), 0.0f);
        for (int i = 0; i < length; ++i) {
            double sum = 0.0;
            for (int j = std::max(0, i - radius); j <= std::min(length - 1, i + radius); ++j) {
                sum += double(kernel[std::abs(i - j)]) * in_[j];
            }
            sums[i] = float(sum);
        }
        return sums;
    }

    std::vector<float> in_, out_, total_;
};

// The smoothness kernel along one axis, at distances of whole cells. Between cells it is the mean
// over their pixels, for all pixels of a cell believe the same.
inline std::vector<float> gaussian(float sigma, int cell, int longest_side) {
    const int radius = int(std::min(double(longest_side - 1), std::ceil(4.0 * sigma)));
    const auto at = [&](int distance) {
        return std::exp(-0.5 * distance * distance / (double(sigma) * sigma));
    };
    std::vector<float> kernel((radius + cell - 1) / cell + 1);
    for (int t = 0; t < int(kernel.size()); ++t) {
        double sum = 0.0;
        for (int a = 0; a < cell; ++a) {
            for (int b = 0; b < cell; ++b) sum += at(cell * t + a - b);
        }
        kernel[t] = float(sum / cell);
    }
    return kernel;
}

class Field {
public:
    // cell: 1, or 2: mean field on a grid of half the size, its messages then brought to full size.
    Field(
        const std::uint8_t* image, int height, int width, const Widths& widths, bool symmetric,
        int cell, const Kernels& kernels)
        : kernels_(kernels),
          full_(height, width),
          grid_((height + cell - 1) / cell, (width + cell - 1) / cell),
          cell_(cell),
          widths_(widths),
          symmetric_(symmetric),
          image_(image, image + full_.pixels() * 3),
          kernel_(gaussian(widths.gamma, cell, std::max(height, width))),
          down_(kernel_, grid_.height, symmetric),
          across_(kernel_, grid_.width, symmetric) {}

    std::size_t pixels() const { return full_.pixels(); }
    const char* instruction_set() const { return kernels_.name; }

    // Mean-field inference; several threads may do it at once.
    //
    // Args: maps: classes x height x width; leave_out: the least likely classes take no part while
    // their greatest probabilities sum to less; sink: labels or probabilities.
    void infer(
        const float* maps, int classes, const Weights& weights, float leave_out,
        const Sink& sink) const {
        const std::vector<std::int32_t> kept = worth_keeping(maps, classes, leave_out);
        if (sink.probabilities) {
            std::fill_n(sink.probabilities, classes * full_.pixels(), 0.0f);
        }
        const std::size_t count = kept.size();
        Buffer<float> log_p(count * full_.plane());
        for (std::size_t c = 0; c < count; ++c) {
            kernels_.log_plane(
                maps + kept[c] * full_.pixels(), full_, log_p.data() + c * full_.plane());
        }
        const bool coupled = weights.w1 != 0.0f || weights.w2 != 0.0f;
        if (count == 1 || weights.iterations == 0 || !coupled) {
            Update job = unary_only(full_, kept, log_p.data());
            job.sink = sink;
            kernels_.update(job);
        } else if (cell_ == 1) {
            iterate(unary_only(full_, kept, log_p.data()), weights, sink);
        } else {
            infer_coarsely(kept, log_p, weights, sink);
        }
    }

private:
    // What the appearance kernel needs, made when it is first used.
    struct Filter {
        Lattice lattice;
        Buffer<float> norm, total;
    };

    // The classes that take part.
    std::vector<std::int32_t> worth_keeping(
        const float* maps, int classes, float leave_out) const {
        Buffer<float> most(classes);
        Buffer<bool> wins(classes);
        if (!kernels_.survey(maps, classes, pixels(), most.data(), wins.data())) {
            throw NotFinite("a probability is not finite");
        }
        std::vector<std::int32_t> kept(classes);
        std::iota(kept.begin(), kept.end(), 0);
        std::vector<std::int32_t> by_most = kept;
        std::stable_sort(
            by_most.begin(), by_most.end(), [&](int a, int b) { return most[a] < most[b]; });
        float sum = 0.0f;
        for (const std::int32_t c : by_most) {
            if (wins[c]) continue;
            sum += most[c];
            if (sum >= leave_out || kept.size() == 1) break;
            kept.erase(std::find(kept.begin(), kept.end(), c));
        }
        return kept;
    }

    static Update unary_only(
        const Grid& grid, const std::vector<std::int32_t>& kept, const float* log_p) {
        Update job{grid, int(kept.size()), kept.data(), log_p, {}, {}, {}};
        job.appearance.width = 1;
        return job;
    }

    // Iterations on the grid of `job`; the last one's outcome goes to `sink`.
    void iterate(Update job, const Weights& weights, const Sink& sink) const {
        const std::size_t filtered = job.kept - 1;
        const bool far = weights.w1 != 0.0f, near = weights.w2 != 0.0f;
        const Filter* filter = far ? &this->filter() : nullptr;
        job.appearance = appearance(filter, int(filtered), weights.w1);
        job.smoothness = {weights.w2,   kernel_.data(), int(kernel_.size()) - 1,
                          down_.axis(), across_.axis(), nullptr,
                          nullptr};
        const std::size_t values = far ? filter->lattice.vertices * job.appearance.width : 0;
        Buffer<float> vertices(values), next_vertices(values);
        const std::size_t beliefs = near ? filtered * grid_.plane() : 0;
        Buffer<float> planes(beliefs), next_planes(beliefs);
        // The ends of the padded rows stay nought.
        std::fill_n(planes.data(), beliefs, 0.0f);
        std::fill_n(next_planes.data(), beliefs, 0.0f);
        for (int step = 0; step <= weights.iterations; ++step) {
            if (step == weights.iterations) job.sink = sink;
            const bool last = step == weights.iterations;
            if (far) {
                job.appearance.from = step ? vertices.data() : nullptr;
                job.appearance.to = last ? nullptr : next_vertices.data();
                if (!last) std::fill_n(next_vertices.data(), values, 0.0f);
            }
            if (near) {
                job.smoothness.from = step ? planes.data() : nullptr;
                job.smoothness.to = last ? nullptr : next_planes.data();
            }
            kernels_.update(job);
            if (far && !last) {
                filter->lattice.blur(kernels_, next_vertices.data(), job.appearance.width);
            }
            std::swap(vertices, next_vertices);
            std::swap(planes, next_planes);
        }
    }

    void infer_coarsely(
        const std::vector<std::int32_t>& kept, const Buffer<float>& log_p, const Weights& weights,
        const Sink& sink) const {
        const std::size_t count = kept.size();
        Buffer<float> coarse(count * grid_.plane()), messages(count * grid_.plane());
        for (std::size_t c = 0; c < count; ++c) {
            halve(log_p.data() + c * full_.plane(), coarse.data() + c * grid_.plane());
        }
        iterate(
            unary_only(grid_, kept, coarse.data()), weights, {nullptr, nullptr, messages.data()});
        const Buffer<float> colours = colour_planes();
        // Twice the appearance kernel's width: a cell's mean colour is not its pixels'.
        const float falloff = -0.125f / (widths_.beta * widths_.beta);
        kernels_.upsample(
            {full_, grid_, int(count), kept.data(), log_p.data(), image_.data(), colours.data(),
             messages.data(), falloff, sink});
    }

    // The mean of each cell of 2 x 2 pixels.
    void halve(const float* plane, float* out) const {
        for (int y = 0; y < grid_.height; ++y) {
            const float* upper = plane + std::size_t(2 * y) * full_.padded;
            const float* lower = 2 * y + 1 < full_.height ? upper + full_.padded : upper;
            float* row = out + std::size_t(y) * grid_.padded;
            for (int x = 0; x < grid_.padded; ++x) {
                const int left = std::min(2 * x, full_.width - 1);
                const int right = std::min(2 * x + 1, full_.width - 1);
                row[x] = 0.25f * ((upper[left] + upper[right]) + (lower[left] + lower[right]));
            }
        }
    }

    // The image on the grid, 3 planes.
    Buffer<float> colour_planes() const {
        Buffer<float> planes(3 * full_.plane());
        for (int y = 0; y < full_.height; ++y) {
            const std::uint8_t* row = image_.data() + std::size_t(y) * full_.width * 3;
            for (int x = 0; x < full_.padded; ++x) {
                const std::uint8_t* pixel = row + 3 * std::min(x, full_.width - 1);
                for (int c = 0; c < 3; ++c) {
                    planes[c * full_.plane() + std::size_t(y) * full_.padded + x] = pixel[c];
                }
            }
        }
        if (cell_ == 1) return planes;
        Buffer<float> halves(3 * grid_.plane());
        for (int c = 0; c < 3; ++c) {
            halve(planes.data() + c * full_.plane(), halves.data() + c * grid_.plane());
        }
        return halves;
    }

    const Filter& filter() const {
        const std::lock_guard<std::mutex> guard(mutex_);
        if (!filter_) filter_ = std::make_unique<Filter>(make_filter());
        return *filter_;
    }

    Filter make_filter() const {
        Filter filter;
        filter.lattice = build_lattice(
            kernels_, grid_, colour_planes().data(), cell_, widths_.alpha, widths_.beta);
        Buffer<float> ones(grid_.plane());
        std::fill_n(ones.data(), grid_.plane(), 1.0f);
        filter.norm = filtered(filter.lattice, ones.data());
        for (int y = 0; y < grid_.height; ++y) {
            float* row = filter.norm.data() + std::size_t(y) * grid_.padded;
            for (int x = 0; x < grid_.width; ++x) {
                row[x] = 1.0f / (symmetric_ ? std::sqrt(row[x]) : row[x]);
            }
        }
        filter.total = filtered(filter.lattice, symmetric_ ? filter.norm.data() : ones.data());
        for (std::size_t i = 0; i < grid_.plane(); ++i) filter.total[i] *= filter.norm[i];
        return filter;
    }

    Buffer<float> filtered(const Lattice& lattice, const float* plane) const {
        std::vector<float> values(lattice.vertices, 0.0f);
        kernels_.splat_plane(plane, grid_, lattice.sites.data(), values.data());
        lattice.blur(kernels_, values.data(), 1);
        Buffer<float> out(grid_.plane());
        std::fill_n(out.data(), grid_.plane(), 0.0f);
        kernels_.slice_plane(values.data(), grid_, lattice.sites.data(), out.data());
        return out;
    }

    // Constant factors of the messages, laid out for `filtered` classes.
    Appearance appearance(const Filter* filter, int filtered, float weight) const {
        Appearance term{};
        term.width = filtered <= 2 ? filtered : filtered <= 4 ? 4 : (filtered + 7) / 8 * 8;
        if (!filter) return term;
        term.weight = weight;
        term.sites = filter->lattice.sites.data();
        const float* norm = filter->norm.data();
        term.plane = {symmetric_ ? norm : ones_row_.data(), norm, filter->total.data()};
        term.in_step = symmetric_ ? grid_.padded : 0;
        return term;
    }

    const Kernels& kernels_;
    Grid full_, grid_;
    int cell_;
    Widths widths_;
    bool symmetric_;
    std::vector<std::uint8_t> image_;
    std::vector<float> kernel_;
    AxisFactors down_, across_;
    std::vector<float> ones_row_ = std::vector<float>(grid_.padded, 1.0f);
    mutable std::mutex mutex_;
    mutable std::unique_ptr<Filter> filter_;
};

}  // namespace crf
