// Runs the dense CRF's native code on awkward sizes; built with the compiler's sanitizers by
// test_dense_crf_native.py. Prints the number of fields that it inferred.

#include <cstdio>
#include <random>

#include "field.hpp"

int main() {
    std::mt19937 random(0);
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    const int sizes[][2] = {{1, 1}, {1, 40}, {33, 1}, {2, 3}, {16, 16}, {17, 47}, {40, 31}};
    int fields = 0;
    for (const auto& size : sizes) {
        const int height = size[0], width = size[1];
        const std::size_t pixels = std::size_t(height) * width;
        std::vector<std::uint8_t> image(pixels * 3);
        for (std::uint8_t& value : image) value = std::uint8_t(random());
        for (const int classes : {1, 2, 3, 5, 7, 21}) {
            std::vector<float> maps(classes * pixels), beliefs(classes * pixels);
            for (float& value : maps) value = uniform(random) / float(classes);
            std::vector<std::uint8_t> labels(pixels);
            for (const crf::Kernels* kernels : crf::instruction_sets()) {
                for (const int cell : {1, 2}) {
                    const bool symmetric = (fields & 1) != 0;
                    const crf::Field field(
                        image.data(), height, width, {20.0f, 9.0f, 2.0f}, symmetric, cell,
                        *kernels);
                    field.infer(
                        maps.data(), classes, {4.0f, 3.0f, 2}, 0.1f,
                        {labels.data(), nullptr, nullptr});
                    field.infer(
                        maps.data(), classes, {4.0f, 0.0f, 2}, 0.0f,
                        {nullptr, beliefs.data(), nullptr});
                    field.infer(
                        maps.data(), classes, {0.0f, 3.0f, 1}, 0.0f,
                        {nullptr, beliefs.data(), nullptr});
                    for (const std::uint8_t label : labels) {
                        if (label >= classes) return 1;
                    }
                    ++fields;
                }
            }
        }
    }
    std::printf("%d\n", fields);
    return 0;
}
