// The inner loops, first part: vectors, the unary term, the lattice, the separable Gaussian.
//
// Included once for each instruction set, by instruction_sets.hpp, with KERNELS (a namespace),
// TARGET (a function attribute) and LANES (floats in a register) defined anew each time; hence no
// include guard. Everything here carries TARGET, for a function without it is not inlined into one
// that has it. Vectors are the compiler's own (GCC's and Clang's vector extension). Sums are taken
// in an order that does not depend on LANES, so that all instruction sets give the same result.

namespace KERNELS {

template <int N>
struct Vector {
    typedef float Floats __attribute__((vector_size(N * 4)));
    typedef std::int32_t Ints __attribute__((vector_size(N * 4)));
};
template <>
struct Vector<1> {
    typedef float Floats;
};
using Floats = Vector<LANES>::Floats;
using Ints = Vector<LANES>::Ints;

template <typename V, typename T>
INLINE V load_as(const T* from) {
    V vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

INLINE Floats load(const float* from) { return load_as<Floats>(from); }

// At most LANES values, the rest nought.
INLINE Floats load_some(const float* from, std::size_t count) {
    if (count >= LANES) return load(from);
    Floats vector = {};
    std::memcpy(&vector, from, count * sizeof(float));
    return vector;
}

template <typename V, typename T>
INLINE void store(T* to, const V& vector) { std::memcpy(to, &vector, sizeof vector); }

template <typename To, typename From>
INLINE To bits_as(const From& from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

INLINE Floats all(float value) { return Floats{} + value; }
INLINE Floats larger(const Floats& a, const Floats& b) { return a > b ? a : b; }
INLINE Floats smaller(const Floats& a, const Floats& b) { return a > b ? b : a; }

// Adding and subtracting this rounds to the nearest whole number, if it is below 2^22.
constexpr float kRounder = 12582912.0f;

// exp(x) for x <= 0, relative error 2e-7; exp(-60) rather than anything smaller, so that products
// stay clear of denormal numbers, which are slow.
INLINE Floats exponential(Floats x) {
    x = larger(x, all(-60.0f));
    const Floats shifted = x * 1.44269504f + kRounder;
    const Floats power = shifted - kRounder;
    // ln 2 in two parts: the first has few digits, so that its product is exact.
    const Floats r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    Floats sum = r * (1.0f / 720.0f) + 1.0f / 120.0f;
    sum = sum * r + 1.0f / 24.0f;
    sum = sum * r + 1.0f / 6.0f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.0f;
    sum = sum * r + 1.0f;
    return bits_as<Floats>(bits_as<Ints>(sum) + (bits_as<Ints>(shifted) << 23));
}

// ln(x) for a normal x > 0, relative error 2e-7: ln m = 2 artanh((m - 1) / (m + 1)).
INLINE Floats logarithm(const Floats& x) {
    const Ints bits = bits_as<Ints>(x);
    // The mantissa m between sqrt(1/2) and sqrt(2), the rest in the exponent.
    const Ints exponent = (bits - 0x3f3504f3) >> 23;
    const Floats m = bits_as<Floats>(bits - (exponent << 23));
    const Floats s = (m - 1.0f) / (m + 1.0f);
    const Floats square = s * s;
    Floats sum = square * (2.0f / 9.0f) + 2.0f / 7.0f;
    sum = sum * square + 2.0f / 5.0f;
    sum = sum * square + 2.0f / 3.0f;
    sum = sum * square + 2.0f;
    return __builtin_convertvector(exponent, Floats) * 0.69314718f + s * sum;
}

// The greatest value of some pixels; false if one is not finite.
INLINE bool greatest(const float* values, std::size_t count, float& result) {
    Floats best = all(-std::numeric_limits<float>::infinity());
    Ints exponents = {};
    for (std::size_t start = 0; start < count; start += LANES) {
        const Floats block = load_some(values + start, count - start);
        const Ints exponent = bits_as<Ints>(block) & 0x7f800000;
        best = larger(block, best);
        exponents = exponent > exponents ? exponent : exponents;
    }
    bool finite = true;
    result = best[0];
    for (int lane = 0; lane < LANES; ++lane) {
        result = best[lane] > result ? best[lane] : result;
        finite = finite && exponents[lane] != 0x7f800000;
    }
    return finite;
}

// Whether a class is the likeliest of some pixel.
INLINE bool wins_some(
    const float* maps, int classes, std::size_t plane, std::size_t count, int candidate) {
    for (std::size_t i = 0; i < count; ++i) {
        float best = maps[i];
        for (int c = 1; c < classes; ++c) {
            best = maps[c * plane + i] > best ? maps[c * plane + i] : best;
        }
        if (maps[candidate * plane + i] == best) return true;
    }
    return false;
}

// Each class's greatest probability, and whether it is the likeliest somewhere; false if a value is
// not finite.
TARGET static bool survey(
    const float* maps, int classes, std::size_t plane, float* most, bool* wins) {
    // Stretches that stay in the cache, for they may be read twice.
    constexpr std::size_t kStretch = 512;
    for (int c = 0; c < classes; ++c) {
        most[c] = -std::numeric_limits<float>::infinity();
        wins[c] = false;
    }
    for (std::size_t start = 0; start < plane; start += kStretch) {
        const std::size_t count = plane - start < kStretch ? plane - start : kStretch;
        for (int c = 0; c < classes; ++c) {
            float here;
            if (!greatest(maps + c * plane + start, count, here)) return false;
            most[c] = here > most[c] ? here : most[c];
            // Probabilities sum to 1: where a class wins, it has 1 / classes or more.
            if (!wins[c] && here * float(classes) > 0.99f) {
                wins[c] = wins_some(maps + start, classes, plane, count, c);
            }
        }
    }
    return true;
}

// ln p with p clipped to [1e-5, 1]; the rows are padded with noughts.
TARGET static void log_plane(const float* values, const Grid& grid, float* out) {
    for (int y = 0; y < grid.height; ++y) {
        const float* row = values + std::size_t(y) * grid.width;
        for (int x = 0; x < grid.padded; x += LANES) {
            Floats p = all(1.0f);
            if (x < grid.width) p = load_some(row + x, grid.width - x);
            p = smaller(larger(p, all(kSmallestProbability)), all(1.0f));
            store(out + std::size_t(y) * grid.padded + x, logarithm(p));
        }
    }
}

// Where a chunk of pixels lies in the lattice (Adams et al. 2010, section 3): the simplex around
// each pixel's features, given in units of their sigmas, and its barycentric coordinates.
INLINE void embed_vector(const float (&features)[kDims][kChunk], int first, Embedding& out) {
    Floats elevated[kCorners], sum = {};
    for (int i = kDims; i > 0; --i) {
        const Floats feature = load(features[i - 1] + first) * elevation(i);
        elevated[i] = sum - feature * float(i);
        sum += feature;
    }
    elevated[0] = sum;

    // The nearest point whose coordinates are multiples of kCorners; they must sum to nought.
    Ints quotients[kCorners], ranks[kCorners], excess = {};
    for (int i = 0; i < kCorners; ++i) {
        const Floats quotient = (elevated[i] * (1.0f / kCorners) + kRounder) - kRounder;
        elevated[i] -= quotient * float(kCorners);
        quotients[i] = __builtin_convertvector(quotient, Ints);
        excess += quotients[i];
    }
    for (int i = 0; i < kCorners; ++i) ranks[i] = excess + i;
    for (int i = 0; i < kCorners; ++i) {
        for (int j = i + 1; j < kCorners; ++j) {
            const Ints overtaken = elevated[i] < elevated[j];  // -1 where true
            ranks[i] -= overtaken;
            ranks[j] += overtaken;
        }
    }
    Floats sorted[kCorners];
    for (int i = 0; i < kCorners; ++i) {
        const Ints turn = (ranks[i] >= kCorners) - (ranks[i] < 0);
        store(out.ranks[i] + first, ranks[i] + turn * kCorners);
        store(out.quotients[i] + first, quotients[i] + turn);
        sorted[i] = elevated[i] - __builtin_convertvector(turn * kCorners, Floats);
    }
    // Descending, by a sorting network.
    constexpr int network[12][2] = {{0, 5}, {1, 3}, {2, 4}, {1, 2}, {3, 4}, {0, 3},
                                    {2, 5}, {0, 1}, {2, 3}, {4, 5}, {1, 2}, {3, 4}};
    static_assert(kCorners == 6, "the network sorts six values");
    for (const auto& pair : network) {
        const Floats a = sorted[pair[0]], b = sorted[pair[1]];
        sorted[pair[0]] = larger(a, b);
        sorted[pair[1]] = smaller(a, b);
    }
    store(out.weights[0] + first, 1.0f - (sorted[0] - sorted[kDims]) * (1.0f / kCorners));
    for (int k = 1; k < kCorners; ++k) {
        const Floats difference = sorted[kDims - k] - sorted[kCorners - k];
        store(out.weights[k] + first, difference * (1.0f / kCorners));
    }
}

TARGET static void embed(const float (&features)[kDims][kChunk], Embedding& out) {
    for (int first = 0; first < kChunk; first += LANES) embed_vector(features, first, out);
}

// The values of a vertex: WIDTH of them where the compiler may know it; 0: a multiple of 8. They
// are handled kGroup at a time.
template <int WIDTH>
struct Vertex {
    static constexpr int kMost = LANES < 8 ? LANES : 8;
    static constexpr int kGroup = WIDTH == 0 || WIDTH > kMost ? kMost : WIDTH;
    using Group = typename Vector<kGroup>::Floats;
    INLINE std::size_t width(int given) { return WIDTH ? WIDTH : given; }
};

constexpr std::int32_t kHalf = 0x3f000000;  // the bits of 0.5f

// Blur along one direction, in place: each vertex plus half of its two neighbours.
template <int WIDTH>
TARGET static void blur_chain(
    float* values, int given, const std::int32_t* chain, std::size_t count) {
    using Group = typename Vertex<WIDTH>::Group;
    const std::size_t width = Vertex<WIDTH>::width(given);
    for (std::size_t first = 0; first < width; first += Vertex<WIDTH>::kGroup) {
        std::int32_t vertex = ~chain[0];
        Group before = {}, here = load_as<Group>(values + vertex * width + first);
        for (std::size_t index = 1; index <= count; ++index) {
            const std::int32_t begins = chain[index] >> 31;  // -1 or 0
            const std::int32_t next = chain[index] ^ begins;
            const float half = bits_as<float>(kHalf & ~begins);  // or 0
            const Group after = load_as<Group>(values + next * width + first);
            store(values + vertex * width + first, here + (before + after * half));
            before = here * half;
            here = after;
            vertex = next;
        }
    }
}

TARGET static void blur(
    float* values, int width, const std::int32_t* chain, std::size_t count) {
    if (count == 0) return;
    switch (width) {
        case 1: return blur_chain<1>(values, width, chain, count);
        case 2: return blur_chain<2>(values, width, chain, count);
        case 4: return blur_chain<4>(values, width, chain, count);
        case 8: return blur_chain<8>(values, width, chain, count);
        default: return blur_chain<0>(values, width, chain, count);
    }
}

// From the lattice to `count` <= LANES pixels: out[value * LANES + pixel].
template <int WIDTH>
INLINE void slice(const Site* sites, int count, const float* values, int given, float* out) {
    using Group = typename Vertex<WIDTH>::Group;
    constexpr int kGroup = Vertex<WIDTH>::kGroup;
    const std::size_t width = Vertex<WIDTH>::width(given);
    for (std::size_t first = 0; first < width; first += kGroup) {
        for (int p = 0; p < count; ++p) {
            Group sum = {};
            for (int k = 0; k < kCorners; ++k) {
                const float* value = values + sites[p].vertex[k] * width + first;
                sum += load_as<Group>(value) * sites[p].weight[k];
            }
            float single[kGroup];
            store(single, sum);
            for (int i = 0; i < kGroup; ++i) out[(first + i) * LANES + p] = single[i];
        }
    }
}

// From `count` <= LANES pixels, in[value * LANES + pixel], to the lattice.
template <int WIDTH>
INLINE void splat(const Site* sites, int count, const float* in, int given, float* values) {
    using Group = typename Vertex<WIDTH>::Group;
    constexpr int kGroup = Vertex<WIDTH>::kGroup;
    const std::size_t width = Vertex<WIDTH>::width(given);
    for (std::size_t first = 0; first < width; first += kGroup) {
        for (int p = 0; p < count; ++p) {
            float single[kGroup];
            for (int i = 0; i < kGroup; ++i) single[i] = in[(first + i) * LANES + p];
            const Group addend = load_as<Group>(single);
            for (int k = 0; k < kCorners; ++k) {
                float* value = values + sites[p].vertex[k] * width + first;
                store(value, load_as<Group>(value) + addend * sites[p].weight[k]);
            }
        }
    }
}

TARGET static void splat_plane(
    const float* in, const Grid& grid, const Site* sites, float* values) {
    for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; x += LANES) {
            const int count = grid.width - x < LANES ? grid.width - x : LANES;
            splat<1>(
                sites + std::size_t(y) * grid.width + x, count,
                in + std::size_t(y) * grid.padded + x, 1, values);
        }
    }
}

TARGET static void slice_plane(
    const float* values, const Grid& grid, const Site* sites, float* out) {
    for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; x += LANES) {
            const int count = grid.width - x < LANES ? grid.width - x : LANES;
            slice<1>(
                sites + std::size_t(y) * grid.width + x, count, values, 1,
                out + std::size_t(y) * grid.padded + x);
        }
    }
}

