// The inner loops for each instruction set, and which of them this machine runs.
//
// They are compiled side by side and chosen at run time, never by -march=native: an environment
// that is copied to an older machine must not die of an unknown instruction.

#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include "jobs.hpp"

namespace crf {

// -log 0 is infinite, and infinity spoils the whole map.
constexpr float kSmallestProbability = 1e-5f;

}  // namespace crf

#define INLINE TARGET static inline __attribute__((always_inline))

// Any machine: SSE2 on x86-64, NEON on ARM.
#define KERNELS baseline
#define KERNELS_NAME "baseline"
#define TARGET
#define LANES 4
namespace crf {
#include "kernels.hpp"
#include "updates.hpp"
}  // namespace crf
#undef KERNELS
#undef KERNELS_NAME
#undef TARGET
#undef LANES

#if defined(__x86_64__)

#define KERNELS avx2
#define KERNELS_NAME "avx2"
#define TARGET __attribute__((target("avx2")))
#define LANES 8
namespace crf {
#include "kernels.hpp"
#include "updates.hpp"
}  // namespace crf
#undef KERNELS
#undef KERNELS_NAME
#undef TARGET
#undef LANES

#define KERNELS avx512
#define KERNELS_NAME "avx512"
#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw")))
#define LANES 16
namespace crf {
#include "kernels.hpp"
#include "updates.hpp"
}  // namespace crf
#undef KERNELS
#undef KERNELS_NAME
#undef TARGET
#undef LANES

#endif

#undef INLINE

namespace crf {

// Those that this machine has, the best one first.
inline std::vector<const Kernels*> instruction_sets() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
        found.push_back(&avx512::kernels);
    }
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::kernels);
#endif
    found.push_back(&baseline::kernels);
    return found;
}

}  // namespace crf
