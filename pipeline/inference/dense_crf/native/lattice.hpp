// The permutohedral lattice in five dimensions (Adams, Baek and Davis, Eurographics 2010).

#pragma once

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "jobs.hpp"

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address)
#endif

namespace crf {

// A vertex as one number: the quotients of its first kDims coordinates by kCorners (the last one
// follows from them), then the remainder, which they share, in the lowest three bits.
class KeyLayout {
public:
    // `extent`: the greatest value of each feature, in sigmas; the least is nought.
    explicit KeyLayout(const float (&extent)[kDims]) {
        int shift = 3;
        for (int i = 0; i < kDims; ++i) {
            const double low = i == 0 ? 0.0 : -double(i) * elevation(i) * extent[i - 1];
            double high = 0.0;
            for (int j = i + 1; j <= kDims; ++j) high += double(elevation(j)) * extent[j - 1];
            if (!(high - low < 1e8)) throw too_narrow();
            // Rounding, the other corners and the neighbours reach less than 3 beyond.
            least_[i] = std::int32_t(std::floor(low / kCorners)) - 3;
            const double range = std::ceil(high / kCorners) + 3 - least_[i];
            unit_[i] = shift < 64 ? std::uint64_t(1) << shift : 0;
            shift += int(std::ceil(std::log2(range + 1)));
        }
        unit_[kDims] = 0;
        if (shift > 64) throw too_narrow();
    }

    // The corners of the simplex of one pixel of a chunk, in the order of their remainders.
    void corners(const Embedding& chunk, int pixel, std::uint64_t (&keys)[kCorners]) const {
        std::uint64_t by_rank[kCorners];
        std::uint64_t key = 0;
        for (int i = 0; i < kDims; ++i) {
            key += std::uint64_t(chunk.quotients[i][pixel] - least_[i]) * unit_[i];
        }
        for (int i = 0; i < kCorners; ++i) by_rank[chunk.ranks[i][pixel]] = unit_[i];
        for (int k = 0; k < kCorners; ++k) {
            keys[k] = key;
            key += 1 - by_rank[kDims - k];
        }
    }

    // What leads to the neighbour in a direction: one less in every coordinate, but kDims more in
    // that one. From remainder 0 it goes on at remainder kDims.
    std::uint64_t step(int direction, bool from_remainder_0) const {
        if (!from_remainder_0) return unit_[direction] - 1;
        std::uint64_t all = 0;
        for (int i = 0; i < kDims; ++i) all += unit_[i];
        return unit_[direction] - all + kDims;
    }

private:
    static std::length_error too_narrow() {
        return std::length_error("the sigmas are too narrow for the lattice");
    }

    std::uint64_t unit_[kCorners];
    std::int32_t least_[kDims];
};

inline std::uint64_t hash_of(std::uint64_t key) { return key * 0x9e3779b97f4a7c15u; }

// From keys to vertices, which are numbered as they are first seen.
class VertexTable {
public:
    explicit VertexTable(std::size_t expected) {
        int bits = 10;
        while ((std::size_t(1) << bits) < 2 * expected) ++bits;
        resize(bits);
    }

    const std::vector<std::uint64_t>& keys() const { return keys_; }
    void prefetch(std::uint64_t key) const { PREFETCH(&slots_[hash_of(key) >> shift_]); }

    // The vertex, or -1.
    std::int32_t find(std::uint64_t key) const { return slots_[slot_of(key)].vertex; }

    std::int32_t insert(std::uint64_t key) {
        Slot& slot = slots_[slot_of(key)];
        if (slot.vertex < 0) {
            slot = {tag_of(key), std::int32_t(keys_.size())};
            keys_.push_back(key);
        }
        return slot.vertex;
    }

    // Make room for more keys; the table is at most half full.
    void reserve(std::size_t more) {
        if (keys_.size() + more > std::size_t(1) << 30) {
            throw std::length_error("the image is too large for the lattice");
        }
        while (2 * (keys_.size() + more) > mask_) {
            resize(64 - shift_ + 1);
            for (std::size_t vertex = 0; vertex < keys_.size(); ++vertex) {
                slots_[slot_of(keys_[vertex])] = {tag_of(keys_[vertex]), std::int32_t(vertex)};
            }
        }
    }

private:
    // Small, so that more of the table stays in the caches; the tag tells nearly all other keys.
    struct Slot {
        std::uint32_t tag;
        std::int32_t vertex;
    };

