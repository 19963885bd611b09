// The inner loops, second part: the mean-field step, and the fast mode's last one. See kernels.hpp.

namespace KERNELS {

// The energies of a block of pixels, energies[class * LANES + pixel], turned into labels.
INLINE void write_labels(
    const float* energies, const std::int32_t* classes, int kept, int count, std::uint8_t* out) {
    Floats best = load(energies);
    Ints label = {};
    for (int c = 1; c < kept; ++c) {
        const Floats energy = load(energies + c * LANES);
        const Ints above = energy > best;
        label = above ? Ints{} + c : label;
        best = above ? energy : best;
    }
    for (int p = 0; p < count; ++p) out[p] = std::uint8_t(classes[label[p]]);
}

INLINE void softmax(float* energies, int kept) {
    Floats best = load(energies), sum = {};
    for (int c = 1; c < kept; ++c) best = larger(load(energies + c * LANES), best);
    for (int c = 0; c < kept; ++c) {
        const Floats power = exponential(load(energies + c * LANES) - best);
        store(energies + c * LANES, power);
        sum += power;
    }
    sum = 1.0f / sum;
    for (int c = 0; c < kept; ++c) store(energies + c * LANES, load(energies + c * LANES) * sum);
}

// Labels or probabilities of a block of pixels; true if one of the two was wanted.
INLINE bool write_result(
    const Sink& sink, const Grid& grid, const std::int32_t* classes, int kept, std::size_t pixel,
    int count, float* energies) {
    if (sink.labels) {
        write_labels(energies, classes, kept, count, sink.labels + pixel);
        return true;
    }
    if (!sink.probabilities) return false;
    softmax(energies, kept);
    for (int c = 0; c < kept; ++c) {
        float* out = sink.probabilities + std::size_t(classes[c]) * grid.pixels() + pixel;
        std::memcpy(out, energies + c * LANES, count * sizeof(float));
    }
    return true;
}

// Room for one row and one block.
struct Scratch {
    std::vector<float> memory;
    float *line, *smooth, *mixed, *energies;

