#include "team.hpp"

#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace decodery {

namespace {

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

// A waiting thread spins so often before it sleeps: the next stage or the next step of a model usually begins within
// about a millisecond.
constexpr int kSpins = 20000;

}  // namespace

void Team::resize(int threads) {
    size_.store(threads < kMostThreads ? threads : kMostThreads);
}

void Team::forked() {
    started_ = 1;
    sleepers_.store(0);
}

void Team::start() {
    try {
        for (; started_ < size(); started_++) std::thread([this, index = started_] { serve(index); }).detach();
    } catch (const std::system_error&) {
        // The system starts no more threads: the existing ones do the work.
    }
}

void Team::run(const Stage* stages, int count) {
    start();
    stages_ = stages;
    first_ = end_;
    end_ = first_ + static_cast<uint64_t>(count);
    done_.store(false, std::memory_order_relaxed);
    begin(first_);
    if (size() > 1 && sleepers_.load(std::memory_order_seq_cst) > 0) {
        wakeups_.fetch_add(1);
        wakeups_.notify_all();
    }
    int spins = 0;
    while (!done_.load(std::memory_order_acquire)) {
        if (work(caller_)) {
            spins = 0;
        } else if (++spins < kSpins) {
            pause();
        } else {
            std::this_thread::yield();  // A thread that has taken a chunk may be waiting for this core.
        }
    }
}

void Team::begin(uint64_t stage) {
    const auto chunks = static_cast<uint64_t>(stages_[stage - first_].chunks), threads = static_cast<uint64_t>(size());
    unfinished_.store(static_cast<int>(chunks), std::memory_order_relaxed);
    for (uint64_t i = threads; i-- > 0;) {
        const uint64_t from = chunks * i / threads, to = chunks * (i + 1) / threads;
        if (from < to) shares_[i].word.store(Share::of(stage, from, to), std::memory_order_seq_cst);
    }
}

// Runs a chunk of the worker's own share, or else of another's. False if none is free.
bool Team::work(Worker& worker) {
    if (take(worker, shares_[worker.index], true)) return true;
    for (int i = 0, threads = size(); i < threads; i++)
        if (i != worker.index && take(worker, shares_[i], false)) return true;
    return false;
}

// Runs a chunk of a share: the first of the worker's own, the last of another's. The thread that finishes the last
// chunk of a stage starts the next stage.
bool Team::take(Worker& worker, Share& share, bool own) {
    uint64_t word = share.word.load(std::memory_order_acquire);
    const uint64_t first = Share::first(word), end = Share::end(word);
    const uint64_t rest = own ? word + Share::kMask + 1 : word - 1;
    if (first == end || !share.word.compare_exchange_strong(word, rest, std::memory_order_acq_rel)) return false;
    // The word has the lower bits of the stage's number.
    const uint64_t lower = ~uint64_t{0} >> 2 * kChunkBits;
    const uint64_t number = first_ + (((word >> 2 * kChunkBits) - first_) & lower);
    const Stage& stage = stages_[number - first_];
    worker.stage = number;
    stage.run(stage.args, stage.shared, static_cast<int>(own ? first : end - 1), stage.chunks, worker);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        if (number + 1 < end_) {
            begin(number + 1);
        } else {
            done_.store(true, std::memory_order_release);
        }
    }
    return true;
}

bool Team::idle() const {
    for (int i = 0, threads = size(); i < threads; i++)
        if (const uint64_t word = shares_[i].word.load(); Share::first(word) != Share::end(word)) return false;
    return true;
}

void Team::serve(int index) {
    Worker worker;
    worker.index = index;
    int spins = 0;
    while (true) {
        const bool called = index < size();
        if (called && work(worker)) {
            spins = 0;
            continue;
        }
        if (++spins < kSpins) {
            pause();
            continue;
        }
        // Announces the sleep, then checks for chunks. The caller publishes chunks, then checks for sleepers. So at
        // least one of the two sees the other.
        const uint32_t wakeups = wakeups_.load();
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (!called || idle()) wakeups_.wait(wakeups);
        sleepers_.fetch_sub(1);
        spins = 0;
    }
}

}  // namespace decodery
