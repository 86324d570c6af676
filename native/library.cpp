// The C interface: runs programs, and sets the instruction set and the number of threads.
#include <pthread.h>
#if defined(DECODERY_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstring>
#include <mutex>

#include "abi.hpp"
#include "attention.hpp"
#include "drafting.hpp"
#include "weight_formats.hpp"

namespace decodery {
namespace {

// The state that all calls share; the call that runs holds `running`. `threads` is the number of threads of callers
// that have set none of their own.
struct Library {
    Team team;
    std::vector<Stage> stages;
    Shared shared;
    std::mutex running;
    int set = 0;
    int threads = 1;
};

Library& library();

// A fork waits until no run is in progress: the child would wait forever for threads that it does not have.
Library* made() {
    pthread_atfork([] { library().running.lock(); }, [] { library().running.unlock(); },
                   [] { library().team.forked(); library().running.unlock(); });
    return new Library;
}

// Never destroyed: its threads run until the process ends.
Library& library() {
    static Library* one = made();
    return *one;
}

const Table* table(int set) {
    switch (set) {
        case 0: return &kPortableTable;
#if defined(DECODERY_X86)
        case 1: return &kAvx2Table;
        case 2: return &kAvx512Table;
#endif
#if defined(DECODERY_ARM)
        case 3: return &kNeonTable;
        case 4: return &kNeonDotTable;
#endif
        default: return nullptr;
    }
}

// The number of threads of this thread's runs; 0: the library's.
thread_local int own_threads = 0;

bool supported(int set) {
    if (set == 0) return true;
#if defined(DECODERY_X86)
    __builtin_cpu_init();
    if (set == 1) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    }
    if (set == 2) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    }
#endif
#if defined(DECODERY_ARM)
    if (set == 3) return true;
#if defined(__linux__)
    constexpr unsigned long kDotProducts = 1ul << 20;  // HWCAP_ASIMDDP
    if (set == 4) return getauxval(AT_HWCAP) & kDotProducts;
#endif
#endif
    return false;
}

}  // namespace
}  // namespace decodery

using namespace decodery;

#define EXPORT __attribute__((visibility("default")))

extern "C" {

// Changes with every change of a call's arguments or of a packed weight.
EXPORT int decodery_version() { return 21; }

// 0: portable, 1: AVX2, 2: AVX-512 with VNNI, 3: NEON, 4: NEON with dot products. Uses this set from now on and returns 1, or returns 0 if this processor
// or build lacks it.
EXPORT int decodery_use(int set) {
    if (!table(set) || !supported(set)) return 0;
    Library& lib = library();
    std::lock_guard<std::mutex> guard(lib.running);
    lib.set = set;
    return 1;
}

// Sets the number of threads of all callers that set none of their own.
EXPORT void decodery_threads(int count) {
    Library& lib = library();
    std::lock_guard<std::mutex> guard(lib.running);
    lib.threads = count;
}

// The number of threads of the calling thread's runs; 0: that of `decodery_threads`.
EXPORT int decodery_own_threads() { return own_threads; }

EXPORT void decodery_set_own_threads(int count) { own_threads = count; }

// The bytes of a packed weight of `blocks` blocks of 16 outputs.
EXPORT int64_t decodery_packed_bytes(int64_t format, int64_t blocks, int64_t ins) {
    int64_t bytes = 0;
    with_format(format, [&](auto f) { bytes = blocks * block_bytes<decltype(f)>(ins); });
    return bytes;
}

EXPORT void decodery_run(const int64_t* program, int64_t count) {
    Library& lib = library();
    std::lock_guard<std::mutex> guard(lib.running);
    lib.stages.clear();
    lib.team.resize(own_threads ? own_threads : lib.threads);
    Plan plan{lib.stages, lib.shared, lib.team.size()};
    const Table& kernels = *table(lib.set);
    for (int64_t i = 0; i < count; i++) kernels.planners[program[i * kWords]](program + i * kWords + 1, plan);
    if (!lib.stages.empty()) lib.team.run(lib.stages.data(), static_cast<int>(lib.stages.size()));
}

// A drafter for the streams of one engine, which calls it from one thread at a time; `decodery_free_drafter` frees it.
EXPORT void* decodery_new_drafter(int64_t remember) { return new Drafter(remember != 0); }

EXPORT void decodery_free_drafter(void* drafter) { delete static_cast<Drafter*>(drafter); }

EXPORT void decodery_draft(void* drafter, const DraftArgs* args) { static_cast<Drafter*>(drafter)->draft(*args); }

EXPORT void decodery_end_stream(void* drafter, int64_t stream, const int64_t* tokens, int64_t count) {
    static_cast<Drafter*>(drafter)->end(stream, tokens, count);
}

EXPORT void decodery_forget_salt(void* drafter, int64_t salt) { static_cast<Drafter*>(drafter)->forget(salt); }

EXPORT int64_t decodery_streams(void* drafter) { return static_cast<Drafter*>(drafter)->streams(); }

// Plans the attention of one step of sequences that run positions starts[s] .. starts[s] + lengths[s] - 1 over keys[s]
// keys; pages[s] is the index of a sequence's page table in the tables. window, chunk and causal are those of
// AttentionStep. Writes at most `capacity` items of work and returns their number; `slots` gets the number of partial
// slots (tokens times segments) that they need.
EXPORT int64_t decodery_plan_attention(const int64_t* starts, const int64_t* lengths, const int64_t* keys,
                                       const int64_t* pages, int64_t sequences, int64_t window, int64_t chunk,
                                       int64_t causal, int32_t* work, int64_t capacity, int64_t* slots) {
    int64_t count = 0, slot = 0;
    int32_t token = 0;
    for (int64_t s = 0; s < sequences; s++) {
        const int64_t end = starts[s] + lengths[s];
        for (int64_t first = starts[s]; first < end;) {
            int64_t stop = (first / kQueryBlock + 1) * kQueryBlock;
            stop = stop < end ? stop : end;
            // Segments that no query of the block sees are skipped: later queries see later keys.
            const int64_t seen = visible(stop - 1, keys[s], window, chunk, causal).end;
            const int64_t skipped = visible(first, keys[s], window, chunk, causal).first / kSegment;
            const int64_t segments = (seen - 1) / kSegment + 1 - skipped;
            const bool all = lengths[s] >= kManyQueries;
            for (int64_t segment = 0; segment < (all ? 1 : segments); segment++) {
                if (count < capacity) {
                    auto& w = reinterpret_cast<Work*>(work)[count];
                    w = {token, static_cast<int32_t>(first), static_cast<int32_t>(stop - first),
                         static_cast<int32_t>(pages[s]), all ? kAllSegments : static_cast<int32_t>(segment),
                         static_cast<int32_t>(segments), static_cast<int32_t>(skipped), static_cast<int32_t>(slot),
                         static_cast<int32_t>(seen)};
                }
                count++;
            }
            if (!all && segments > 1) slot += (stop - first) * segments;
            token += static_cast<int32_t>(stop - first);
            first = stop;
        }
    }
    *slots = slot;
    return count;
}

}