    explicit Scratch(const Update& job) {
        const std::size_t row = job.grid.padded, filtered = job.kept - 1;
        const std::size_t line_size = row + 2 * job.smoothness.radius;
        const std::size_t mixed_size = std::size_t(job.appearance.width) * LANES;
        memory.resize(line_size + filtered * row + mixed_size + std::size_t(job.kept) * LANES);
        line = memory.data();
        smooth = line + line_size;
        mixed = smooth + filtered * row;
        energies = mixed + mixed_size;
    }
};

// The messages to a block of pixels: energies[class * LANES + pixel].
//
// Over the classes they sum to what the filters make of ones, so the last class's is what the
// others leave, and it needs no filtering.
template <int WIDTH>
INLINE void receive(
    const Update& job, int y, int x, int count, const Site* sites, const Scratch& scratch) {
    const Appearance& far = job.appearance;
    const Smoothness& near = job.smoothness;
    const std::size_t pixel = std::size_t(y) * job.grid.padded + x;
    Floats rest = {}, factor = {};
    if (far.from) {
        slice<WIDTH>(sites, count, far.from, far.width, scratch.mixed);
        rest += load(far.plane.total + pixel) * far.weight;
        factor = load(far.plane.out + pixel) * far.weight;
    }
    if (near.from) rest += load(near.across.total + x) * (near.down.total[y] * near.weight);
    for (int c = 0; c < job.kept - 1; ++c) {
        Floats message = {};
        if (far.from) message += load(scratch.mixed + c * LANES) * factor;
        if (near.from) message += load(scratch.smooth + std::size_t(c) * job.grid.padded + x);
        rest -= message;
        store(scratch.energies + c * LANES, message);
    }
    store(scratch.energies + (job.kept - 1) * LANES, rest);
}

// Hand the beliefs of a block of pixels to the filters of the next step.
template <int WIDTH>
INLINE void send(
    const Update& job, int y, int x, int count, const Site* sites, const Scratch& scratch) {
    const Appearance& far = job.appearance;
    const Smoothness& near = job.smoothness;
    for (int c = 0; c < job.kept - 1; ++c) {
        const Floats belief = load(scratch.energies + c * LANES);
        if (near.to) {
            const Floats factor = load(near.across.in + x) * near.down.in[y];
            const std::size_t row = c * job.grid.plane() + std::size_t(y) * job.grid.padded;
            store(near.to + row + x, belief * factor);
        }
        if (far.to) {
            store(scratch.mixed + c * LANES, belief * load(far.plane.in + y * far.in_step + x));
        }
    }
    if (far.to) splat<WIDTH>(sites, count, scratch.mixed, far.width, far.to);
}

template <int WIDTH>
TARGET static void update_all(const Update& job) {
    const Scratch scratch(job);
    const Grid& grid = job.grid;
    for (int y = 0; y < grid.height; ++y) {
        if (job.smoothness.from) {
            for (int c = 0; c < job.kept - 1; ++c) {
                smooth_row(
                    job.smoothness, job.smoothness.from + c * grid.plane(), grid, y, scratch.line,
                    scratch.smooth + std::size_t(c) * grid.padded);
            }
        }
        for (int x = 0; x < grid.width; x += LANES) {
            const int count = grid.width - x < LANES ? grid.width - x : LANES;
            const std::size_t pixel = std::size_t(y) * grid.width + x;
            const std::size_t padded = std::size_t(y) * grid.padded + x;
            const Site* sites = job.appearance.sites + pixel;
            receive<WIDTH>(job, y, x, count, sites, scratch);
            for (int c = 0; c < job.kept; ++c) {
                float* energy = scratch.energies + c * LANES;
                const std::size_t place = c * grid.plane() + padded;
                if (job.sink.messages) store(job.sink.messages + place, load(energy));
                store(energy, load(energy) + load(job.log_p + place));
            }
            if (job.sink.messages) continue;
            if (write_result(
                    job.sink, grid, job.classes, job.kept, pixel, count, scratch.energies)) {
                continue;
            }
            softmax(scratch.energies, job.kept);
            send<WIDTH>(job, y, x, count, sites, scratch);
        }
    }
}

// One mean-field step: filter, add the unary term, softmax (Kraehenbuehl and Koltun 2011,
// algorithm 1), row by row, so that no message is ever stored.
TARGET static void update(const Update& job) {
    switch (job.appearance.width) {
        case 1: return update_all<1>(job);
        case 2: return update_all<2>(job);
        case 4: return update_all<4>(job);
        case 8: return update_all<8>(job);
        default: return update_all<0>(job);
    }
}

// Values on either side of a widened row, so that its neighbours can be read.
constexpr int kMargin = 2;

// A row of the half grid at the pixels' distance: each value twice, the ends repeated.
INLINE void widen(const float* row, int cells, int size, float* out) {
    for (int x = 0; x < kMargin; ++x) out[x] = row[0];
    for (int cell = 0; cell < cells; ++cell) {
        out[kMargin + 2 * cell] = out[kMargin + 2 * cell + 1] = row[cell];
    }
    for (int x = kMargin + 2 * cells; x < size; ++x) out[x] = row[cells - 1];
}

// How far a pixel believes each of the 3 x 3 cells around it: by their colours, summing to 1.
//
// Args: pixels: RGB of a block; rows: [cell row][colour], at the block.
INLINE void trust(
    const Floats (&pixels)[3], const float* const (&rows)[3][3], float falloff,
    Floats (&weights)[9]) {
    Floats sum = {};
    for (int cell = 0; cell < 9; ++cell) {
        const int shift = 2 * (cell % 3) - 2;
        Floats distance = {};
        for (int c = 0; c < 3; ++c) {
            const Floats difference = pixels[c] - load(rows[cell / 3][c] + shift);
            distance += difference * difference;
        }
        weights[cell] = exponential(distance * falloff);
        // A pixel unlike all of them goes with its own.
        if (cell == 4) weights[cell] += 1e-4f;
        sum += weights[cell];
    }
    sum = 1.0f / sum;
    for (Floats& weight : weights) weight *= sum;
}

// The fast mode's last step: the half grid's messages go to the pixels by colour, as in joint
// bilateral upsampling (Kopf et al. 2007), and meet the unary term at full size.
TARGET static void upsample(const Upsample& job) {
    const Grid &full = job.full, &half = job.half;
    const int planes = 3 + job.kept, size = full.padded + 2 * kMargin;
    std::vector<float> memory(std::size_t(3) * planes * size + std::size_t(job.kept) * LANES);
    float* energies = memory.data() + std::size_t(3) * planes * size;
    const auto wide = [&](int row, int plane) {
        return memory.data() + (std::size_t(row % 3) * planes + plane) * size;
    };
    int widened = 0;
    for (int y = 0; y < full.height; ++y) {
        const int cell = y / 2;
        for (; widened < half.height && widened <= cell + 1; ++widened) {
            for (int c = 0; c < planes; ++c) {
                const float* plane = c < 3 ? job.colours + c * half.plane()
                                           : job.messages + (c - 3) * half.plane();
                widen(
                    plane + std::size_t(widened) * half.padded, half.width, size,
                    wide(widened, c));
            }
        }
        const int rows[3] = {
            cell > 0 ? cell - 1 : 0, cell, cell + 1 < half.height ? cell + 1 : cell};
        for (int x = 0; x < full.width; x += LANES) {
            const int count = full.width - x < LANES ? full.width - x : LANES;
            const std::size_t pixel = std::size_t(y) * full.width + x;
            Floats pixels[3] = {};
            for (int p = 0; p < count; ++p) {
                for (int c = 0; c < 3; ++c) pixels[c][p] = job.image[(pixel + p) * 3 + c];
            }
            const float* colours[3][3];
            for (int r = 0; r < 3; ++r) {
                for (int c = 0; c < 3; ++c) colours[r][c] = wide(rows[r], c) + kMargin + x;
            }
            Floats weights[9];
            trust(pixels, colours, job.falloff, weights);
            for (int c = 0; c < job.kept; ++c) {
                const std::size_t place = std::size_t(y) * full.padded + x;
                Floats energy = load(job.log_p + c * full.plane() + place);
                for (int i = 0; i < 9; ++i) {
                    const float* row = wide(rows[i / 3], 3 + c) + kMargin + x;
                    energy += weights[i] * load(row + 2 * (i % 3) - 2);
                }
                store(energies + c * LANES, energy);
            }
            write_result(job.sink, full, job.classes, job.kept, pixel, count, energies);
        }
    }
}

static const Kernels kernels = {
    KERNELS_NAME, survey, log_plane, embed, splat_plane, slice_plane, blur, update, upsample,
};

}  // namespace KERNELS
