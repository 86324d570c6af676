// Threads that work through a list of stages together.
//
// A stage is a number of chunks that may run in any order on any thread; the next stage begins when all are done.
// Nobody waits for a thread that has not taken a chunk: a thread that the system does not run at the moment delays
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
    uint64_t prepared = 0;         // The stage that scratch was filled for, where a kernel says so.

    uint8_t* room(size_t bytes) {
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
    // The number of threads that work, the caller's among them. They start with the next run.
    void resize(int threads);
    int size() const { return size_; }
    // Every stage has at least one chunk and less than 2^kChunkBits.
    void run(const Stage* stages, int count);
    // A forked child has none of its parent's threads but the caller's: the next run starts others.
    void forked();

private:
    static constexpr int kChunkBits = 20;
    void start();
    void work(Worker& worker, uint64_t ticket);
    void serve(int index);
    void begin(uint64_t stage);

    // The running stage's number and how many of its chunks are free, in one word: taking a chunk is one exchange,
    // which fails if the stage is over.
    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int> unfinished_{0};
    alignas(64) std::atomic<bool> done_{true};
    std::atomic<int> sleepers_{0};
    std::atomic<uint32_t> alarm_{0};
    std::atomic<int> wanted_{1};
    const Stage* stages_ = nullptr;
    uint64_t first_ = 1, end_ = 1;
    int size_ = 1, started_ = 1;
    Worker caller_;
};

}  // namespace decodery
