// Threads that run a list of stages together.
//
// A stage is a number of chunks that may run in any order on any thread; the next stage begins when all are done. No
// thread waits for one that has not taken a chunk. So a thread that the system does not run at the moment delays
// nothing, and the caller alone can do all the work.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

namespace decodery {

struct Worker {
    int index = 0;
    uint64_t stage = 0;            // A number that no other stage ever had.
    std::vector<uint8_t> scratch;  // Kept between stages, never shrunk.
    uint64_t prepared = 0;         // The stage for which a kernel last filled scratch.

    // Scratch memory of this size, aligned to a cache line.
    uint8_t* buffer(size_t bytes) {
        if (scratch.size() < bytes + 64) scratch.resize(bytes + 64);
        return scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    }
};

struct Stage {
    void (*run)(const int64_t* args, void* shared, int chunk, int chunks, Worker& worker);
    const int64_t* args;
    void* shared;
    int chunks;
};

// One thread at a time calls a team, and none while the process forks.
class Team {
public:
    // Sets the number of threads of the next runs, including the caller's; at most kMostThreads. A thread starts with the
    // first run that needs it, and sleeps during runs of fewer threads.
    void resize(int threads);
    int size() const { return size_.load(std::memory_order_relaxed); }
    static constexpr int kChunkBits = 20;
    static constexpr int64_t kMostChunks = (int64_t{1} << kChunkBits) - 1;
    // Every stage has 1 to kMostChunks chunks.
    void run(const Stage* stages, int count);
    // To be called in a forked child, which has only the calling thread: the next run starts new threads.
    void forked();

private:
    static constexpr int kMostThreads = 256;
    // The free chunks of a stage that belong to a thread: the stage's number (its lower 24 bits), the first chunk and
    // the end. The thread takes the first one; threads without chunks of their own take the last one. Taking a chunk is
    // one compare-and-exchange, which fails if the stage is over. So a thread reads contiguous memory of a weight,
    // which prefetching needs.
    struct alignas(64) Share {
        static constexpr uint64_t kMask = (uint64_t{1} << kChunkBits) - 1;
        std::atomic<uint64_t> word{0};
        static uint64_t first(uint64_t word) { return word >> kChunkBits & kMask; }
        static uint64_t end(uint64_t word) { return word & kMask; }
        static uint64_t of(uint64_t stage, uint64_t first, uint64_t end) {
            return stage << 2 * kChunkBits | first << kChunkBits | end;
        }
    };

    void start();
    bool work(Worker& worker);
    bool take(Worker& worker, Share& share, bool own);
    bool idle() const;
    void serve(int index);
    void begin(uint64_t stage);

    Share shares_[kMostThreads];
    alignas(64) std::atomic<int> unfinished_{0};
    alignas(64) std::atomic<bool> done_{true};
    std::atomic<int> size_{1};
    std::atomic<int> sleepers_{0};
    std::atomic<uint32_t> wakeups_{0};
    const Stage* stages_ = nullptr;
    uint64_t first_ = 1, end_ = 1;
    int started_ = 1;
    Worker caller_;
};

}  // namespace decodery
