// The kernels' threads under stress, for ThreadSanitizer: `make sanitize` builds and runs it. 0 if all results are right.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../../native/abi.hpp"

extern "C" {
int decodery_use(int set);
void decodery_threads(int count);
void decodery_run(const int64_t* program, int64_t count);
}

// Forks are part of the test.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }

using namespace decodery;

namespace {

std::atomic<bool> failed{false};

void expect(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "wrong: %s\n", what);
    failed = true;
}

// Every chunk of a stage runs once, after all chunks of the stage before: plain memory tells, and the sanitizer
// sees whether anything orders the threads that write and read it.
struct Stages {
    static constexpr int kStages = 7;
    std::vector<int> cells[kStages];
    std::vector<Stage> list;
    int64_t numbers[kStages];

    explicit Stages(int seed) {
        for (int s = 0; s < kStages; s++) {
            cells[s].assign(static_cast<size_t>(1 + (seed * 7 + s * 13) % 40), 0);
            numbers[s] = s;
            list.push_back({run, &numbers[s], this, static_cast<int>(cells[s].size())});
        }
    }

    static void run(const int64_t* stage, void* shared, int chunk, int chunks, Worker& worker) {
        auto& all = *static_cast<Stages*>(shared);
        const auto s = static_cast<size_t>(*stage);
        worker.buffer(1000)[chunk % 1000] = 1;
        int before = 0;
        if (s > 0) for (int cell : all.cells[s - 1]) before += cell;
        expect(s == 0 || before == static_cast<int>(all.cells[s - 1].size()), "a stage began too early");
        expect(static_cast<size_t>(chunks) == all.cells[s].size(), "number of chunks");
        all.cells[s][static_cast<size_t>(chunk)]++;
    }

    void check() const {
        for (const auto& stage : cells) for (int cell : stage) expect(cell == 1, "a chunk ran once");
    }
};

void stress_team() {
    auto* team = new Team;  // Its threads never end.
    for (int i = 0; i < 3000; i++) {
        if (i % 50 == 0) team->resize(1 + i / 50 % 4);
        if (i % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(30));  // Until its threads sleep.
        Stages stages(i);
        team->run(stages.list.data(), Stages::kStages);
        stages.check();
    }
}

// Norms of many rows: a program of two calls, the second of which reads what the first wrote.
struct Norms {
    static constexpr int64_t kRows = 64, kWidth = 100;
    std::vector<float> x, scale, middle, out;

    explicit Norms(int seed) : x(kRows * kWidth), scale(kWidth, 2.0f), middle(x.size()), out(x.size()) {
        for (size_t i = 0; i < x.size(); i++) x[i] = static_cast<float>((i * 37 + static_cast<size_t>(seed)) % 19) - 9.0f;
    }

    void run() {
        int64_t program[2 * kWords] = {};
        fill(program, x, middle);
        fill(program + kWords, middle, out);
        decodery_run(program, 2);
    }

    void fill(int64_t* call, std::vector<float>& from, std::vector<float>& to) {
        call[0] = kNorm;
        const NormArgs args{.x = from.data(), .ldx = kWidth, .head_x = 0, .rows = kRows, .heads = 1, .width = kWidth,
                            .weight = scale.data(), .head_w = 0, .eps = 1e-5, .out = to.data(),
                            .residual = nullptr, .ldr = 0, .head_r = 0};
        std::memcpy(call + 1, &args, sizeof args);
    }
};

void call_often(int seed, int times) {
    Norms norms(seed);
    norms.run();
    const std::vector<float> expected = norms.out;
    for (int i = 0; i < times; i++) {
        norms.out.assign(norms.out.size(), 0.0f);
        norms.run();
        expect(norms.out == expected, "a result changed");
    }
}

void fork_often() {
    for (int i = 0; i < 10; i++) {
        const pid_t child = fork();
        if (child == 0) {
            decodery_threads(1);  // The sanitizer itself bears no new threads there.
            call_often(i, 3);
            _exit(failed ? 1 : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child");
    }
}

void stress_library() {
    decodery_threads(3);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; i++) callers.emplace_back(call_often, i, 400);
    callers.emplace_back([] {
        for (int i = 0; i < 300; i++) {
            decodery_threads(1 + i % 4);
            decodery_use(i % 3);
        }
    });
    fork_often();
    for (auto& caller : callers) caller.join();
}

}  // namespace

int main() {
    stress_team();
    stress_library();
    std::puts(failed ? "failed" : "the threads are sound");
    return failed ? 1 : 0;
}
