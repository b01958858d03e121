// hnswlib with a filter that is a bitmap. The Python package takes a Python function, which it calls for every vertex
// of a walk: that would measure Python.

#include "hnswlib/hnswlib.h"

#include <cstdint>
#include <memory>
#include <string>

namespace {

struct Bitmap : hnswlib::BaseFilterFunctor {
    explicit Bitmap(const uint8_t *bits) : bits(bits) {}
    bool operator()(hnswlib::labeltype row) override { return bits[row / 8] >> (row % 8) & 1; }
    const uint8_t *bits;
};

struct Index {
    std::unique_ptr<hnswlib::SpaceInterface<float>> space;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;
};

}  // namespace

extern "C" Index *load(const char *path, size_t dimension, bool is_inner_product) {
    auto *index = new Index;
    if (is_inner_product) {
        index->space = std::make_unique<hnswlib::InnerProductSpace>(dimension);
    } else {
        index->space = std::make_unique<hnswlib::L2Space>(dimension);
    }
    index->graph = std::make_unique<hnswlib::HierarchicalNSW<float>>(index->space.get(), std::string(path));
    return index;
}

// One mask for all queries where `stride` is 0, else one of `stride` bytes each. Missing hits are -1.
extern "C" void search(Index *index, const float *queries, size_t count, size_t dimension, size_t k, size_t ef,
                       const uint8_t *masks, size_t stride, int64_t *found) {
    index->graph->setEf(ef);
    for (size_t query = 0; query < count; ++query) {
        Bitmap filter(masks + query * stride);
        auto hits = index->graph->searchKnn(queries + query * dimension, k, &filter);
        int64_t *row = found + query * k;
        std::fill(row, row + k, -1);
        for (; !hits.empty(); hits.pop()) {
            row[hits.size() - 1] = static_cast<int64_t>(hits.top().second);
        }
    }
}