    static std::uint32_t tag_of(std::uint64_t key) { return std::uint32_t(hash_of(key) >> 12); }

    // Where the key is, or the free slot where it belongs.
    std::size_t slot_of(std::uint64_t key) const {
        const std::uint32_t tag = tag_of(key);
        for (std::size_t slot = hash_of(key) >> shift_;; slot = (slot + 1) & mask_) {
            const Slot here = slots_[slot];
            if (here.vertex < 0 || (here.tag == tag && keys_[here.vertex] == key)) return slot;
        }
    }

    void resize(int bits) {
        shift_ = 64 - bits;
        mask_ = (std::size_t(1) << bits) - 1;
        slots_ = Buffer<Slot>(mask_ + 1);
        for (std::size_t slot = 0; slot <= mask_; ++slot) slots_[slot] = {0, -1};
    }

    Buffer<Slot> slots_;
    std::vector<std::uint64_t> keys_;
    std::size_t mask_ = 0;
    int shift_ = 0;
};

// Tells most keys that are not in the table from one bit each, in a tenth of the table's memory.
class Sieve {
public:
    explicit Sieve(const std::vector<std::uint64_t>& keys) {
        int bits = 10;
        while ((std::size_t(1) << bits) < 12 * keys.size()) ++bits;
        shift_ = 64 - bits;
        words_.assign((std::size_t(1) << bits) / 64, 0);
        for (const std::uint64_t key : keys) {
            const std::uint64_t bit = hash_of(key) >> shift_;
            words_[bit >> 6] |= std::uint64_t(1) << (bit & 63);
        }
    }

    bool may_have(std::uint64_t key) const {
        const std::uint64_t bit = hash_of(key) >> shift_;
        return words_[bit >> 6] >> (bit & 63) & 1;
    }

private:
    std::vector<std::uint64_t> words_;
    int shift_;
};

// Along one direction: the next vertex of each or -1, and whether a vertex is the next of another.
struct Links {
    std::vector<std::int32_t> next;
    std::vector<std::uint8_t> follows;
    std::size_t count = 0;
};

inline Links links_of(
    const VertexTable& table, const Sieve& sieve, const KeyLayout& layout, int direction) {
    const std::vector<std::uint64_t>& keys = table.keys();
    const std::uint64_t steps[2] = {layout.step(direction, false), layout.step(direction, true)};
    const auto beside = [&](std::size_t vertex) {
        return keys[vertex] + steps[(keys[vertex] & 7) == 0];
    };
    Links links;
    links.next.assign(keys.size(), -1);
    links.follows.assign(keys.size(), 0);
    constexpr std::size_t kAtOnce = 256;
    std::int32_t candidates[kAtOnce];
    for (std::size_t start = 0; start < keys.size(); start += kAtOnce) {
        const std::size_t end = std::min(start + kAtOnce, keys.size());
        // Half of the neighbours are missing, at random: a branch here would be mispredicted.
        std::size_t count = 0;
        for (std::size_t vertex = start; vertex < end; ++vertex) {
            candidates[count] = std::int32_t(vertex);
            count += sieve.may_have(beside(vertex));
        }
        for (std::size_t i = 0; i < count; ++i) table.prefetch(beside(candidates[i]));
        for (std::size_t i = 0; i < count; ++i) {
            const std::int32_t next = table.find(beside(candidates[i]));
            if (next < 0) continue;
            links.next[candidates[i]] = next;
            links.follows[next] = 1;
            ++links.count;
        }
    }
    return links;
}

// A list of vertices that have neighbours along a direction, run after run: ~vertex begins a run,
// and one more beginning ends the list. It is blurred in place, one vertex after the other.
struct Chain {
    Buffer<std::int32_t> entries;
    std::size_t count = 0;  // without the end
};

// Walkers over the runs: each waits for memory at every step, so several go at once.
constexpr int kWalkers = 4;

inline void chains_of(const Links& links, Chain (&chains)[kWalkers]) {
    const std::int32_t* next = links.next.data();
    const std::size_t vertices = links.next.size();
    Buffer<std::int32_t> starts(vertices + 1);
    std::size_t runs = 0;
    for (std::size_t vertex = 0; vertex < vertices; ++vertex) {
        starts[runs] = std::int32_t(vertex);
        runs += !links.follows[vertex] && next[vertex] >= 0;
    }
    starts[runs] = 0;

    std::int32_t *out[kWalkers], *first[kWalkers], vertex[kWalkers], begins[kWalkers];
    std::size_t run[kWalkers], end[kWalkers];
    for (int w = 0; w < kWalkers; ++w) {
        chains[w].entries = Buffer<std::int32_t>(links.count + runs + 1);
        out[w] = first[w] = chains[w].entries.data();
        run[w] = runs * w / kWalkers;
        end[w] = runs * (w + 1) / kWalkers;
        vertex[w] = starts[run[w]];
        begins[w] = -1;
    }
    // Without branches: the length of a run cannot be predicted.
    const auto advance = [&](int w) {
        *out[w]++ = vertex[w] ^ begins[w];
        const std::int32_t following = next[vertex[w]];
        begins[w] = following >> 31;
        run[w] -= begins[w];
        vertex[w] = following < 0 ? starts[run[w]] : following;
    };
    const auto busy = [&] {
        bool all = true;
        for (int w = 0; w < kWalkers; ++w) all = all && run[w] < end[w];
        return all;
    };
    while (busy()) {
        for (int w = 0; w < kWalkers; ++w) advance(w);
    }
    for (int w = 0; w < kWalkers; ++w) {
        while (run[w] < end[w]) advance(w);
        *out[w] = ~0;
        chains[w].count = out[w] - first[w];
        Buffer<std::int32_t> fitting(chains[w].count + 1);
        std::copy_n(first[w], fitting.size(), fitting.data());
        chains[w].entries = std::move(fitting);
    }
}

struct Lattice {
    Buffer<Site> sites;  // of the pixels
    std::size_t vertices = 0;
    Chain chains[kCorners][kWalkers];