// Row y of one class's message of the smoothness term, weighted.
//
// Args: line: room for a padded row with `radius` noughts at either end.
TARGET static void smooth_row(
    const Smoothness& term, const float* plane, const Grid& grid, int y, float* line, float* out) {
    const float* kernel = term.kernel;
    const int above = y < term.radius ? y : term.radius;
    const int below = grid.height - 1 - y < term.radius ? grid.height - 1 - y : term.radius;
    const int both = above < below ? above : below;
    const std::ptrdiff_t row = grid.padded;
    float* middle = line + term.radius;
    for (int x = 0; x < grid.padded; x += LANES) {
        const float* centre = plane + y * row + x;
        Floats sum = load(centre) * kernel[0];
        for (int t = 1; t <= both; ++t) {
            sum += (load(centre - t * row) + load(centre + t * row)) * kernel[t];
        }
        for (int t = both + 1; t <= above; ++t) sum += load(centre - t * row) * kernel[t];
        for (int t = both + 1; t <= below; ++t) sum += load(centre + t * row) * kernel[t];
        store(middle + x, sum);
    }
    const float factor = term.weight * term.down.out[y];
    for (int x = 0; x < grid.padded; x += LANES) {
        Floats sum = load(middle + x) * kernel[0];
        for (int t = 1; t <= term.radius; ++t) {
            sum += (load(middle + x - t) + load(middle + x + t)) * kernel[t];
        }
        store(out + x, sum * (load(term.across.out + x) * factor));
    }
}

}  // namespace KERNELS
