// Measures the limits of this machine: the bytes that its threads read from memory in a second, and the products and sums of
// bytes that they compute in a second.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

using Clock = std::chrono::steady_clock;
static volatile uint64_t sink;

// Returns the seconds of the fastest of six runs of `work(thread)` on all threads at once.
template <class Work>
static double best(int threads, Work work) {
  double least = 1e9;
  for (int attempt = 0; attempt < 6; attempt++) {
    std::vector<std::thread> team;
    const auto start = Clock::now();
    for (int i = 0; i < threads; i++) team.emplace_back(work, i);
    for (auto& t : team) t.join();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return least;
}

static uint64_t sum(const uint64_t* words, size_t count) {
  uint64_t sums[32] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    __builtin_prefetch(words + i + 1024);
    for (int j = 0; j < 32; j++) sums[j] += words[i + j];
  }
  uint64_t all = 0;
  for (uint64_t s : sums) all += s;
  return all;
}

// Runs twelve independent chains of multiply-adds of bytes in registers. They are in assembler, since compilers copy
// the sums between registers or move the products out of the loop. An operation is a product or a sum.
#if defined(__AVX512VNNI__) || defined(__AVX2__)
#if defined(__AVX512VNNI__)
using Vector = __m512i;
#define ADD_PRODUCTS(c) asm volatile("vpdpbusd %1, %1, %0" : "+v"(c) : "v"(bytes))
#elif defined(__AVXVNNI__)
using Vector = __m256i;
#define ADD_PRODUCTS(c) asm volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(c) : "x"(bytes))
#else
using Vector = __m256i;
#define ADD_PRODUCTS(c)                                                                            \
  asm volatile("vpmaddubsw %1, %1, %%ymm15\n vpmaddwd %1, %%ymm15, %%ymm15\n vpaddd %%ymm15, %0, %0" \
               : "+x"(c)                                                                           \
               : "x"(bytes)                                                                        \
               : "xmm15")
#endif
static constexpr long long kOperations = 12 * sizeof(Vector) * 2;
static uint64_t products(long rounds) {
  Vector bytes, a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{}, i{}, j{}, k{}, l{};
  std::memset(&bytes, 3, sizeof bytes);
  for (long r = 0; r < rounds; r++) {
    ADD_PRODUCTS(a); ADD_PRODUCTS(b); ADD_PRODUCTS(c); ADD_PRODUCTS(d);
    ADD_PRODUCTS(e); ADD_PRODUCTS(f); ADD_PRODUCTS(g); ADD_PRODUCTS(h);
    ADD_PRODUCTS(i); ADD_PRODUCTS(j); ADD_PRODUCTS(k); ADD_PRODUCTS(l);
  }
  const Vector all = a + b + c + d + e + f + g + h + i + j + k + l;
  return static_cast<uint64_t>(all[0]);
}
#else
static constexpr long long kOperations = 0;
static uint64_t products(long) { return 0; }
#endif

int main(int, char** arguments) {
  const int threads = std::atoi(arguments[1]);
  const size_t words = (size_t{256} << 20) / sizeof(uint64_t) / threads;
  std::vector<std::vector<uint64_t>> buffers(threads, std::vector<uint64_t>(words, 1));
  const double reading = best(threads, [&](int i) { sink = sum(buffers[i].data(), words); });
  const long rounds = 4'000'000;
  const double adding = best(threads, [&](int) { sink = products(rounds); });
  std::printf("{\"bandwidth\": %.6g, \"int8\": %.6g}\n", words * sizeof(uint64_t) * threads / reading,
              double(kOperations) * rounds * threads / adding);
}