    // All directions, `width` values a vertex.
    void blur(const Kernels& kernels, float* values, int width) const {
        for (const auto& direction : chains) {
            for (const Chain& chain : direction) {
                kernels.blur(values, width, chain.entries.data(), chain.count);
            }
        }
    }
};

// The lattice of an image.
//
// Args: colours: 3 planes, 0 .. 255; cell: pixels from one grid position to the next.
inline Lattice build_lattice(
    const Kernels& kernels, const Grid& grid, const float* colours, int cell, float sigma_alpha,
    float sigma_beta) {
    const float per_pixel = 1.0f / sigma_alpha, per_level = 1.0f / sigma_beta;
    const float middle = 0.5f * float(cell - 1);
    const auto position = [&](int index) { return (float(index * cell) + middle) * per_pixel; };
    const float colour = 255.0f * per_level;
    const KeyLayout layout(
        {position(grid.width - 1), position(grid.height - 1), colour, colour, colour});
    VertexTable table(grid.pixels() / 2);
    Lattice lattice;
    lattice.sites = Buffer<Site>(grid.pixels());

    float features[kDims][kChunk];
    Embedding chunk;
    std::uint64_t keys[kChunk][kCorners];
    for (int y = 0; y < grid.height; ++y) {
        for (int x = 0; x < grid.width; x += kChunk) {
            const int count = std::min(kChunk, grid.width - x);
            const float* source = colours + std::size_t(y) * grid.padded + x;
            for (int p = 0; p < kChunk; ++p) {
                features[0][p] = position(std::min(x + p, grid.width - 1));
                features[1][p] = position(y);
                for (int c = 0; c < 3; ++c) {
                    features[2 + c][p] = source[c * grid.plane() + p] * per_level;
                }
            }
            kernels.embed(features, chunk);
            table.reserve(std::size_t(kChunk) * kCorners);
            for (int p = 0; p < count; ++p) {
                layout.corners(chunk, p, keys[p]);
                for (const std::uint64_t key : keys[p]) table.prefetch(key);
            }
            Site* sites = lattice.sites.data() + std::size_t(y) * grid.width + x;
            for (int p = 0; p < count; ++p) {
                for (int k = 0; k < kCorners; ++k) {
                    sites[p].vertex[k] = table.insert(keys[p][k]);
                    sites[p].weight[k] = chunk.weights[k][p];
                }
            }
        }
    }
    lattice.vertices = table.keys().size();
    const Sieve sieve(table.keys());
    for (int d = 0; d < kCorners; ++d) {
        chains_of(links_of(table, sieve, layout, d), lattice.chains[d]);
    }
    return lattice;
}

}  // namespace crf
