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

// Work follows work within a step of a model, and steps follow each other within about a millisecond.
constexpr int kSpins = 20000;

}  // namespace

void Team::resize(int threads) {
    size_ = threads;
    wanted_.store(threads);
}

void Team::forked() {
    started_ = 1;
    sleepers_.store(0);
}

void Team::start() {
    try {
        for (; started_ < size_; started_++) std::thread([this, index = started_] { serve(index); }).detach();
    } catch (const std::system_error&) {
        // The system gives no more threads: those that there are do the work.
    }
}

void Team::run(const Stage* stages, int count) {
    start();
    stages_ = stages;
    first_ = end_;
    end_ = first_ + static_cast<uint64_t>(count);
    done_.store(false, std::memory_order_relaxed);
    begin(first_);
    if (size_ > 1 && sleepers_.load(std::memory_order_seq_cst) > 0) {
        alarm_.fetch_add(1);
        alarm_.notify_all();
    }
    int spins = 0;
    while (!done_.load(std::memory_order_acquire)) {
        const uint64_t ticket = ticket_.load(std::memory_order_acquire);
        if (ticket & ((1u << kChunkBits) - 1)) {
            work(caller_, ticket);
            spins = 0;
        } else if (++spins < kSpins) {
            pause();
        } else {
            std::this_thread::yield();  // A thread that has a chunk is not running: let it.
        }
    }
}

void Team::begin(uint64_t stage) {
    const int chunks = stages_[stage - first_].chunks;
    unfinished_.store(chunks, std::memory_order_relaxed);
    ticket_.store(stage << kChunkBits | static_cast<uint64_t>(chunks), std::memory_order_seq_cst);
}

// Takes the chunk that the ticket offers, if it still does, and starts the next stage after the last one.
void Team::work(Worker& worker, uint64_t ticket) {
    if (!ticket_.compare_exchange_strong(ticket, ticket - 1, std::memory_order_acq_rel)) return;
    const uint64_t number = ticket >> kChunkBits;
    const Stage& stage = stages_[number - first_];
    const int left = static_cast<int>(ticket & ((1u << kChunkBits) - 1));
    worker.stage = number;
    stage.run(stage.args, stage.shared, stage.chunks - left, stage.chunks, worker);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        if (number + 1 < end_) {
            begin(number + 1);
        } else {
            done_.store(true, std::memory_order_release);
        }
    }
}

void Team::serve(int index) {
    Worker worker;
    worker.index = index;
    int spins = 0;
    while (true) {
        const bool called = index < wanted_.load(std::memory_order_relaxed);
        const uint64_t ticket = ticket_.load(std::memory_order_acquire);
        if (called && (ticket & ((1u << kChunkBits) - 1))) {
            work(worker, ticket);
            spins = 0;
            continue;
        }
        if (++spins < kSpins) {
            pause();
            continue;
        }
        // Announce the sleep, then look once more: the caller does these two the other way round.
        const uint32_t alarm = alarm_.load();
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (!(called && (ticket_.load(std::memory_order_seq_cst) & ((1u << kChunkBits) - 1)))) alarm_.wait(alarm);
        sleepers_.fetch_sub(1);
        spins = 0;
    }
}

}  // namespace decodery
